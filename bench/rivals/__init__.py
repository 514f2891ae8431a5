"""What one would use instead: the same model behind HTTP. They run in an environment of their own."""
