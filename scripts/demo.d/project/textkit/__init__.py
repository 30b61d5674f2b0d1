"""Small functions for text that people read."""

from textkit.text import initials, slugify

__all__ = ["initials", "slugify"]
