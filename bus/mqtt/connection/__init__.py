"""One connection to a broker, with what it needs of paho and aiomqtt."""
