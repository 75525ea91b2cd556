"""The commands of `keyrack hosts`."""
