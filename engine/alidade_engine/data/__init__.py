"""Records of data: read from files, and recognised by their shape."""
