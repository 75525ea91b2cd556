"""RunCloud API v3 and v2's SSH side."""
