"""The database: the named questions to it, by subject, and what asks them; must decide nothing."""
