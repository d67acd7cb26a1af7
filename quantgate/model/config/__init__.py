"""Records of the files in configs/, a module a kind of file."""
