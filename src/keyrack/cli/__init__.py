"""The `keyrack` command, a file a command; must hold no rule, the core has them."""
