"""What Keyrack does, one plain function a use case, for every API and command; must know no HTTP and no terminal."""
