"""The contract: messages, topics and codec of version 1. No I/O happens here."""
