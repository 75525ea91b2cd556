"""Keys that open hosts: who gives them, who takes them back, and how far that has come."""
