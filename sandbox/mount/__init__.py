"""The tree as a mount: the FUSE protocol, and the process that serves it."""
