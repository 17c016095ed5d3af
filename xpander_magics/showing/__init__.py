"""Runs as text and as safe HTML, and what an output carries of them."""
