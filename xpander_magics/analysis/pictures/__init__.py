"""Comparisons as plots."""
