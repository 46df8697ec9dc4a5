"""Whether a live picture lives: pictures in, state out. Knows no container and no network; looks at few pixels of each.

A camera's own noise is a sign of life: in each picture some pixels change a little. An encoder that repeats a picture
changes nothing but what it codes anew at a key frame, where every pixel may change a little although nothing has. So a
key frame among others is judged by the means of blocks alone, in which both kinds of noise average out, every other
picture also by its pixels. Where strong compression leaves nothing of the noise, a still scene looks frozen.
"""

from dataclasses import dataclass

import numpy as np
from av.video.frame import VideoFrame
from numpy.typing import NDArray

from pipeline.sources.signals import State

SAMPLES = 32_768  # of a picture, about; a square grid
BLOCK = 4  # samples a side, whose mean is compared
CHANGED_LEVELS = 1.0  # a sample that differs by more has changed, not only been coded anew
CHANGED_SHARE = 1e-4  # of the samples, from which on a picture has changed
MOVED_LEVELS = 5.0  # a block whose mean differs by more shows something else
DETAIL_LEVELS = 5.0  # between the darkest and the brightest block: with less there is nothing to be seen
LETTERING_SHARE = 0.05  # of the blocks at either end are ignored: a clock drawn into a covered camera's picture
MOVING_SECONDS = (
    1.0  # pictures that changed for so long more than not: encoders polish a still for a few after each key
)
LONGEST_STEP_SECONDS = 0.5


@dataclass(frozen=True, slots=True)
class View:
    """What the pictures show: live, frozen or grey, and since when, on the clock that the moments came by."""

    state: State
    since_seconds: float


class PictureWatch:
    """Looks at the pictures of one connection, in order."""

    def __init__(self, frozen_seconds: float, grey_seconds: float) -> None:
        """A picture may stand still or have no detail for so long; 0: for ever."""
        self._frozen_seconds = frozen_seconds
        self._grey_seconds = grey_seconds
        self._last_hw: NDArray[np.uint8] | None = None
        self._blocks_hw: NDArray[np.int32] | None = None  # when it moved last
        self._last_is_key = True
        self._last_seconds = 0.0
        self._moving_seconds = 0.0
        self._moved_at = 0.0
        self._detail_at: float | None = None

    def look(self, samples_hw: NDArray[np.uint8], is_key: bool, at_seconds: float) -> View:
        """The state with this picture; `samples_hw` are (H, W) of its luma, 0 to 255."""
        blocks_hw = _block_sums(samples_hw)
        if self._moves(samples_hw, blocks_hw, is_key, at_seconds):
            self._moved_at = at_seconds
        if self._detail_at is None or _has_detail(blocks_hw):
            self._detail_at = at_seconds
        self._last_hw, self._last_is_key, self._last_seconds = samples_hw, is_key, at_seconds
        if self._grey_seconds and at_seconds - self._detail_at >= self._grey_seconds:
            return View("grey", self._detail_at)
        if self._frozen_seconds and at_seconds - self._moved_at >= self._frozen_seconds:
            return View("frozen", self._moved_at)
        return View("live", at_seconds)

    def _moves(
        self, samples_hw: NDArray[np.uint8], blocks_hw: NDArray[np.int32], is_key: bool, at_seconds: float
    ) -> bool:
        last_hw, blocks_before_hw = self._last_hw, self._blocks_hw
        if last_hw is None or blocks_before_hw is None or last_hw.shape != samples_hw.shape:
            self._blocks_hw = blocks_hw
            return True
        if np.abs(blocks_hw - blocks_before_hw).max() > MOVED_LEVELS * BLOCK**2:
            self._blocks_hw = blocks_hw
            return True
        if is_key and not self._last_is_key:  # tells nothing new of the pixels
            return self._moving_seconds == MOVING_SECONDS
        step_seconds = min(at_seconds - self._last_seconds, LONGEST_STEP_SECONDS)
        changed = _has_changed(last_hw, samples_hw)
        moving_seconds = self._moving_seconds + (step_seconds if changed else -step_seconds)
        self._moving_seconds = min(max(moving_seconds, 0.0), MOVING_SECONDS)
        return changed and self._moving_seconds == MOVING_SECONDS


def luma_samples(frame: VideoFrame) -> NDArray[np.uint8]:
    """(H, W), about SAMPLES of a picture's luma in a square grid, copied."""
    step = max(1, round((frame.width * frame.height / SAMPLES) ** 0.5))
    if _is_plain(frame):
        plane = frame.planes[0]
        rows_hw = np.frombuffer(memoryview(plane), np.uint8).reshape(-1, plane.line_size)
        return np.ascontiguousarray(rows_hw[: frame.height : step, : frame.width : step])
    width, height = max(1, frame.width // step), max(1, frame.height // step)
    grey = frame.reformat(width, height, "gray", interpolation="POINT")
    return grey.to_ndarray().astype(np.uint8, copy=False)


def _is_plain(frame: VideoFrame) -> bool:
    """Whether the first plane is luma of eight bits."""
    luma = frame.format.components[0]
    return luma.is_luma and luma.bits == 8 and frame.format.is_planar and frame.planes[0].line_size > 0


def _block_sums(samples_hw: NDArray[np.uint8]) -> NDArray[np.int32]:
    """(H / BLOCK, W / BLOCK); what is left over at the right and below is ignored. Small pictures are their own."""
    height, width = (side // BLOCK for side in samples_hw.shape)
    if not height or not width:
        return samples_hw.astype(np.int32) * BLOCK**2
    whole = samples_hw[: height * BLOCK, : width * BLOCK]
    rows = whole.reshape(height, BLOCK, width * BLOCK).sum(axis=1, dtype=np.uint16)
    return rows.reshape(height, width, BLOCK).sum(axis=2, dtype=np.int32)


def _has_changed(before_hw: NDArray[np.uint8], samples_hw: NDArray[np.uint8]) -> bool:
    distance = np.maximum(before_hw, samples_hw) - np.minimum(before_hw, samples_hw)
    return bool(np.count_nonzero(distance > CHANGED_LEVELS) > CHANGED_SHARE * distance.size)


def _has_detail(blocks_hw: NDArray[np.int32]) -> bool:
    blocks = blocks_hw.ravel()
    ignored = int(LETTERING_SHARE * blocks.size)
    ordered = np.partition(blocks, (ignored, blocks.size - 1 - ignored))
    return bool(ordered[blocks.size - 1 - ignored] - ordered[ignored] > DETAIL_LEVELS * BLOCK**2)
