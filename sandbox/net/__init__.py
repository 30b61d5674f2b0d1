"""The only way out of a lane that may reach some hosts."""
