"""Git repositories: who may read and write them, where they lie, what was done with them."""
