"""The process that owns one attempt, and the lane that it runs in."""
