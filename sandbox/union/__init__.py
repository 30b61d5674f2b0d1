"""One tree made of a git tree, sealed layers and an upper directory. Knows nothing of FUSE."""
