"""Databases as files and servers: opened, written, pooled, listened to; must hold no question."""
