"""The live messages of the broker, and how open pages receive them."""
