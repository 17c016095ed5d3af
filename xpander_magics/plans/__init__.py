"""A cell's text and options become a checked plan, or a grid of them; nothing is sent."""
