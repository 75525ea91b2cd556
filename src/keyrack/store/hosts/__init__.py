"""Questions about servers and what their hosts said."""
