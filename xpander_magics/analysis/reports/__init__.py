"""Comparisons as pages for people without Python."""
