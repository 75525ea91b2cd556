"""A workspace as a file declares it, and its first start; must hold no rule of a noun."""
