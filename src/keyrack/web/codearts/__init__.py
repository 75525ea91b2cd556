"""CodeArts Repo v4, v2 and v1."""
