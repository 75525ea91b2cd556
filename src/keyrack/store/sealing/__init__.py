"""How rows that decide about access are sealed and counted, so that what others write is noticed."""
