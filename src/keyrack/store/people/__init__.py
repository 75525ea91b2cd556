"""Questions about users, groups and their proofs."""
