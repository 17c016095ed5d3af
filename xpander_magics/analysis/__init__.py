"""Comparisons of runs: statistics, differences, plots, reports, files."""
