"""Whether a live picture lives: pictures in, state out. Knows no container and no network; looks at few pixels of each.

A camera's own noise is a sign of life: in each picture some pixels turn, get brighter after they got darker or the
other way round. An encoder that repeats a picture codes it anew at a key frame, where every pixel may change a little
although nothing has, and polishes it in the pictures after it, where pixels change towards what they are and seldom
turn. So a key frame among others is judged by the means of blocks alone, in which all this averages out, every other
picture also by the pixels that turn. Where strong compression leaves nothing of the noise, a still scene looks frozen.
"""

from dataclasses import dataclass

import numpy as np
from av.video.frame import VideoFrame
from numpy.typing import NDArray

from pipeline.sources.signals import State

SAMPLES = 32_768  # of a picture, about; a square grid
BLOCK = 4  # samples a side, whose mean is compared
CHANGED_LEVELS = 1  # a sample that differs by more has changed, not only been rounded otherwise
TURNED_SHARE = 1e-4  # of the samples, from which on a picture has noise
MOVED_LEVELS = 5.0  # a block whose mean differs by more shows something else
DETAIL_LEVELS = 5.0  # between the darkest and the brightest block: with less there is nothing to be seen
LETTERING_SHARE = 0.05  # of the blocks at either end are ignored: a clock drawn into a covered camera's picture
NOISY_SECONDS = 1.0  # noise counts from so long on, less twice the time without
QUIET_WEIGHT = 2.0  # of that time: of pictures that are polished to a low bit rate, three in five may turn somewhere
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
        self._turns = _Turns()
        self._last_is_key = True
        self._last_seconds = 0.0
        self._noisy_seconds = 0.0
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
            self._blocks_hw, self._turns = blocks_hw, _Turns()
            return True
        if np.abs(blocks_hw - blocks_before_hw).max() > MOVED_LEVELS * BLOCK**2:
            self._blocks_hw = blocks_hw
            return True
        if is_key and not self._last_is_key:  # tells nothing new of the pixels
            return self._noisy_seconds == NOISY_SECONDS
        step_seconds = min(at_seconds - self._last_seconds, LONGEST_STEP_SECONDS)
        noisy = self._turns.share(last_hw, samples_hw) > TURNED_SHARE
        noisy_seconds = self._noisy_seconds + (step_seconds if noisy else -QUIET_WEIGHT * step_seconds)
        self._noisy_seconds = min(max(noisy_seconds, 0.0), NOISY_SECONDS)
        return noisy and self._noisy_seconds == NOISY_SECONDS


class _Turns:
    """Which way each sample changed last; pictures of one size."""

    def __init__(self) -> None:
        self._rose_hw: NDArray[np.bool_] | bool = False
        self._fell_hw: NDArray[np.bool_] | bool = False

    def share(self, before_hw: NDArray[np.uint8], samples_hw: NDArray[np.uint8]) -> float:
        """Of the samples that change from `before_hw` to `samples_hw` the other way than the last time."""
        rises_hw = samples_hw > np.minimum(before_hw, 255 - CHANGED_LEVELS) + np.uint8(CHANGED_LEVELS)
        falls_hw = before_hw > np.minimum(samples_hw, 255 - CHANGED_LEVELS) + np.uint8(CHANGED_LEVELS)
        turned_hw = (rises_hw & self._fell_hw) | (falls_hw & self._rose_hw)
        self._rose_hw = rises_hw | (self._rose_hw & ~falls_hw)
        self._fell_hw = falls_hw | (self._fell_hw & ~rises_hw)
        return np.count_nonzero(turned_hw) / turned_hw.size


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


def _has_detail(blocks_hw: NDArray[np.int32]) -> bool:
    blocks = blocks_hw.ravel()
    ignored = int(LETTERING_SHARE * blocks.size)
    ordered = np.partition(blocks, (ignored, blocks.size - 1 - ignored))
    return bool(ordered[blocks.size - 1 - ignored] - ordered[ignored] > DETAIL_LEVELS * BLOCK**2)
