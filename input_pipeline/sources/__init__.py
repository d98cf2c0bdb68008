"""One module per kind of data on disk."""
