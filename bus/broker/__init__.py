"""Find, configure and run a mosquitto broker."""
