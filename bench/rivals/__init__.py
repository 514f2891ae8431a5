"""Alternative servers with the same model behind HTTP; they run in a separate environment."""
