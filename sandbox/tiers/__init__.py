"""Lanes where FUSE or namespaces are not to be had, with the same promise."""
