"""One file a revision of the tables, in order; must not import the tables, which go on changing."""
