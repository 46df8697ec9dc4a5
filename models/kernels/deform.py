"""What the taps of a modulated deformable convolution read (Zhu et al. 2018, arXiv 1811.11168, section 3.1).

Tap k of pixel p reads the image at p + p_k + its offset, between four cells (Dai et al. 2017, arXiv 1703.06211,
equations 3 and 4), times its mask. What the taps of a pixel read is one row of `samples`; their sum with the weights of
the convolution is left to others. Two passes, both of vector instructions: the cells and their shares for many pixels
side by side, which wants the offsets plane by plane; then, sample by sample, four cells blended along the channels,
which wants an image whose channels lie side by side.
"""

import numpy as np
from numba import njit
from numpy.typing import NDArray

SIDE = 3
TAPS = SIDE * SIDE
RUN = 128  # pixels of a row at a time: their cells and weights stay in the first cache
FUSED = {"contract"}  # multiply and add in one instruction; NaN and infinity keep their meaning

Floats = NDArray[np.float32]
Ints = NDArray[np.int32]


@njit(nogil=True, cache=True, fastmath=FUSED)
def sample_taps(
    image_pc: Floats, offsets_tp: Floats, masks_tp: Floats, width: int, start: int, samples_pc: Floats
) -> None:
    """Fills `samples_pc` (N, 9 * C) for the N pixels from `start` on, counted along the rows.

    image_pc    (H * W, C)
    offsets_tp  (18, H * W), y and x of each tap in pixels
    masks_tp    (9, H * W)

    A cell outside the image counts 0, and an offset that is NaN or infinite leads outside. The arrays are C-contiguous
    and fit each other: nothing here checks that.
    """
    height, count = len(image_pc) // width, len(samples_pc)
    cells = np.empty((TAPS, 4, RUN), np.int32)
    weights = np.empty((TAPS, 4, RUN), np.float32)
    done = 0
    while done < count:
        row, column = divmod(start + done, width)
        run = min(width - column, count - done, RUN)
        here = slice(start + done, start + done + run)
        for tap in range(TAPS):
            y = np.float32(row + tap // SIDE - SIDE // 2)
            x = np.int32(column + tap % SIDE - SIDE // 2)
            offset_y, offset_x, mask = offsets_tp[2 * tap, here], offsets_tp[2 * tap + 1, here], masks_tp[tap, here]
            _locate(y, x, offset_y, offset_x, mask, height, width, cells[tap], weights[tap])
        _blend(image_pc.reshape(-1), cells, weights, run, samples_pc[done : done + run].reshape(-1))
        done += run


@njit(nogil=True, cache=True, fastmath=FUSED)
def _locate(
    y: np.float32,
    x: np.int32,
    offset_y: Floats,
    offset_x: Floats,
    mask: Floats,
    height: int,
    width: int,
    cells: Ints,
    weights: Floats,
) -> None:
    """One tap of neighbours in a row, the first at (y, x): the four cells each reads, and the weights with the mask."""
    last_row, last_column, step = np.int32(height - 1), np.int32(width - 1), np.int32(width)
    for i in range(len(mask)):
        top, bottom, share_top, share_bottom = _between(y + offset_y[i], last_row)
        left, right, share_left, share_right = _between(np.float32(x + np.int32(i)) + offset_x[i], last_column)
        cells[0, i] = top * step + left
        cells[1, i] = top * step + right
        cells[2, i] = bottom * step + left
        cells[3, i] = bottom * step + right
        weights[0, i] = share_top * share_left * mask[i]
        weights[1, i] = share_top * share_right * mask[i]
        weights[2, i] = share_bottom * share_left * mask[i]
        weights[3, i] = share_bottom * share_right * mask[i]


@njit(nogil=True, cache=True, fastmath=FUSED)
def _between(position: np.float32, last: np.int32) -> tuple[np.int32, np.int32, np.float32, np.float32]:
    """The two cells along one axis that `position` lies between, and the share of each.

    A cell outside has a share of 0, and its place is taken by one inside: whoever reads it stays in the array.
    """
    outside = np.float32(-1)
    # The comparison comes before the conversion: a NaN fails it, and what no int32 can hold is never converted.
    position = position if (position > outside) & (position < np.float32(last) + np.float32(1)) else outside
    floor = np.floor(position)
    before = np.int32(floor)
    after = np.int32(before + np.int32(1))
    fraction = position - floor
    share_before = np.float32(1) - fraction if before >= 0 else np.float32(0)
    share_after = fraction if after <= last else np.float32(0)
    return max(before, np.int32(0)), min(after, last), share_before, share_after


@njit(nogil=True, cache=True, fastmath=FUSED)
def _blend(image: Floats, cells: Ints, weights: Floats, count: int, samples: Floats) -> None:
    """The samples of `count` pixels; all channels of one at a time."""
    channels = np.uint64(len(samples) // (count * TAPS))  # unsigned: no index is tested for being counted from the end
    to = np.uint64(0)
    for pixel in range(count):
        for tap in range(TAPS):
            a, b = np.uint64(cells[tap, 0, pixel]) * channels, np.uint64(cells[tap, 1, pixel]) * channels
            c, d = np.uint64(cells[tap, 2, pixel]) * channels, np.uint64(cells[tap, 3, pixel]) * channels
            wa, wb, wc, wd = weights[tap, :, pixel]
            if wa == 0 and wb == 0 and wc == 0 and wd == 0:  # outside: what stands in for it might be infinite
                for i in range(channels):
                    samples[to + i] = 0
            else:
                for i in range(channels):
                    samples[to + i] = wa * image[a + i] + wb * image[b + i] + wc * image[c + i] + wd * image[d + i]
            to += channels
