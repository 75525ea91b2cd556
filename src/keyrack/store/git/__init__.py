"""Questions about repositories and deploy keys."""
