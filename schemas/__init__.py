"""Messages, topics and codec of version 1 of the wire contract; without I/O."""
