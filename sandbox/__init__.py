"""The mount and the jail: what a lane is made of. Knows nothing of phases or sprints."""
