"""Who did or tried what, as it is kept and read."""
