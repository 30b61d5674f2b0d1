"""What people and programs are shown of the board. Starts nothing."""
