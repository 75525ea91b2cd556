"""GitHub's API: users and their SSH keys."""
