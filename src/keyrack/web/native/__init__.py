"""Keyrack's own API."""
