"""The state on disk: claims, outcomes, turns, journals. The only truth."""
