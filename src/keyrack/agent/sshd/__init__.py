"""The host's sshd: what it would do, its settings, and enforcing."""
