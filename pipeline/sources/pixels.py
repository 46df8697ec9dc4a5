"""From a decoded frame into memory the caller owns, in full size as BGR or at the network's as RGB; or a picture of it.

One path for every pixel format: swscale reads the decoder's planes and minds colour matrix and range. Knows no source,
no shared memory and no model.
"""

import av
import numpy as np
from av.video.frame import VideoFrame
from av.video.reformatter import ColorRange, Colorspace, Interpolation, VideoReformatter
from numpy.typing import NDArray

from pipeline.errors import SourceError
from pipeline.geometry import Resize, fit_input

# AREA averages every source pixel under a target pixel, so that small objects do not flicker when a large frame
# shrinks, and is bilinear when a small one grows.
SCALING = Interpolation.AREA
# Not ACCURATE_RND, which takes three times as long at full size: what an encoder is given is as near to the source
# without it.
COLOUR_ONLY = Interpolation.BILINEAR

_UNTAGGED, _RGB = 2, 0  # AVCOL_SPC_UNSPECIFIED, AVCOL_SPC_RGB


class PixelConverter:
    """Scalers of one source, kept between frames. Not for use from two threads at once."""

    def __init__(self) -> None:
        self._to_bgr = VideoReformatter()
        self._to_size = VideoReformatter()
        self._to_rgb = VideoReformatter()

    def write_bgr(self, frame: VideoFrame, rotation_degrees: int, out_hwc: NDArray[np.uint8]) -> None:
        """Write the frame, turned clockwise by `rotation_degrees` (0, 90, 180, 270), to `out_hwc`.

        out_hwc: (H, W, 3) uint8, any strides; H and W are those of the turned frame.
        """
        width, height = turned(frame.width, frame.height, rotation_degrees)
        if out_hwc.shape != (height, width, 3):
            raise ValueError(f"a turned frame of {width}x{height} needs ({height}, {width}, 3), got {out_hwc.shape}")
        out_hwc[:] = self.picture_bgr(frame, rotation_degrees, width)

    def picture_bgr(self, frame: VideoFrame, rotation_degrees: int, most_width: int) -> NDArray[np.uint8]:
        """The frame, turned clockwise, at most so many pixels wide: (h, w, 3), valid until the next call."""
        width, height = turned(frame.width, frame.height, rotation_degrees)
        if width > most_width:  # its size before its colour, as below
            sides = turned(most_width, max(1, round(height * most_width / width)), rotation_degrees)
            frame = _convert(self._to_size, frame, *sides, "yuv420p", SCALING)
        bgr = _convert(self._to_bgr, frame, frame.width, frame.height, "bgr24", COLOUR_ONLY)
        return _turn(_pixels(bgr), rotation_degrees)

    def write_input(
        self, frame: VideoFrame, rotation_degrees: int, out_hwc: NDArray[np.uint8], resize: Resize = "stretch"
    ) -> None:
        """Write the frame, turned clockwise and scaled, as RGB to `out_hwc`, (h, w, 3) uint8 of any strides.

        Letterbox bars are black.
        """
        input_height, input_width = out_hwc.shape[:2]
        source_width, source_height = turned(frame.width, frame.height, rotation_degrees)
        box = fit_input(source_width, source_height, input_width, input_height, resize)
        if (box.width, box.height) != (input_width, input_height):
            out_hwc[:] = 0
        width, height = turned(box.width, box.height, rotation_degrees)
        # First the size, then the colour of the few pixels left: half the time of both in one pass, because swscale
        # has fast code for each but not for the two together.
        small = _convert(self._to_size, frame, width, height, "yuv420p", SCALING)
        rgb = _convert(self._to_rgb, small, width, height, "rgb24", COLOUR_ONLY)
        picture = out_hwc[box.top : box.top + box.height, box.left : box.left + box.width]
        picture[:] = _turn(_pixels(rgb), rotation_degrees)


def turned(width: int, height: int, rotation_degrees: int) -> tuple[int, int]:
    """Width and height after a turn by 0, 90, 180 or 270 degrees."""
    return (height, width) if rotation_degrees % 180 else (width, height)


def _turn(pixels_hwc: NDArray[np.uint8], rotation_degrees: int) -> NDArray[np.uint8]:
    return np.rot90(pixels_hwc, -rotation_degrees // 90) if rotation_degrees else pixels_hwc


def _convert(
    scaler: VideoReformatter, frame: VideoFrame, width: int, height: int, pixel_format: str, flags: Interpolation
) -> VideoFrame:
    matrix = _matrix(frame)
    yuv_range = ColorRange.MPEG if pixel_format == "yuv420p" else None
    try:
        # One thread: the other cores belong to the other stages.
        return scaler.reformat(
            frame,
            width,
            height,
            pixel_format,
            src_colorspace=matrix,
            dst_colorspace=matrix,
            dst_color_range=yuv_range,
            interpolation=flags,
            threads=1,
        )
    except (av.error.FFmpegError, ValueError) as error:
        raise SourceError(
            f"a frame of {frame.width}x{frame.height} {frame.format.name} cannot become {pixel_format}: {error}"
        ) from None


def _matrix(frame: VideoFrame) -> Colorspace | None:
    """Untagged video is BT.709 in high definition and BT.601 below, as players assume. None: what the frame says."""
    if frame.colorspace not in (_UNTAGGED, _RGB):
        return None
    return Colorspace.ITU709 if frame.width >= 1280 or frame.height > 576 else Colorspace.ITU601


def _pixels(frame: VideoFrame) -> NDArray[np.uint8]:
    """(H, W, 3) view of a packed 24-bit frame, without the padding at the end of its lines."""
    plane = frame.planes[0]
    lines = np.frombuffer(memoryview(plane), np.uint8).reshape(-1, plane.line_size)
    return lines[: frame.height, : frame.width * 3].reshape(frame.height, frame.width, 3)
