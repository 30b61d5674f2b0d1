"""The host's repository: what lanes are made of, and what comes back from them."""
