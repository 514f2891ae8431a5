"""What runs a version of a model: TensorFlow runs its graph, LiteRT its network without TensorFlow."""
