"""`nanosup.toml` and the files that ship with nanosup."""
