"""Phases, attempts, and the rules about them: values and decisions. Pure."""
