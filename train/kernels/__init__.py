"""Compiled loops over plain arrays: NumPy and Numba, nothing else. Knows no tensor, no network.

gaussian   draws objects and regions without a verdict into heat maps
resampled  average precision of many draws of the same images
"""
