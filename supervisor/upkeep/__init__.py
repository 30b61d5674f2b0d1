"""Keeping the board small, and putting aside what is damaged."""
