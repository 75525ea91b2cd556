"""What the agent hears from the service and tells it."""
