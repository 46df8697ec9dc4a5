"""Makes the pictures of the live page in this folder, of a real run: `make pictures`.

Six cameras that are the clip of the tests, whole, mirrored and cut; one of them is lost, one paused. Needs Debian's
chromium. Knows the page by what a user sees.
"""

import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import av
import cv2
import numpy as np
from numpy.typing import NDArray

from tests.kit import servers
from tests.kit.browser import PHONE, Visit, chromium, visiting
from tests.kit.harness import wait_until
from tests.kit.media import write_video
from tests.kit.places import CLIP, ROOT
from tests.kit.served import Page, served
from tests.kit.servers import RtspServer

DOCS = ROOT / "docs"
SETTINGS = ("--max-rate", "4", "--precision", "fp32")
# Long enough for the charts to have something to show.
SECONDS_LARGE = 45
# As in zones.yaml.
LAYOUT = {
    "zones": {"path": {"polygon": [[0.0, 0.34], [0.3, 0.36], [0.62, 0.30], [0.70, 0.42], [0.45, 0.60], [0.0, 0.46]]}},
    "lines": {"gate": {"points": [[0.46, 0.62], [0.42, 0.28]]}},
}
Image = NDArray[np.uint8]


def _cut(left: int, top: int, width: int, height: int) -> Callable[[Image], Image]:
    """That part of 768×576, as large as before."""
    return lambda picture: cv2.resize(picture[top : top + height, left : left + width], (768, 576)).astype(np.uint8)


CAMERAS: dict[str, Callable[[Image], Image]] = {
    "gate": lambda picture: picture,
    "drive": lambda picture: np.ascontiguousarray(picture[:, ::-1]),
    "path": _cut(180, 90, 400, 300),
    "car park": _cut(368, 40, 400, 300),
    "lawn": _cut(20, 120, 560, 420),
    "yard": lambda picture: np.ascontiguousarray(_cut(128, 100, 480, 360)(picture)[:, ::-1]),
}


def _write(path: Path, change: Callable[[Image], Image]) -> Path:
    with av.open(str(CLIP)) as clip:
        pictures = [change(frame.to_ndarray(format="rgb24")) for frame in clip.decode(video=0)]
    return write_video(path, pictures, options={"g": "10", "bf": "0", "preset": "fast"})


@contextmanager
def _run() -> Iterator[tuple[Page, dict[str, RtspServer]]]:
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        cameras = {}
        for name, change in CAMERAS.items():
            options = {"file": _write(folder / f"{name}.mp4", change), "loop": True}
            cameras[name] = stack.enter_context(servers.running(sys.executable, "play_server.py", options))
        names = [word for name in cameras for word in ("--name", name)]
        page = stack.enter_context(served(*(camera.url for camera in cameras.values()), *names, settings=SETTINGS))
        wait_until(lambda: all(each["delivered"] > 20 for each in page.view()["sources"]), what="frames of all")
        yield page, cameras


def _shoot(place: Any, name: str) -> None:
    """Of a page, or of what a locator finds on it."""
    path = DOCS / name
    place.screenshot(path=path, type="jpeg", quality=82)
    print(f"{path.relative_to(ROOT)}: {path.stat().st_size // 1000} kB")


def _wait_for_all(visit: Visit) -> None:
    for picture in visit.page.locator(".tile .picture").all():
        visit.wait_for_picture(picture)


def _large(browser: Any, page: Page) -> None:
    with visiting(browser, (1440, 1000), scheme="light") as visit:
        visit.open(page.url, "#/gate")
        visit.wait_for_picture(visit.page.locator(".large .picture"))
        visit.page.wait_for_timeout(SECONDS_LARGE * 1000)
        _shoot(visit.page, "page-source.jpg")


def _zones(browser: Any, page: Page) -> None:
    """With the heat map of a class."""
    page.say({"type": "tune", "source_id": "gate", **LAYOUT})
    with visiting(browser, (1440, 1000)) as visit:
        visit.open(page.url, "#/gate")
        visit.wait_for_picture(visit.page.locator(".large .picture"))
        visit.page.get_by_label("Heat map").select_option("person")
        visit.page.wait_for_timeout(15_000)
        _shoot(visit.page.locator(".source .large"), "page-zones.jpg")


def _phone(browser: Any, page: Page) -> None:
    with visiting(browser, PHONE, scheme="dark", device_pixels=2, is_phone=True) as visit:
        visit.open(page.url, "#/gate")
        visit.wait_for_picture(visit.page.locator(".large .picture"))
        visit.page.wait_for_timeout(20_000)
        _shoot(visit.page, "page-phone.jpg")


def _wall(browser: Any, page: Page, cameras: dict[str, RtspServer]) -> None:
    with visiting(browser, (1440, 900)) as visit:
        visit.open(page.url)
        _wait_for_all(visit)
        cameras["car park"].kill()
        page.say({"type": "hold", "source_id": "yard", "paused": True})
        wait_until(lambda: {"lost", "paused"} <= {each["state"] for each in page.view()["sources"]}, what="the states")
        visit.page.wait_for_timeout(15_000)
        _shoot(visit.page, "page.jpg")


def main() -> None:
    with chromium() as browser, _run() as (page, cameras):
        _large(browser, page)
        _zones(browser, page)
        _phone(browser, page)
        _wall(browser, page, cameras)


if __name__ == "__main__":
    main()
