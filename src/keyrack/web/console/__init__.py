"""The console: pages for people, as one more API beside the others."""
