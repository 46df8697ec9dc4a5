"""Compiled loops over plain arrays: NumPy and Numba, nothing else. Knows no tensor, no network.

deform  what the taps of a deformable convolution read
"""
