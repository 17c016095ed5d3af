"""Runs, comparisons and votes for other tools."""
