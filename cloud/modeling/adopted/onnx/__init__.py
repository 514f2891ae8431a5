"""Load ONNX files: their graph as operations of TensorFlow."""
