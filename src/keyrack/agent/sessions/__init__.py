"""Who is in on the host, with which key, and how a session ends."""
