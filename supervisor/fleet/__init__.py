"""`nanosup up`: observe the board, decide, act, wait for a change, and again."""
