"""What this host can enforce, found out by doing it."""
