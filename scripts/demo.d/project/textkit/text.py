"""Functions from text to text."""

import re
import unicodedata


def slugify(text: str) -> str:
    """`text` as a part of a URL: ASCII, lower case, words joined by hyphens."""
    plain = unicodedata.normalize("NFKD", text).encode("ascii", "ignore").decode()
    return "-".join(re.findall(r"[a-z0-9]+", plain.lower()))


def initials(name: str) -> str:
    """The first letter of each word of `name`, in upper case."""
    return "".join(word[0].upper() for word in name.split())
