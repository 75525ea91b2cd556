"""The programs that sshd and git start, a folder each, in C and in Python: they import nothing of ours."""
