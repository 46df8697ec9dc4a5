"""A video file of one source: H.264 in MP4, MOV or Matroska, in real time, readable even after `kill -9`.

Every frame keeps its presentation time, so a variable frame rate and dropped frames leave the clock right. Until a file
is closed its index stays in memory, so that a recording without end is one of segments. Knows no stage and draws
nothing.
"""

import av.error

from pipeline.flow.results import FrameResult
from pipeline.settings import EncoderSettings
from pipeline.sinks import Image, Sink, Target
from pipeline.sinks.h264 import TICKS_PER_SECOND, PictureEncoder, check_encoder, give_back_freed_memory
from pipeline.sinks.segments import next_segment
from pipeline.sinks.videofile import VideoFile, check_writable, failed, longest_step_ticks

__all__ = ["VideoSink", "check_encoder", "next_segment", "open_sink"]


def open_sink(target: Target) -> Sink:
    path = next_segment(target.path) if target.goes_on else target.path  # what was cut off is not written on
    return VideoSink(path, target.frames_per_second, target.segment_seconds, target.path, target.encoder)


class VideoSink(Sink):
    """Writes the pictures it is given, in the size of the first one, as `PictureEncoder` does; all but Matroska shorten
    a gap of more than 6 hours.

    A recording without end is one of segments: each begins at 0, in the size of its own first picture.

    Raises UsageError for a suffix that is not one of .mp4, .m4v, .mov, .mkv, OutputError when the folder is missing or
    the file cannot be written.
    """

    path: str

    def __init__(
        self,
        path: str,
        frames_per_second: float | None = None,
        segment_seconds: float | None = None,
        first_path: str | None = None,
        encoder_settings: EncoderSettings | None = None,
    ) -> None:
        """`frames_per_second` is only a hint for the encoder and the file's header; None when unknown. Segments are
        named after `first_path`, which is `path` when None."""
        check_writable(path)
        self.path = path
        self._first_path = first_path or path
        self._frames_per_second = frames_per_second
        self._encoder_settings = encoder_settings or EncoderSettings()
        self._segment_ticks = None if segment_seconds is None else round(segment_seconds * TICKS_PER_SECOND)
        self._encoder: PictureEncoder | None = None
        self._file: VideoFile | None = None

    def write(self, frame: FrameResult, image_bgr: Image | None) -> None:
        """Encode one picture, also that of a frame without result; without a picture there is nothing to do."""
        if image_bgr is not None:
            self._encode(image_bgr, frame.pts_seconds)

    def still(self, source_id: str, pts_seconds: float, image_bgr: Image) -> None:
        self._encode(image_bgr, pts_seconds)

    def _encode(self, image_bgr: Image, pts_seconds: float) -> None:
        if self._is_full():
            self.close()
            self.path = next_segment(self._first_path)
        try:
            if self._encoder is None or self._file is None:
                self._encoder, self._file = self._open(*image_bgr.shape[:2])
            packets = self._encoder.encode(image_bgr, pts_seconds)
        except (OSError, av.error.FFmpegError) as error:
            raise failed(self.path, error) from error
        self._file.add(packets)

    def _is_full(self) -> bool:
        if self._segment_ticks is None or self._encoder is None:
            return False
        return self._encoder.now_ticks >= self._segment_ticks

    def close(self) -> None:
        """Finish the file. Raises OutputError when the rest cannot be written; the file stays as it is then."""
        encoder, file = self._encoder, self._file
        self._encoder = self._file = None
        if encoder is None or file is None:
            return
        try:
            file.add(encoder.flush())
        except av.error.FFmpegError as error:
            raise failed(self.path, error) from error
        finally:
            file.close()
        del encoder, file
        give_back_freed_memory()

    def _open(self, height: int, width: int) -> tuple[PictureEncoder, VideoFile]:
        longest = longest_step_ticks(self.path)
        encoder = PictureEncoder(self._encoder_settings, self._frames_per_second, height, width, longest)
        self.way = encoder.words
        return encoder, VideoFile(self.path, encoder.stream)
