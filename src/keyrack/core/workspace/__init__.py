"""A workspace as a file declares it, and its first start; must hold no rules for users, servers or anything else."""
