"""The live page in a real browser, of a real run: what it shows is what was sent, what it is told to do is done, and
what is lost looks lost."""

import json
import os
import re
import signal
import sys
from collections.abc import Callable, Iterator
from typing import Any

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from pipeline import overlay
from pipeline.serve.pictures import PACKET_CREDITS
from pipeline.serve.server import STATIC
from tests.kit import servers
from tests.kit.browser import DESKTOP, PHONE, Visit, visiting
from tests.kit.harness import QUICK_ENGINE, wait_until, worker_pids
from tests.kit.places import CLIP
from tests.kit.served import Page, served
from tests.kit.servers import RtspServer

PATTERN = "lavfi:testsrc2=size=320x180:rate=5"
# Enough to find people, and little enough for two cores.
SETTINGS = ("--engine", QUICK_ENGINE, "--input", "384x288", "--max-rate", "4")
# As where a browser has none, or is asked from elsewhere without TLS.
NO_WEBCODECS = "delete window.VideoDecoder;"
ONLY_BOXES = """
localStorage.setItem("options", '{"boxes":true,"labels":false,"scores":false,"ids":false,"trails":false}');
"""


@pytest.fixture(scope="module")
def page(browser: Any, camera: RtspServer) -> Iterator[Page]:
    with served(camera.url, PATTERN, "--name", "gate", "--name", "pattern", settings=SETTINGS) as page:
        wait_until(lambda: all(each["delivered"] > 5 for each in page.view()["sources"]), what="frames")
        yield page


@pytest.fixture
def visit(browser: Any, page: Page) -> Iterator[Visit]:
    """On the side with all sources, at a desk, in the dark."""
    with visiting(browser) as visit:
        visit.open(page.url)
        yield visit


def picture_of(visit: Visit, source_id: str) -> Any:
    return visit.tile(source_id).locator(".picture")


def wait_for_state(visit: Visit, source_id: str, state: str) -> None:
    visit.tile(source_id).and_(visit.page.locator(f"[data-state={state}]")).wait_for()


def forgive(visit: Visit, pattern: str) -> None:
    """What is refused, or cannot be reached, is also a line on the browser's console."""
    visit.page.wait_for_timeout(20)  # for what is still on its way from there
    visit.complaints = [line for line in visit.complaints if not re.search(pattern, line)]


# -- what it shows


def test_pictures_move_for_each_who_looks(browser: Any, page: Page, visit: Visit) -> None:
    with visiting(browser) as other:
        other.open(page.url)
        for each in (visit, other):
            picture = picture_of(each, "gate")
            each.wait_for_picture(picture)
            for _ in range(3):  # more than may be on their way unseen
                seq, before, _ = each.drawn(picture)
                each.wait_for_picture(picture, after=seq)
                shown, after, _ = each.drawn(picture)
                assert shown > seq and before.any() and (before != after).any()
        assert "centerstream_viewers 2.0" in page.get("/metrics").text
    said = re.compile(r"live\s.*\d\.\d fps\s.*\d (ms|s) old\s.*\d+ objects?", re.DOTALL)
    wait_until(lambda: said.search(visit.tile("gate").inner_text()), what="rate, age and objects")


@pytest.mark.parametrize(
    ("place", "size", "device_pixels", "path"),
    [
        ("#/", DESKTOP, 1, "jpeg"),
        ("#/", PHONE, 3, "jpeg"),
        ("#/gate", DESKTOP, 1, "jpeg"),
        ("#/gate", (900, 600), 2, "jpeg"),
        ("#/gate", DESKTOP, 1, "plain"),
        ("#/gate", DESKTOP, 1, "webcodecs"),
        ("#/gate", (900, 600), 2, "webcodecs"),
    ],
    ids=["tile", "tile-phone", "large", "large-fine", "large-plain", "large-packets", "large-fine-packets"],
)
def test_boxes_are_those_of_the_picture(
    browser: Any, page: Page, place: str, size: tuple[int, int], device_pixels: int, path: str
) -> None:
    with visiting(browser, size, device_pixels=device_pixels) as visit:
        visit.page.add_init_script(ONLY_BOXES)
        if path == "plain":  # as where the page does not come from this machine, and not over TLS
            visit.page.add_init_script("delete window.ImageDecoder;")
            path = "jpeg"
        if path == "jpeg":
            visit.page.add_init_script(NO_WEBCODECS)
        visit.open(page.url, place)
        picture = picture_of(visit, "gate") if place == "#/" else visit.page.locator(".large .picture")
        visit.wait_for_path(picture, path)
        seq = visit.wait_for_picture(picture)
        while True:  # until there is somebody to be seen, and none is predicted (dashed); in the clip that is soon
            seq, pixels, boxes = visit.drawn(picture)
            line, sent = visit.frame("gate", seq) if path == "jpeg" else visit.decoded("gate", seq)
            objects = line["objects"]
            if any(each["track_id"] is not None for each in objects) and not any(map(is_predicted, objects)):
                break
            visit.wait_for_picture(picture, after=seq)
        assert (line["width"], line["height"]) == (768, 576)
        place_xywh = fitted(line["width"], line["height"], boxes.shape[1], boxes.shape[0])
        assert_only_boxes(boxes, expected_boxes(line, place_xywh, boxes.shape, device_pixels))
        assert visit.place(picture) == pytest.approx(place_xywh, abs=0.1)
        assert_is_picture(pixels, sent)
        assert min(768, 0.95 * place_xywh[2]) <= sent.shape[1] <= 768


def is_predicted(found: dict) -> bool:
    return bool(found.get("predicted"))


def fitted(width: int, height: int, canvas_width: int, canvas_height: int) -> tuple[int, int, int, int]:
    """The rule of `object-fit: contain`, in whole device pixels."""
    scale = min(canvas_width / width, canvas_height / height)
    w, h = rounded(width * scale), rounded(height * scale)
    return (canvas_width - w) // 2, (canvas_height - h) // 2, w, h


def rounded(value: float) -> int:
    """As JavaScript rounds."""
    return int(np.floor(value + 0.5))


def expected_boxes(
    line: dict, place: tuple[int, int, int, int], shape: tuple[int, ...], device_pixels: int
) -> NDArray[np.int16]:
    """(H, W, 3): the colour of each outline, -1 where nothing is drawn, -2 where a dark edge may be."""
    x, y, w, h = place
    thick = rounded((2 if w / device_pixels > 500 else 1.5) * device_pixels)
    drawn = np.full((*shape[:2], 3), -1, np.int16)
    for each in reversed(line["objects"]):  # the best lies above
        sides = zip(each["box_xyxy"], (x, y, x, y), (w, h, w, h), (line["width"], line["height"]) * 2, strict=True)
        left, top, right, bottom = (rounded(start + side * extent / full) for side, start, extent, full in sides)
        tracked = each["track_id"] is not None
        colour = overlay.track_colour(each["track_id"])[::-1] if tracked else overlay.NEUTRAL
        line_width = thick if tracked else max(1, thick // 2)
        inner = drawn[top:bottom, left:right].copy()
        drawn[max(0, top - 1) : bottom + 1, max(0, left - 1) : right + 1] = np.where(
            ring(drawn[max(0, top - 1) : bottom + 1, max(0, left - 1) : right + 1].shape[:2], 1)[..., None],
            -2,
            drawn[max(0, top - 1) : bottom + 1, max(0, left - 1) : right + 1],
        )
        drawn[top:bottom, left:right] = np.where(ring(inner.shape[:2], line_width)[..., None], colour, inner)
    outside = np.ones(shape[:2], bool)
    outside[y : y + h, x : x + w] = False
    drawn[outside] = -1
    return drawn


def ring(shape: tuple[int, ...], width: int) -> NDArray[np.bool_]:
    """The outermost pixels of a rectangle."""
    mask = np.ones(shape, bool)
    mask[width:-width, width:-width] = False
    return mask


def assert_only_boxes(boxes_rgba: NDArray[np.uint8], expected: NDArray[np.int16]) -> None:
    """Each pixel of each outline has its colour, and no other pixel is touched."""
    outlines = expected[..., 0] >= 0
    assert outlines.sum() > 50
    assert (boxes_rgba[outlines][:, 3] == 255).all()
    np.testing.assert_array_equal(boxes_rgba[outlines][:, :3], expected[outlines])
    assert not boxes_rgba[expected[..., 0] == -1].any()


def assert_is_picture(pixels_rgba: NDArray[np.uint8], sent_bgr: NDArray[np.uint8]) -> None:
    """The picture is the one that was sent, whole, and is nowhere so much like it as in its place."""
    assert pixels_rgba.shape[:2] == sent_bgr.shape[:2]
    shown, wanted = pixels_rgba[..., :3].astype(np.int16), sent_bgr[..., ::-1].astype(np.int16)

    def difference(dx: int, dy: int) -> float:
        return float(np.abs(np.roll(shown, (dy, dx), (0, 1)) - wanted)[8:-8, 8:-8].mean())

    there = difference(0, 0)
    assert there < 3
    assert all(difference(dx, dy) > there for dx, dy in ((-1, 0), (1, 0), (0, -1), (0, 1)))


# -- the camera's own packets, decoded in the browser


def large(visit: Visit, page: Page, source_id: str) -> Any:
    """The picture of the large view, once it moves."""
    visit.open(page.url, f"#/{source_id}")
    picture = visit.page.locator(".large .picture")
    visit.wait_for_picture(picture, after=visit.wait_for_picture(picture))
    return picture


def test_where_packets_are_shown_no_pictures_are_made(page: Page, visit: Visit) -> None:
    picture = large(visit, page, "gate")
    visit.wait_for_path(picture, "webcodecs")
    wait_until(lambda: settled(visit)[-1] == {} and visit.packets_looked[-1] == ["gate"], what="a page without JPEGs")
    pictures = len(visit.frames)
    seq = visit.wait_for_picture(picture)
    for _ in range(5):
        seq = visit.wait_for_picture(picture, after=seq)
    assert len(visit.frames) <= pictures + 2  # that were on their way
    assert visit.results["gate", seq][0]["status"] == "ok"
    visit.page.locator(".facts").filter(has_text="to your screen").wait_for()
    visit.page.keyboard.press("Escape")
    wait_until(lambda: settled(visit)[-1].keys() == {"gate", "pattern"} and visit.packets_looked[-1] == [])
    count = len(visit.packets["gate"])
    visit.wait_for_picture(picture_of(visit, "gate"), after=seq)
    visit.wait_for_picture(picture_of(visit, "gate"), after=seq + 5)
    assert len(visit.packets["gate"]) <= count + 2


def test_what_is_no_h264_of_a_camera_comes_as_pictures(page: Page, visit: Visit) -> None:
    picture = large(visit, page, "pattern")
    assert picture.get_attribute("data-path") == "jpeg"
    wait_until(lambda: settled(visit)[-1] == as_wide(visit, picture, "pattern"), what="pictures as wide as the view")
    assert visit.packets_looked[-1] == ["pattern"]
    assert not visit.packets.get("pattern")


def test_packets_that_do_not_decode_give_way_to_pictures(page: Page, visit: Visit) -> None:
    visit.page.add_init_script("""
        const Chunk = EncodedVideoChunk;
        window.EncodedVideoChunk = function ({ data, ...rest }) {
          return new Chunk({ ...rest, data: window.spoils ? new Uint8Array(data.length) : data });
        };
    """)
    visit.page.reload()
    picture = large(visit, page, "gate")
    visit.wait_for_path(picture, "webcodecs")
    visit.page.evaluate("window.spoils = true")
    visit.wait_for_path(picture, "jpeg")
    visit.wait_for_picture(picture, after=visit.wait_for_picture(picture))
    assert (visit.looked[-1].keys(), visit.packets_looked[-1]) == ({"gate"}, [])


def test_one_who_takes_no_packets_gets_pictures_and_keeps_nobody_waiting(
    browser: Any, page: Page, visit: Visit
) -> None:
    with visiting(browser) as other:
        other.page.add_init_script("""
            const send = WebSocket.prototype.send;
            WebSocket.prototype.send = function (text) {
              if (!text.includes('"taken"')) send.call(this, text);
            };
        """)
        stalled, picture = large(other, page, "gate"), large(visit, page, "gate")
        # Not for packets on the screen: that is over soon, and may be before one looks.
        wait_until(lambda: "gate" in settled(other)[-1] and len(packets_of(other)) == PACKET_CREDITS, 60)
        other.wait_for_path(stalled, "jpeg")
        other.wait_for_picture(stalled, after=other.wait_for_picture(stalled))
        assert len(other.packets["gate"]) == PACKET_CREDITS
        visit.wait_for_path(picture, "webcodecs")
        for _ in range(3):
            visit.wait_for_picture(picture, after=visit.wait_for_picture(picture))
        assert len(visit.packets["gate"]) > PACKET_CREDITS


def packets_of(visit: Visit) -> list[tuple[dict, bytes]]:
    """Of the gate; before any came the first pictures may have."""
    return visit.packets.get("gate", [])


@pytest.mark.parametrize("stage", ["serve", "deliver", "decode:gate"])
def test_packets_come_again_after_a_process_was_lost(page: Page, visit: Visit, stage: str) -> None:
    picture = large(visit, page, "gate")
    visit.wait_for_path(picture, "webcodecs")
    before = worker_pids(page.run.process.pid)[stage]
    os.kill(before, signal.SIGKILL)
    wait_until(lambda: worker_pids(page.run.process.pid).get(stage) not in (None, before), what="another process")
    captured = visit.packets["gate"][-1][0]["captured"]
    wait_until(lambda: visit.page.wait_for_timeout(20) or visit.packets["gate"][-1][0]["captured"] > captured + 3e6)
    visit.wait_for_path(picture, "webcodecs")
    visit.wait_for_picture(picture, after=visit.wait_for_picture(picture))
    wait_until(lambda: settled(visit)[-1] == {} and visit.packets_looked[-1] == ["gate"], what="a page without JPEGs")
    forgive(visit, "ERR_CONNECTION|ERR_EMPTY|WebSocket connection")


def test_only_what_is_on_the_screen_is_looked_at(browser: Any, page: Page) -> None:
    with visiting(browser, (390, 330), is_phone=True) as visit:
        visit.open(page.url)
        visit.wait_for_picture(picture_of(visit, "gate"))
        wait_until(lambda: settled(visit)[-1] == {"gate": rounded(visit.place(picture_of(visit, "gate"))[2])})
        visit.tile("pattern").scroll_into_view_if_needed()
        visit.wait_for_picture(picture_of(visit, "pattern"))
        assert "pattern" in visit.looked[-1]
        visit.page.evaluate("location.hash = '#/pattern'")
        visit.wait_for_picture(visit.page.locator(".large .picture"))
        assert visit.looked[-1].keys() == {"pattern"}
        # No window of a headless browser is ever hidden; it says so here instead.
        hide = "Object.defineProperty(document, 'hidden', { value: true, configurable: true })"
        visit.page.evaluate(f"{hide}; document.dispatchEvent(new Event('visibilitychange'))")
        wait_until(lambda: settled(visit)[-1] == {}, what="a page that looks at nothing")


def settled(visit: Visit) -> list[dict[str, str | int]]:
    """What was looked at, after the browser had time to tell."""
    visit.page.wait_for_timeout(20)
    return visit.looked


def as_wide(visit: Visit, picture: Any, source_id: str) -> dict[str, int]:
    """To look at a source at the size that it has on the screen."""
    return {source_id: round(visit.place(picture)[2])}


def test_pictures_come_as_wide_as_they_are_shown(browser: Any, page: Page) -> None:
    with visiting(browser, (1200, 800)) as visit:
        visit.page.add_init_script(NO_WEBCODECS)
        picture = large(visit, page, "gate")
        for size, width in (((600, 800), 640), ((330, 600), 320), ((2000, 700), 640), ((2000, 1200), 768)):
            visit.page.set_viewport_size({"width": size[0], "height": size[1]})
            wait_until(lambda: settled(visit)[-1] == as_wide(visit, picture, "gate"), what="what is shown")
            seq = visit.wait_for_picture(picture, after=visit.drawn(picture)[0] + 5)
            assert visit.drawn(picture)[1].shape[1] == visit.frame("gate", seq)[1].shape[1] == width, size


def test_large_view_tells_the_figures_of_the_ledger(page: Page, visit: Visit) -> None:
    page.say({"type": "hold", "source_id": "pattern", "paused": True})
    try:
        wait_for_state(visit, "pattern", "paused")
        visit.open(page.url, "#/pattern")
        ledger = visit.page.locator(".ledger")
        wait_until(
            lambda: re.search(equation(page.source("pattern")), ledger.inner_text()), what="the last frame's fate"
        )
        source, drops = (
            page.source("pattern"),
            visit.page.get_by_role("table", name="Dropped frames by reason").inner_text(),
        )
    finally:
        page.say({"type": "hold", "source_id": "pattern", "paused": False})
    assert source
    assert all(drop["reason"] in drops for drop in source["drops"])
    stages = visit.page.get_by_role("table", name="Stages that its frames pass").inner_text()
    assert all(stage in stages for stage in ("decode", "gather", "infer:0", "postprocess", "track", "deliver"))
    assert visit.page.get_by_role("img", name="Objects in a frame, by class").is_visible()
    assert "mobilenetv3" in visit.page.get_by_text("Network").locator("..").inner_text()


def equation(source: dict | None) -> str:
    """A pattern of what the ledger shows of a source."""
    assert source
    counts = [source[name] for name in ("captured", "delivered", "without_result", "dropped", "in_flight")]
    assert counts[0] == sum(counts[1:])
    text = "{:,} captured = {:,} delivered + {:,} without result + {:,} dropped + {:,} in flight".format(*counts)
    return r"\s*".join(map(re.escape, text.split()))


# -- what it is told


def test_a_source_comes_is_paused_and_goes(page: Page, visit: Visit) -> None:
    browser = visit.page
    browser.get_by_role("button", name="Add a source").first.click()
    nowhere = str(CLIP.with_name("nothing.mp4"))
    browser.get_by_label("Address").fill(nowhere)
    browser.get_by_label("Name").fill("street")
    browser.get_by_role("button", name="Add", exact=True).click()
    told = browser.locator("dialog .answer.bad")
    told.wait_for()
    said = page.say({"type": "add", "source": {"uri": nowhere}, "source_id": "street"})
    assert said.status == 400 and told.inner_text() == json.loads(said.text)["error"]
    browser.get_by_label("Address").fill(str(CLIP))
    browser.get_by_label("Play a file at its own speed").check()
    browser.get_by_role("button", name="Add", exact=True).click()
    visit.tile("street").wait_for()
    visit.tile("street").click()
    browser.get_by_role("button", name="Pause", exact=True).click()
    browser.locator(".source .badge[data-state=paused]").wait_for()
    # What a signal tells the page, `/view` tells a moment later.
    wait_until(lambda: (street := page.source("street")) and street["state"] == "paused", what="the pause in the view")
    browser.get_by_role("button", name="Resume").click()
    browser.get_by_role("button", name="Pause", exact=True).wait_for()
    browser.get_by_role("button", name="Remove…").click()
    browser.get_by_role("button", name="Keep it").click()
    assert page.source("street")
    browser.get_by_role("button", name="Remove…").click()
    browser.get_by_role("button", name="Remove", exact=True).click()
    visit.tile("gate").wait_for()
    visit.tile("street").wait_for(state="detached")
    wait_until(lambda: page.source("street") is None, what="a source that has gone")
    forgive(visit, "status of 400")


def test_a_source_is_retuned(page: Page, visit: Visit) -> None:
    visit.open(page.url, "#/pattern")
    browser = visit.page
    browser.get_by_label("Objects from this score on").fill("0.55")
    browser.get_by_label("Frames/s at most").fill("3")
    browser.get_by_label("Look at one frame in").fill("2")
    browser.get_by_text("Classes:", exact=False).click()
    browser.get_by_role("button", name="None").click()
    assert browser.get_by_role("button", name="Apply").is_disabled()
    for name in ("person", "dog"):
        browser.get_by_label("Find a class").fill(name)
        browser.get_by_role("checkbox", name=name, exact=True).check()
    browser.get_by_role("button", name="Apply").click()
    browser.get_by_text("pattern was changed").wait_for()
    wanted = {"score_threshold": 0.55, "max_rate": 3.0, "every": 2, "classes": ["person", "dog"]}
    wait_until(lambda: (source := page.source("pattern")) and source.items() >= wanted.items(), what="the new settings")
    assert browser.get_by_role("button", name="Apply").is_disabled()


def test_what_the_run_refuses_is_said_as_it_says_it(page: Page, visit: Visit) -> None:
    visit.open(page.url, "#/pattern")
    visit.page.get_by_label("Frames/s at most").fill("5000")
    visit.page.get_by_role("button", name="Apply").click()
    told = visit.page.locator(".tuning .answer.bad")
    told.wait_for()
    said = page.say({"type": "tune", "source_id": "pattern", "max_rate": 5000})
    assert said.status == 400 and told.inner_text() == json.loads(said.text)["error"]
    forgive(visit, "status of 400")


# -- by keys, by other means, in other sizes


def test_all_of_it_goes_by_keys(page: Page, visit: Visit) -> None:
    browser, keys = visit.page, visit.page.keyboard
    visit.wait_for_picture(picture_of(visit, "gate"))
    for _ in range(20):
        keys.press("Tab")
        if browser.evaluate("document.activeElement.matches('.tile .open')"):
            break
    assert focused(visit) == "gate"
    keys.press("ArrowRight")
    assert focused(visit) == "pattern"
    keys.press("ArrowLeft")
    outline = browser.evaluate("getComputedStyle(document.activeElement.closest('.tile')).outlineStyle")
    assert outline == "solid"
    keys.press("Enter")
    browser.get_by_role("heading", name="gate", level=1).wait_for()
    assert focused(visit) == "gate" and browser.title().startswith("gate")
    keys.press("ArrowRight")
    browser.get_by_role("heading", name="pattern", level=1).wait_for()
    boxes = browser.get_by_role("button", name="Boxes")
    assert boxes.get_attribute("aria-pressed") == "true"
    keys.press("b")
    assert boxes.get_attribute("aria-pressed") == "false"
    keys.press("b")
    keys.press("?")
    browser.get_by_role("dialog", name="Help and keys").wait_for()
    keys.press("Escape")
    browser.get_by_role("dialog").wait_for(state="detached")
    keys.press("Escape")
    visit.tile("pattern").wait_for()
    wait_until(lambda: focused(visit) == "pattern", what="the focus on the tile that was left")


def focused(visit: Visit) -> str:
    return visit.page.evaluate("document.activeElement.textContent")


@pytest.mark.parametrize("scheme", ["dark", "light"])
def test_who_sees_little_is_not_left_out(browser: Any, page: Page, scheme: str) -> None:
    with visiting(browser, scheme=scheme) as visit:
        visit.open(page.url)
        visit.wait_for_picture(picture_of(visit, "gate"))
        visit.page.get_by_text("The run", exact=True).click()
        assert visit.axe() == []
        visit.open(page.url, "#/gate")
        visit.wait_for_picture(visit.page.locator(".large .picture"))
        visit.page.get_by_text("Classes:", exact=False).click()
        assert visit.axe() == []
        visit.page.get_by_role("button", name="Add a source").click()
        assert visit.axe() == []
        ground = visit.page.evaluate("getComputedStyle(document.body).backgroundColor")
        light = min(map(int, re.findall(r"\d+", ground))) > 128
        assert light == (scheme == "light")
        visit.page.keyboard.press("Escape")
        visit.page.get_by_role("button", name="Dark or light").click()
        other = visit.page.evaluate("getComputedStyle(document.body).backgroundColor")
        assert other != ground
        visit.page.reload()
        assert visit.page.evaluate("getComputedStyle(document.body).backgroundColor") == other


def test_a_phone_needs_no_sideways_scrolling(browser: Any, page: Page) -> None:
    with visiting(browser, PHONE, device_pixels=3, is_phone=True) as visit:
        for place, picture in (("#/", ".tile .picture"), ("#/gate", ".large .picture")):
            visit.open(page.url, place)
            visit.wait_for_picture(visit.page.locator(picture).first)
            assert visit.page.evaluate("document.scrollingElement.scrollWidth") == PHONE[0]


def test_nothing_stays_of_a_view_that_was_left(page: Page, visit: Visit) -> None:
    cdp = visit.page.context.new_cdp_session(visit.page)

    def there_and_back() -> None:
        for source_id in ("gate", "pattern"):
            visit.page.evaluate("(name) => { location.hash = `#/${name}`; }", source_id)
            visit.wait_for_picture(visit.page.locator(".large .picture"))
            visit.page.keyboard.press("Escape")
            visit.tile(source_id).wait_for()

    def counts() -> tuple[int, int]:
        cdp.send("HeapProfiler.collectGarbage")
        counters = cdp.send("Memory.getDOMCounters")
        return counters["nodes"], counters["jsEventListeners"]

    there_and_back()
    nodes, listeners = counts()
    for _ in range(3):
        there_and_back()
    assert counts()[0] < nodes + 300 and counts()[1] < listeners + 10, (nodes, listeners, counts())


# -- when things break


def test_a_warning_moves_nothing(page: Page, visit: Visit) -> None:
    """Whoever is about to press something there does not press what was beside it."""
    sockets: list[Any] = []

    def keep(socket: Any) -> None:
        pass_on(socket)
        sockets.append(socket)

    visit.page.route_web_socket("**/live", keep)
    visit.page.reload()
    visit.wait_for_picture(picture_of(visit, "gate"))
    for place in ("#/gate", "#/"):
        visit.open(page.url, place)
        picture = visit.page.locator(".large .picture") if place == "#/gate" else picture_of(visit, "gate")
        visit.wait_for_picture(picture)
        before = picture.bounding_box()
        for warnings in (["the gate squeaks", "the door as well"], []):
            sockets[-1].send(json.dumps({"type": "view", **page.view(), "warnings": warnings}))
            summary = visit.page.get_by_text("2 warnings")
            summary.wait_for(state="visible" if warnings else "hidden")
            assert picture.bounding_box() == before


def test_zones_can_be_edited_as_soon_as_there_is_a_picture(page: Page, visit: Visit) -> None:
    """A view that was asked for before the source had started knows no sides of it."""

    def take_sides(word: dict) -> None:
        for source in word.get("sources", []):
            source |= {"width": 0, "height": 0}

    visit.page.route_web_socket("**/live", lambda socket: pass_on(socket, changes=take_sides))
    visit.page.reload()
    large(visit, page, "gate")
    visit.page.keyboard.press("e")
    visit.page.get_by_role("button", name="Draw a line").click()
    layer = visit.page.locator(".zone-layer")
    layer.click(position={"x": 200, "y": 200})
    visit.page.mouse.move(300, 300)
    assert re.fullmatch(r"([\d.]+,[\d.]+ ?){2}", layer.locator(".drawn").get_attribute("points"))


def pass_on(
    socket: Any,
    changes: Callable[[dict], None] = lambda word: None,
    hears: Callable[[dict], None] = lambda word: None,
) -> None:
    """Between a page and the run: what the run says reaches the page, each word as `changes` leaves it, and `hears`
    hears it after that."""

    def hear(message: str | bytes) -> None:
        if isinstance(message, bytes):
            socket.send(message)
            return
        word = json.loads(message)
        changes(word)
        socket.send(json.dumps(word))
        hears(word)

    run = socket.connect_to_server()
    run.on_message(hear)


WATCH = """(node) => {
  window.states = [];
  new MutationObserver(() => window.states.push(node.dataset.state)).observe(node, { attributeFilter: ["data-state"] });
}"""


def test_a_lost_source_looks_lost(page: Page, camera: RtspServer, visit: Visit) -> None:
    """Also where a view comes after the word that it is, and was asked for before."""
    live: list[dict] = []

    def tell_late(socket: Any) -> None:
        def hear(word: dict) -> None:
            if (
                word.get("type") == "view"
                and {each["source_id"]: each["state"] for each in word["sources"]}["gate"] == "live"
            ):
                live.append(word)
            elif word.get("kind") == "signal" and word["state"] == "lost":
                socket.send(json.dumps(live[-1]))

        pass_on(socket, hears=hear)

    visit.page.route_web_socket("**/live", tell_late)
    visit.page.reload()
    visit.wait_for_picture(picture_of(visit, "gate"))
    assert colourful(visit) > 12
    visit.tile("gate").evaluate(WATCH)
    camera.kill()
    wait_for_state(visit, "gate", "lost")
    banner = visit.tile("gate").locator(".banner")
    assert re.search(r"No signal since \d\d:\d\d:\d\d \(\d+ s\)", banner.inner_text())
    assert "objects: –" in visit.tile("gate").inner_text()
    assert colourful(visit) < 1
    wait_until(
        lambda: visit.page.wait_for_timeout(20) or page.source("gate")["state"] == "lost",
        what="a view that tells of it",
    )
    assert visit.page.evaluate("window.states") == ["lost"]
    assert not visit.tile("gate").locator(".boxes").is_visible()
    visit.page.get_by_role("status").filter(has_text="gate is reconnecting").wait_for(state="attached")
    assert visit.page.title().startswith("1 in trouble")
    visit.open(page.url, "#/gate")
    visit.page.locator(".large .banner").filter(has_text="No signal since").wait_for()
    options = {"file": CLIP, "port": camera.port, "loop": True}
    with servers.running(sys.executable, "play_server.py", options):
        visit.page.locator(".source .badge[data-state=live]").wait_for()
        outages = visit.page.get_by_role("table", name="Outages").inner_text()
        assert "reconnecting" in outages
        assert "reconnecting from" in visit.page.locator(".panel .timeline").get_attribute("aria-label")
        visit.wait_for_picture(visit.page.locator(".large .picture"))


def colourful(visit: Visit) -> float:
    """How far the tile's picture on the screen is from grey, in its upper third, where no banner is."""
    shot = np.frombuffer(visit.tile("gate").locator(".screen").screenshot(), np.uint8)
    picture = cv2.imdecode(shot, cv2.IMREAD_COLOR)
    assert picture is not None
    part = picture[10 : picture.shape[0] // 4].astype(np.int16)
    return float((part.max(axis=2) - part.min(axis=2)).mean())


def test_the_page_comes_back_by_itself(page: Page, visit: Visit) -> None:
    picture = picture_of(visit, "pattern")
    seq = visit.wait_for_picture(picture)
    os.kill(worker_pids(page.run.process.pid)["serve"], signal.SIGKILL)
    visit.page.get_by_text("No connection to the run since").wait_for()
    assert visit.page.evaluate("getComputedStyle(document.querySelector('.tile .boxes')).visibility") == "hidden"
    visit.page.get_by_text("No connection to the run since").wait_for(state="hidden")
    visit.wait_for_picture(picture, after=seq)
    assert visit.looked[-1].keys() >= {"pattern"}
    forgive(visit, "ERR_CONNECTION|ERR_EMPTY|WebSocket connection")


# -- what the files hold


def test_files_are_safe_and_say_what_they_are() -> None:
    files = sorted(STATIC.iterdir())
    texts = {path.name: path.read_text() for path in files}
    for name, text in texts.items():
        assert not re.search(r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|\beval\(|new Function", text), (
            name
        )
        hosts = set(re.findall(r"(?:https?:)?//([\w.-]+\.\w+)", text)) - {"www.w3.org", "192.0.2.7"}
        assert not hosts, (name, hosts)
        assert max(map(len, text.splitlines())) <= 120, name
        if name.endswith(".js"):
            assert text.startswith("// "), f"{name} does not say what it is"
    assert not re.search(r"<style|\sstyle=|<script(?![^>]*src=)|\son\w+=", texts["index.html"])


def test_colours_are_those_of_the_overlay() -> None:
    text = (STATIC / "boxes.js").read_text()
    palette = re.search(r"const PALETTE = \[(.*?)\];", text, re.DOTALL)
    assert palette
    colours = [tuple(map(int, each.split(","))) for each in re.findall(r"\[([\d, ]+)\]", palette[1])]
    assert colours == [overlay.track_colour(track_id)[::-1] for track_id in range(len(overlay._PALETTE))]
