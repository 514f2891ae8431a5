"""The edge handler: answers photos, harvests samples and installs models."""
