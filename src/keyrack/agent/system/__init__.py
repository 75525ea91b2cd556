"""The host itself: accounts, folders, processes, programs."""
