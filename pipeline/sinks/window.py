"""A window on this machine's desktop. Knows no stage and draws nothing itself.

In a process that shows a window `cv2` must be imported before `av`: both bring a libxcb of their own, and the first
window hangs for ever if PyAV's came first (PyAV issues 978 and 1050). Importing `pipeline.sinks` before `av` does it.
"""

import os
import sys

from pipeline.errors import StageError, UsageError
from pipeline.flow.results import FrameResult
from pipeline.sinks import Image, Sink, Target

_ESCAPE = 27
_STOP_KEYS = frozenset({_ESCAPE, ord("q"), ord("Q")})


class StopRequested(Exception):
    """The person at the window wants no more: q, Esc, or the window was closed."""


def open_sink(target: Target) -> Sink:
    return WindowSink()


def check_screen() -> None:
    """Raises as `WindowSink` does."""
    # Before any call into OpenCV's windows: without a display they abort the whole process.
    if not (os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY")):
        raise UsageError("no window can be shown: neither DISPLAY nor WAYLAND_DISPLAY is set; leave --show out")
    import cv2

    if not _has_windows(cv2.getBuildInformation()):
        raise UsageError(
            "no window can be shown: this OpenCV was built without windows; run "
            "`pip uninstall opencv-python-headless && pip install 'centerstream[desktop]'`"
        )
    loaded = list(sys.modules)  # in the order of import
    if "av" in loaded and loaded.index("av") < loaded.index("cv2"):
        raise StageError("no window can be shown: av was imported before cv2; import pipeline.sinks first")


class WindowSink(Sink):
    """Shows the pictures of each source in a window of its own, as fast as they come.

    Raises UsageError where there is no desktop, or OpenCV was built without windows; StageError if `av` was imported
    before `cv2`.
    """

    def __init__(self) -> None:
        check_screen()
        import cv2

        self._cv2 = cv2
        self._titles: set[str] = set()

    def write(self, frame: FrameResult, image_bgr: Image | None) -> None:
        """Show one picture. Raises StopRequested."""
        if image_bgr is not None:
            self._update(frame.source_id, image_bgr)

    def still(self, source_id: str, pts_seconds: float, image_bgr: Image) -> None:
        self._update(source_id, image_bgr)

    def _update(self, source_id: str, image_bgr: Image) -> None:
        title = f"CenterStream {source_id}"
        if title in self._titles and self._is_closed(title):
            raise StopRequested(f"the window {title} was closed")
        self._show(title, image_bgr)
        if self._cv2.pollKey() & 0xFF in _STOP_KEYS:
            raise StopRequested(f"stopped at the window {title}")

    def close(self) -> None:
        for title in self._titles:
            if not self._is_closed(title):
                self._cv2.destroyWindow(title)
        self._titles.clear()

    def _show(self, title: str, image_bgr: Image) -> None:
        if title not in self._titles:
            flags = self._cv2.WINDOW_NORMAL | self._cv2.WINDOW_KEEPRATIO | self._cv2.WINDOW_GUI_NORMAL
            self._cv2.namedWindow(title, flags)
            self._cv2.resizeWindow(title, image_bgr.shape[1], image_bgr.shape[0])
            self._titles.add(title)
        self._cv2.imshow(title, image_bgr)

    def _is_closed(self, title: str) -> bool:
        try:
            return self._cv2.getWindowProperty(title, self._cv2.WND_PROP_VISIBLE) < 1
        except self._cv2.error:  # Qt's answer once the last window is gone
            return True


def _has_windows(build_information: str) -> bool:
    """Whether OpenCV's build summary names a GUI: its line `GUI:` reads NONE in the headless build."""
    _, found, after = build_information.partition("GUI:")
    return bool(found) and after.split("\n", 1)[0].strip().upper() != "NONE"
