"""Answers: what a photo's Result says, that it is recorded once, and which of them count."""
