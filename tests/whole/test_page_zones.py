"""Zones and lines drawn on the live page in a real browser: they count at once, in the run's own lines, and a run that
is started anew with the file that they were saved to has them."""

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.kit.browser import Visit, visiting
from tests.kit.harness import QUICK_ENGINE, wait_until
from tests.kit.served import Page, served
from tests.kit.servers import RtspServer

# Enough to find people, and little enough for two cores.
SETTINGS = ("--engine", QUICK_ENGINE, "--input", "384x288")
COMMENT = "  # the square"
# Of the clip's picture.
WIDTH, HEIGHT = 768, 576


@pytest.fixture
def config(tmp_path: Path, camera: RtspServer) -> Path:
    path = tmp_path / "run.yaml"
    path.write_text(f"sources:\n  gate:{COMMENT}\n    uri: {camera.url}\n    max_rate: 4\n")
    return path


class Editor:
    """The large view of `gate`, by a mouse that knows where the picture lies."""

    def __init__(self, visit: Visit, page: Page) -> None:
        self.visit, self.page, self.browser = visit, page, visit.page
        visit.open(page.url, "#/gate")
        visit.wait_for_picture(visit.page.locator(".large .picture"))

    def press(self, button: str) -> None:
        self.browser.get_by_role("button", name=button, exact=True).click()

    def at(self, x: float, y: float) -> tuple[float, float]:
        """Fractions of the picture as a place on the screen, once it lies still there."""
        picture = self.browser.locator(".large .picture")
        picture.scroll_into_view_if_needed()
        box = picture.bounding_box()
        scale = min(box["width"] / WIDTH, box["height"] / HEIGHT)
        left, top = (box["width"] - WIDTH * scale) / 2, (box["height"] - HEIGHT * scale) / 2
        return box["x"] + left + x * WIDTH * scale, box["y"] + top + y * HEIGHT * scale

    def click(self, *spots: tuple[float, float]) -> None:
        for spot in spots:
            self.browser.mouse.click(*self.at(*spot))
            self.browser.wait_for_timeout(30)

    def drag(self, start: tuple[float, float], end: tuple[float, float]) -> None:
        mouse = self.browser.mouse
        mouse.move(*self.at(*start))
        mouse.down()
        mouse.move(*self.at(*end), steps=4)
        mouse.up()

    def wait_for(self, kind: str, shapes: dict[str, list[tuple[float, float]]]) -> None:
        """Until the run has these, as near as a mouse can be."""
        key = "polygon" if kind == "zones" else "points"

        def is_so() -> bool:
            found = (self.page.source("gate") or {})[kind]
            return list(found) == list(shapes) and all(
                len(found[name][key]) == len(points) and np.allclose(found[name][key], points, atol=0.004)
                for name, points in shapes.items()
            )

        wait_until(is_so, 60, f"the {kind} {shapes}, not {(self.page.source('gate') or {})[kind]}")

    def events(self, **facts: str) -> list[dict]:
        events = [event for line in self.page.run.frames("gate") for event in line.get("events", [])]
        return [event for event in events if event.items() >= facts.items()]


SQUARE = [(0.05, 0.05), (0.95, 0.05), (0.95, 0.95), (0.05, 0.95)]
SMALLER = [(0.05, 0.05), (0.95, 0.05), (0.9, 0.9), (0.05, 0.95)]
DOOR = [(0.5, 0.95), (0.5, 0.05)]


def test_what_is_drawn_counts_at_once_and_is_saved(browser: Any, config: Path) -> None:
    with served("--config", config, "--watch", settings=SETTINGS) as page, visiting(browser) as visit:
        editor = Editor(visit, page)
        editor.press("Edit zones")
        editor.press("Draw a zone")
        editor.click(*SQUARE[:3])
        visit.page.mouse.dblclick(*editor.at(*SQUARE[3]))
        visit.page.keyboard.type("square")  # its name has the focus
        visit.page.keyboard.press("Tab")
        editor.press("Draw a line")
        editor.click(*DOOR)
        editor.wait_for("zones", {"square": SQUARE})
        editor.wait_for("lines", {"line 1": DOOR})
        wait_until(lambda: editor.events(event="entered", zone="square"), 60, "somebody in the square")
        wait_until(lambda: editor.events(event="crossed", line="line 1"), 60, "somebody across the line")
        visit.page.get_by_label("Name of the zone").focus()
        editor.drag(SQUARE[2], SMALLER[2])
        editor.wait_for("zones", {"square": SMALLER})
        assert_drawn(editor, [(0.5, 0.05), (0.05, 0.5), (0.5, 0.5)])
        visit.page.keyboard.press("Escape")
        visit.page.locator(".zone-layer").wait_for(state="detached")
        assert re.search(r"square\s*\d+ person", visit.page.locator(".zones").inner_text())
        assert visit.page.get_by_role("heading", name="gate", level=1).is_visible()
        editor.press("Save")
        visit.page.get_by_text(f"the zones and lines of gate were saved to {config}").wait_for()
        visit.page.keyboard.press("z")
        with pytest.raises(AssertionError):
            assert_drawn(editor, [(0.5, 0.05)])
    text = config.read_text()
    assert text.startswith(f"sources:\n  gate:{COMMENT}\n    uri: rtsp://") and "    max_rate: 4\n" in text
    with served("--config", config, settings=SETTINGS) as page, visiting(browser) as visit:
        editor = Editor(visit, page)
        editor.wait_for("zones", {"square": SMALLER})
        editor.wait_for("lines", {"line 1": DOOR})
        assert_drawn(editor, [(0.5, 0.05), (0.05, 0.5), (0.5, 0.5)])
        wait_until(lambda: editor.events(event="entered", zone="square"), 60, "somebody in the square")


def assert_drawn(editor: Editor, spots: list[tuple[float, float]]) -> None:
    """Something white lies there, above the picture."""
    picture = editor.browser.locator(".large .picture")
    editor.visit.wait_for_picture(picture, after=editor.visit.drawn(picture)[0])
    _, _, boxes = editor.visit.drawn(picture)
    height, width = boxes.shape[:2]
    scale = min(width / WIDTH, height / HEIGHT)
    left, top = (width - WIDTH * scale) / 2, (height - HEIGHT * scale) / 2
    for x, y in spots:
        column, row = round(left + x * WIDTH * scale), round(top + y * HEIGHT * scale)
        near = boxes[row - 3 : row + 4, column - 3 : column + 4].reshape(-1, 4)
        assert (near.min(axis=1) > 200).any(), (x, y, near)


def test_all_of_it_goes_by_keys_too(browser: Any, config: Path) -> None:
    with served("--config", config, settings=SETTINGS) as page, visiting(browser) as visit:
        editor, keys = Editor(visit, page), visit.page.keyboard
        keys.press("e")
        assert visit.axe() == []
        visit.page.get_by_role("button", name="Draw a line").focus()
        keys.press("Enter")
        keys.type("door")
        keys.press("Tab")
        editor.wait_for("lines", {"door": [(0.5, 0.65), (0.5, 0.35)]})
        visit.page.get_by_role("button", name=re.compile("^end 1 of")).focus()
        for _ in range(3):
            keys.press("ArrowLeft")
        keys.press("Shift+ArrowDown")
        editor.wait_for("lines", {"door": [(0.47, 0.651), (0.5, 0.35)]})
        assert visit.page.get_by_role("heading", name="gate", level=1).is_visible()
        visit.page.get_by_role("button", name="Draw a zone").focus()
        keys.press("Enter")
        box = [(0.35, 0.35), (0.65, 0.35), (0.65, 0.65), (0.35, 0.65)]
        editor.wait_for("zones", {"zone 1": box})
        assert visit.axe() == []
        visit.page.get_by_role("button", name=re.compile("^corner 2 of")).focus()
        keys.press("Delete")
        editor.wait_for("zones", {"zone 1": [box[0], *box[2:]]})
        visit.page.get_by_role("button", name="Delete line door").focus()
        keys.press("Enter")
        editor.wait_for("lines", {})
        keys.press("Escape")
        assert not visit.page.locator(".zone-layer").is_visible()
        keys.press("Escape")
        visit.tile("gate").wait_for()


def test_what_the_run_refuses_is_told_and_can_be_mended(browser: Any, camera: RtspServer) -> None:
    """A zone that crosses itself; and nowhere to save to, with what a file would have to say."""
    arguments = (camera.url, "--name", "gate", "--max-rate", "4")
    with served(*arguments, settings=SETTINGS) as page, visiting(browser) as visit:
        editor = Editor(visit, page)
        told = visit.page.locator(".zone-editor .answer.bad")
        editor.press("Edit zones")
        editor.press("Draw a zone")
        crossed = [(0.2, 0.2), (0.8, 0.8), (0.8, 0.2), (0.2, 0.8)]
        editor.click(*crossed)
        visit.page.keyboard.press("Enter")
        told.filter(has_text="polygon: its sides 1–2 and 3–4 meet").wait_for()
        assert (page.source("gate") or {})["zones"] == {}
        visit.page.get_by_label("Name of the zone").focus()
        editor.drag(crossed[1], (0.5, 0.1))
        editor.wait_for("zones", {"zone 1": [crossed[0], (0.5, 0.1), *crossed[2:]]})
        editor.press("Save")
        told.filter(has_text="started without --config FILE").wait_for()
        assert "below sources.gate: zones: {zone 1: {polygon: [[0." in told.inner_text()
        visit.complaints = [line for line in visit.complaints if "status of 400" not in line]
