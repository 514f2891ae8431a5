"""Receive samples and labels from MQTT and store them."""
