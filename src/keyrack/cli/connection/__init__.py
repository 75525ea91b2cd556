"""How a command reaches the core: over HTTP, or on the data of this machine."""
