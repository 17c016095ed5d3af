"""Scores: what an answer is worth, and who says so."""
