"""The commands for the machine itself: up, serve, backup and such."""
