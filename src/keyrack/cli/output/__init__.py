"""How commands show what they have: tables, JSON, statuses."""
