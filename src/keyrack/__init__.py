"""Keyrack: one registration of an SSH public key opens servers and Git repositories; must import nothing."""

__version__ = "0.1.0"
