"""Questions about the audit log and about what leaves it."""
