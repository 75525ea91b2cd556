"""Git over SSH: its sshd, the authorizer that decides by asking the core, and the programs that sshd and git start."""
