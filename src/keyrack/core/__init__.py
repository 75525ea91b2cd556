"""What Keyrack does, one function for each use case, for every API and command; must know no HTTP and no terminal."""
