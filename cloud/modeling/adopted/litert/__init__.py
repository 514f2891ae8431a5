"""Load LiteRT files: their graph as operations of TensorFlow."""
