"""Groups of devices: who belongs to which, and the heads that answer for them."""
