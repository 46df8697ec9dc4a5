"""A file of H.264 packets that can be played while it grows, also after `kill -9`: MP4, MOV or Matroska.

While it grows, an MP4 is a row of fragments of one frame each; a clean close turns it into an ordinary MP4 (FFmpeg's
`hybrid_fragmented`). Matroska is written a cluster a frame. Until a file is closed its index stays in memory (40 bytes
a key frame in Matroska, 110 bytes a frame in the others), and one that is cut off has none. Knows no picture.
"""

import os
from collections.abc import Iterable
from pathlib import Path

import av
import av.error
from av.container import OutputContainer
from av.packet import Packet
from av.video.stream import VideoStream

from configs.uri import shown_text
from pipeline.errors import OutputError, UsageError
from pipeline.sinks.h264 import TICKS_PER_SECOND, copied

# MP4 has 31 bits, 6.6 hours, for how long a frame is shown; beyond, the times of all that follow would be lost.
_LONGEST_FRAGMENT_STEP = 6 * 3600 * TICKS_PER_SECOND

_FRAGMENTS = {"movflags": "hybrid_fragmented+frag_every_frame+empty_moov+default_base_moof"}
_CONTAINER_OPTIONS: dict[str, dict[str, str]] = {
    ".mp4": _FRAGMENTS,
    ".m4v": _FRAGMENTS,
    ".mov": _FRAGMENTS,
    ".mkv": {"cluster_time_limit": "1"},
}


def longest_step_ticks(path: str) -> int | None:
    """For how long a picture can be shown there; None: without end."""
    return None if Path(path).suffix.lower() == ".mkv" else _LONGEST_FRAGMENT_STEP


def check_writable(path: str) -> None:
    """Tells now what would only come up with the first frame.

    Raises UsageError for a suffix that is not one of .mp4, .m4v, .mov, .mkv, OutputError when the folder is missing or
    the file cannot be written.
    """
    if Path(path).suffix.lower() not in _CONTAINER_OPTIONS:
        allowed = ", ".join(_CONTAINER_OPTIONS)
        raise UsageError(f"cannot write video to {shown_text(path)}: its name must end in one of {allowed}")
    folder = Path(path).parent
    if not folder.is_dir():
        raise _cannot_write(path, f"the folder {shown_text(str(folder))} does not exist")
    if Path(path).is_dir():
        raise _cannot_write(path, "it is a folder")
    if not os.access(path if Path(path).exists() else folder, os.W_OK):
        raise _cannot_write(path, "no permission")


class VideoFile:
    """Takes packets of one encoder, the first a key frame, which is at time 0 here.

    Raises OutputError when the file cannot be opened, written or closed; what is in it stays.
    """

    def __init__(self, path: str, template: VideoStream) -> None:
        """`template` has the parameters of the packets. The header goes to the disk now."""
        self.path = path
        self._origin_ticks: int | None = None
        options = {"flush_packets": "1", **_CONTAINER_OPTIONS[Path(path).suffix.lower()]}
        try:
            # "file:" before it, or FFmpeg would take what a name has before a colon for a protocol.
            self._container: OutputContainer | None = av.open(f"file:{path}", "w", options=options)
            self._stream = self._container.add_stream_from_template(template)
            self._container.start_encoding()
        except (OSError, av.error.FFmpegError) as error:
            raise failed(path, error) from error

    def add(self, packets: Iterable[Packet]) -> None:
        """They may be added to other files, too."""
        assert self._container
        try:
            for packet in packets:
                self._mux(self._container, packet)
        except (OSError, av.error.FFmpegError) as error:
            raise failed(self.path, error) from error

    def _mux(self, container: OutputContainer, packet: Packet) -> None:
        if self._origin_ticks is None:
            self._origin_ticks = packet.pts or 0
        own = copied(packet, self._origin_ticks)
        own.stream = self._stream
        container.mux(own)

    def close(self) -> None:
        """A second call does nothing."""
        container, self._container = self._container, None
        try:
            if container:
                container.close()
        except (OSError, av.error.FFmpegError) as error:
            raise failed(self.path, error) from error


def failed(path: str, error: Exception) -> OutputError:
    """What FFmpeg or the system says, in one line."""
    return _cannot_write(path, getattr(error, "strerror", None) or str(error))


def _cannot_write(path: str, why: str) -> OutputError:
    return OutputError(f"cannot write video to {shown_text(path)}: {why}")
