"""Where a command runs: namespaces, landlock, seccomp, limits, and how it ends."""
