"""The supervisor: board, graph, decisions, keepers, artifacts, views, command line."""

__version__ = "0.1.0"
