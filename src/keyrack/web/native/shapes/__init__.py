"""What calls of Keyrack's own API take and answer: a pydantic model each, in a file a resource."""
