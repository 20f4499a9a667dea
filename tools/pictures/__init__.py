"""Draws the pictures of the documentation: `python -m tools.pictures` writes docs/pictures.

The state diagram and the map of the rooms come from the code, the plots from benchmarks/results, and the timelines from
runs that `python -m tools.pictures.record` has recorded.
"""
