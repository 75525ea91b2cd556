"""Questions about keys, and about what lets them in or refuses them."""
