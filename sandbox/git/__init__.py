"""What git is made of, as rules and bytes: objects, index, ignoring, converting. Runs no git."""
