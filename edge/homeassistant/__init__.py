"""Devices and the node as entities of Home Assistant, by its MQTT discovery."""
