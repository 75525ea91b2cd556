"""Files of keys on the host: Keyrack's own, and those of others."""
