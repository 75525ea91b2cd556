"""GitLab's API v4: users and their SSH keys."""
