"""A real browser that looks at the live page: Debian's chromium, driven by Playwright. What it complains of is kept.

Knows the page by what a user sees and by what travels, and none of its scripts.
"""

import base64
import gzip
import importlib.util
import json
import os
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import av
import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from tests.kit.places import DATA

CHROMIUM = "/usr/bin/chromium"
MISSING = "install: apt-get install chromium, and Python's package playwright"
# axe-core 4.14.1 as it comes from npm, MPL 2.0; see NOTICE.
AXE = DATA / "axe.min.js.gz"
DESKTOP, PHONE = (1200, 800), (390, 844)
WAIT_MS = 60_000

# What breaks the page's rules is told here as well as on the console.
VIOLATIONS = """
window.violations = [];
document.addEventListener("securitypolicyviolation", ({ violatedDirective, blockedURI, sourceFile }) =>
  window.violations.push(`${violatedDirective}: ${blockedURI} ${sourceFile}`));
"""
READ_CANVAS = """(canvas) => {
  const { width, height } = canvas;
  const { data } = canvas.getContext("2d").getImageData(0, 0, width, height);
  let text = "";
  for (let i = 0; i < data.length; i += 32768) text += String.fromCharCode(...data.subarray(i, i + 32768));
  return { width, height, rgba: btoa(text) };
}"""


def require_browser() -> None:
    """Skips where there is none, unless CENTERSTREAM_REQUIRE_BROWSER=1."""
    found = importlib.util.find_spec("playwright") is not None and Path(CHROMIUM).exists()
    if not found and os.environ.get("CENTERSTREAM_REQUIRE_BROWSER") == "1":
        pytest.fail(MISSING)
    if not found:
        pytest.skip(MISSING)


@contextmanager
def chromium() -> Iterator[Any]:
    """A `playwright` Browser."""
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield browser
        browser.close()


@dataclass
class Visit:
    """One who looks: `page` is Playwright's, `frames` the lines of all pictures that came, by source and seq, each with
    its JPEG, `heat` those of heat maps, with their bytes; `packets` the camera's own that came, each with its head and
    data, and `results` the lines for them, each with when it was captured; `looked` what the page asked to see,
    `packets_looked` of which sources the packets; `complaints` what the browser did not like."""

    page: Any
    frames: dict[tuple[str, int], tuple[dict, bytes]] = field(default_factory=dict)
    heat: dict[tuple[str, int], tuple[dict, bytes]] = field(default_factory=dict)
    packets: dict[str, list[tuple[dict, bytes]]] = field(default_factory=dict)
    results: dict[tuple[str, int], tuple[dict, int]] = field(default_factory=dict)
    looked: list[dict[str, str | int]] = field(default_factory=list)
    packets_looked: list[list[str]] = field(default_factory=list)
    complaints: list[str] = field(default_factory=list)

    def hear_socket(self, socket: Any) -> None:
        socket.on("framereceived", self._received)
        socket.on("framesent", self._sent)

    def _received(self, payload: str | bytes) -> None:
        if isinstance(payload, bytes):
            (length,) = struct.unpack_from(">I", payload)
            head, data = json.loads(payload[4 : 4 + length]), payload[4 + length :]
            if head["kind"] == "packet":
                self.packets.setdefault(head["source"], []).append((head["packet"], data))
            else:
                came = self.heat if head["kind"] == "heat" else self.frames
                came[head["source"], head["seq"]] = head, data
        elif payload.startswith('{"type":"result"'):
            word = json.loads(payload)
            self.results[word["frame"]["source"], word["frame"]["seq"]] = word["frame"], word["captured"]

    def _sent(self, payload: str | bytes) -> None:
        word = json.loads(payload)
        if word["type"] == "look":
            self.looked.append(word["pictures"])
            self.packets_looked.append(word["packets"])

    def open(self, url: str, place: str = "#/") -> None:
        self.page.goto(f"{url}/{place}")

    def tile(self, source_id: str) -> Any:
        return self.page.locator(".tile").filter(has=self.page.get_by_role("link", name=source_id, exact=True))

    def line(self, source_id: str, seq: int) -> dict:
        """Of a frame, whichever way its picture came."""
        return (self.frames.get((source_id, seq)) or self.results[source_id, seq])[0]

    def wait_for_picture(self, picture: Any, after: int = -1) -> int:
        """The seq that is on the screen, once there is one above `after`."""
        handle = picture.element_handle()
        condition = "([node, after]) => Number(node.dataset.seq ?? -1) > after"
        self.page.wait_for_function(condition, arg=[handle, after])
        handle.dispose()  # or the browser keeps what is shown for as long as the page is open
        return int(picture.get_attribute("data-seq"))

    def wait_for_path(self, picture: Any, path: str) -> None:
        """Until it comes so: "jpeg" or "webcodecs"."""
        picture.and_(self.page.locator(f"[data-path={path}]")).wait_for()

    def drawn(self, picture: Any) -> tuple[int, NDArray[np.uint8], NDArray[np.uint8]]:
        """At one moment: the seq on the screen, its canvas of pixels and the one of boxes above, (H, W, 4), RGBA."""
        script = f"""(node) => {{
            const read = {READ_CANVAS};
            return [Number(node.dataset.seq), ...[...node.querySelectorAll("canvas:not(.heat)")].map(read)];
        }}"""
        seq, pixels, boxes = picture.evaluate(script)
        return seq, _canvas(pixels), _canvas(boxes)

    def place(self, picture: Any) -> tuple[float, float, float, float]:
        """Where its canvas of pixels is shown: x, y, width and height in device pixels, from its corner."""
        return tuple(
            picture.evaluate("""(node) => {
                const [at, lies] = [node, node.querySelector(".pixels")].map((each) => each.getBoundingClientRect());
                const place = [lies.x - at.x, lies.y - at.y, lies.width, lies.height];
                return place.map((length) => length * window.devicePixelRatio);
            }""")
        )

    def frame(self, source_id: str, seq: int) -> tuple[dict, NDArray[np.uint8]]:
        """The line of a frame that came, and its picture (H, W, 3), BGR."""
        line, jpeg = self.frames[source_id, seq]
        picture = cv2.imdecode(np.frombuffer(jpeg, np.uint8), cv2.IMREAD_COLOR)
        assert picture is not None
        return line, picture.astype(np.uint8, copy=False)

    def decoded(self, source_id: str, seq: int) -> tuple[dict, NDArray[np.uint8]]:
        """The same of the packets that came: the picture as another decoder makes it of them."""
        line, captured = self.results[source_id, seq]
        packets = [(head, data) for head, data in self.packets[source_id] if head["captured"] <= captured]
        assert packets[-1][0]["captured"] == captured
        first = max(at for at, (head, _) in enumerate(packets) if head["is_key"])
        decoder = av.CodecContext.create("h264", "r")
        frames = [frame for _, data in packets[first:] for frame in decoder.decode(av.Packet(data))]
        return line, [*frames, *decoder.decode(None)][-1].to_ndarray(format="bgr24")

    def axe(self) -> list[str]:
        """What axe-core finds serious or critical."""
        self.page.evaluate(gzip.decompress(AXE.read_bytes()).decode())
        found = self.page.evaluate("() => axe.run(document, { resultTypes: ['violations'] })")
        assert found["passes"], "it looked at nothing"
        return [
            f"{each['id']}: {each['help']}: {[node['target'] for node in each['nodes']]}"
            for each in found["violations"]
            if each["impact"] in ("serious", "critical")
        ]


def _canvas(read: dict) -> NDArray[np.uint8]:
    flat = np.frombuffer(base64.b64decode(read["rgba"]), np.uint8)
    return flat.reshape(read["height"], read["width"], 4)


@contextmanager
def visiting(
    browser: Any, size: tuple[int, int] = DESKTOP, scheme: str = "dark", device_pixels: int = 1, is_phone: bool = False
) -> Iterator[Visit]:
    """Whoever looks has a profile of its own. At the end the browser must not have complained."""
    width, height = size
    context = browser.new_context(
        viewport={"width": width, "height": height},
        color_scheme=scheme,
        device_scale_factor=device_pixels,
        is_mobile=is_phone,
        has_touch=is_phone,
    )
    context.add_init_script(VIOLATIONS)
    page = context.new_page()
    page.set_default_timeout(WAIT_MS)
    visit = Visit(page)
    page.on("websocket", visit.hear_socket)
    page.on("pageerror", lambda error: visit.complaints.append(f"error: {error}"))
    page.on("console", lambda said: said.type == "error" and visit.complaints.append(said.text))
    try:
        yield visit
        assert page.evaluate("window.violations") == []
        assert not visit.complaints, visit.complaints
    finally:
        context.close()
