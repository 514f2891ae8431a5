"""One connection to a broker, the only package that uses paho and aiomqtt."""
