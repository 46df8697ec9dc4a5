"""The network's heat map of a class over the live picture: in a real browser, of a real run, with its peaks on the
boxes; for any program; and back after the process that makes it was lost."""

import base64
import json
import os
import signal
import socket
from typing import Any

import numpy as np
import pytest
import zmq
from numpy.typing import NDArray

from tests.kit.browser import READ_CANVAS, visiting
from tests.kit.control import running
from tests.kit.harness import wait_until, worker_pids
from tests.kit.places import CLIP
from tests.kit.served import Page, served
from tests.kit.servers import RtspServer

SETTINGS = ("--set", "infer.engine=eager", "--classes", "car,person")


def whole_boxes(line: dict) -> list[dict]:
    """The people who touch no edge, the best first: the centre of a box that was cut is not where its peak was."""
    sides = (line["width"], line["height"])
    people = [each for each in line["objects"] if each["class"] == "person"]
    return [
        each
        for each in people
        if all(
            near > 1 and far < side - 1
            for near, far, side in zip(each["box_xyxy"], each["box_xyxy"][2:], sides, strict=False)
        )
    ]


def assert_peaks_on_boxes(line: dict, heat: dict, plane: bytes) -> int:
    """Each box's centre has a peak of its score within a cell; the highest of all is the best one's. How many there
    were."""
    plane_hw = np.frombuffer(plane, np.uint8).reshape(heat["rows"], heat["columns"])
    x0, y0, x1, y1 = heat["box_xyxy"]
    boxes = whole_boxes(line)
    for each in boxes:
        left, top, right, bottom = each["box_xyxy"]
        column = ((left + right) / 2 - x0) / (x1 - x0) * heat["columns"]
        row = ((top + bottom) / 2 - y0) / (y1 - y0) * heat["rows"]
        near = plane_hw[max(0, int(row) - 1) : int(row) + 2, max(0, int(column) - 1) : int(column) + 2]
        assert abs(int(near.max()) - 255 * each["score"]) <= 1, (each, near)
    people = [each for each in line["objects"] if each["class"] == "person"]
    if people:
        assert abs(int(plane_hw.max()) - 255 * people[0]["score"]) <= 1
    return len(boxes)


@pytest.mark.parametrize("sides", ["384x288", "250x410"])
def test_peaks_lie_on_the_boxes(sides: str) -> None:
    """For a program, of a picture that fits the network's input and of one that is squeezed into an odd one."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    at = f"tcp://127.0.0.1:{port}"
    settings = (*SETTINGS, "--input", sides)
    with (
        running(CLIP, "--name", "gate", "--realtime", "--also", at, settings=settings) as started,
        zmq.Context() as context,
        context.socket(zmq.SUB) as subscriber,
    ):
        subscriber.connect(at)
        subscriber.subscribe("heat/gate/person")
        subscriber.setsockopt(zmq.RCVTIMEO, 120_000)
        came = [subscriber.recv_multipart() for _ in range(5)]
        started.end()
        lines = {line["seq"]: line for line in started.frames("gate")}
    boxes = 0
    for topic, told, _, plane in came:
        heat = json.loads(told)
        assert topic == b"heat/gate/person" and (heat["width"], heat["height"]) == (768, 576)
        boxes += assert_peaks_on_boxes(lines[heat["seq"]], heat, plane)
    assert boxes > 5


def test_a_class_is_chosen_on_the_page_and_shown_over_its_picture(browser: Any, camera: RtspServer) -> None:
    settings = (*SETTINGS, "--input", "384x288", "--max-rate", "4")
    with served(camera.url, "--name", "gate", settings=settings) as page, visiting(browser) as visit:
        visit.open(page.url, "#/gate")
        picture, choice = visit.page.locator(".large .picture"), visit.page.get_by_label("Heat map")
        visit.wait_for_picture(picture)
        assert sorted(choice.locator("option").all_inner_texts()) == ["car", "none", "person"]
        assert not visit.heat and not picture.locator(".heat").is_visible()
        choice.select_option("person")
        while True:
            seq, opacity = shown_heat(picture)
            if opacity is not None and whole_boxes(visit.line("gate", seq)):
                break
            visit.wait_for_picture(picture, after=seq)
        line, (told, plane) = visit.line("gate", seq), visit.heat["gate", seq]
        assert assert_peaks_on_boxes(line, told, plane)
        assert_drawn(line, opacity)
        assert visit.axe() == []
        wait_until(lambda: "postprocess" in worker_pids(page.run.process.pid), what="the process")
        os.kill(worker_pids(page.run.process.pid)["postprocess"], signal.SIGKILL)
        wait_until(lambda: is_back(page), what="another in its place")
        before = (page.source("gate") or {})["captured"]
        while max(seq for _, seq in visit.heat) < before:  # it is told anew what is looked at
            visit.wait_for_picture(picture, after=int(picture.get_attribute("data-seq")))
        choice.select_option("")
        for _ in range(3):
            visit.wait_for_picture(picture, after=int(picture.get_attribute("data-seq")))
        assert not picture.locator(".heat").is_visible()
        newest = max(seq for _, seq in visit.heat)
        assert max(seq for _, seq in visit.frames | visit.results) > newest


def is_back(page: Page) -> bool:
    (worker,) = (each for each in page.view()["workers"] if each["id"] == "postprocess")
    return worker["restarts"] == 1 and worker["status"] == "running"


def shown_heat(picture: Any) -> tuple[int, NDArray[np.uint8] | None]:
    """At one moment: the seq on the screen, and the opacity of its heat map (H, W); None where none is shown."""
    script = f"""(node) => {{
        const read = {READ_CANVAS};
        const heat = node.querySelector(".heat");
        return [Number(node.dataset.seq), heat.hidden ? null : read(heat)];
    }}"""
    seq, read = picture.evaluate(script)
    if read is None:
        return seq, None
    flat = np.frombuffer(base64.b64decode(read["rgba"]), np.uint8)
    return seq, flat.reshape(read["height"], read["width"], 4)[..., 3]


def assert_drawn(line: dict, opacity: NDArray[np.uint8]) -> None:
    """The centre of the best box is among the most opaque; the picture's cells are eight of its pixels wide."""
    height, width = opacity.shape
    scale = min(width / line["width"], height / line["height"])
    left, top = (width - line["width"] * scale) / 2, (height - line["height"] * scale) / 2
    x0, y0, x1, y1 = whole_boxes(line)[0]["box_xyxy"]
    column, row = left + scale * (x0 + x1) / 2, top + scale * (y0 + y1) / 2
    reach = 8 * scale * 1.5
    near = opacity[int(row - reach) : int(row + reach) + 1, int(column - reach) : int(column + reach) + 1]
    assert near.max() > 0.7 * opacity.max() > 20 and np.median(opacity) < 0.5 * near.max()
