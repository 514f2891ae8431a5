"""Certificates, access control lists and signed releases."""
