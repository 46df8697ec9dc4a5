"""Compiled loops over plain arrays: NumPy and Numba, nothing else. Knows no message, no setting, no stage.

peaks   the best cells of a heat map
boxes   heads to boxes in source pixels; overlap of boxes
kalman  where boxes will be
assign  who belongs to whom

Every loop releases the GIL, and is compiled once and kept on disk. Numba renews what it kept when the file of the
outermost function changes, and no other: so a compiled function calls only those of its own file.
"""
