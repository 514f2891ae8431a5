"""Results: compose them, record each once, and confirm labels by vote."""
