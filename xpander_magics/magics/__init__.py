"""What IPython sees: the magics, their commands, and Tab."""
