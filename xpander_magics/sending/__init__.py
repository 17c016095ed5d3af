"""Plans are sent and followed to their end: one, or many, here or in other processes."""
