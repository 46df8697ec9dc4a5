"""A class's heat map on its way from the network's output to whoever looks: cut to where the frame lies, so that its
peaks are where the boxes are; nothing at all while nobody looks."""

import json
import tempfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from msgspec.structs import replace

from pipeline.flow.frame import Frame, from_parts, to_parts
from pipeline.flow.heat import HeatMap, heat_of, put_heat
from pipeline.flow.messages import Heat, ModelCard, Start, WantPixels
from pipeline.flow.topics import heat_topic, heat_wanted
from pipeline.geometry import fit_input
from pipeline.stage import HEATMAPS
from pipeline.stages.deliver import Deliver
from pipeline.stages.postprocess import Postprocess
from tests.kit.bench import CARD, LIMITS, STAGE, Bench, start_of
from tests.kit.harness import wait_until

PERSON, CAR = 0, 1
SCORE = 0.9


@pytest.fixture
def bench() -> Bench:
    return Bench(slots=8)


def looked_at(bench: Bench, card: ModelCard, *wanted: tuple[str, str]) -> Postprocess:
    stage = Postprocess(bench.kit())
    stage.prepare()
    stage.begin(Start(card, LIMITS, []))
    stage.show_heat(Heat(frozenset(wanted)))
    return stage


def with_heads(bench: Bench, card: ModelCard, size: tuple[int, int], cell_xy: tuple[int, int], seq: int = 0) -> Frame:
    """A person whose peak is in that cell of the network's output, small enough to touch no edge."""
    frame = bench.frame(seq, width=size[0], height=size[1])
    heatmaps = bench.pools[HEATMAPS]
    slot = heatmaps.lease(heatmaps.first_free(0, 8), 0, seq, STAGE)
    frame.header.leases.append(slot)
    rows, columns = card.padded_height // card.stride, card.padded_width // card.stride
    hm = frame.place("hm", slot, "float32", (2, rows, columns))
    hm[:] = -9.0
    hm[PERSON, cell_xy[1], cell_xy[0]] = np.log(SCORE / (1 - SCORE))
    frame.place("wh", slot, "float32", (2, rows, columns))[:] = 0.5
    return frame


@pytest.mark.parametrize("resize", ["stretch", "letterbox"])
@pytest.mark.parametrize(
    ("size", "sides"),
    [
        ((512, 512), (512, 512)),
        ((768, 576), (384, 288)),
        ((1921, 1079), (384, 384)),
        ((333, 999), (500, 250)),
        ((97, 31), (250, 410)),
    ],
    ids=str,
)
@pytest.mark.parametrize("at_xy", [(0.03, 0.05), (0.5, 0.5), (0.96, 0.93)], ids=str)
def test_a_peak_lies_where_the_box_is(bench, size, sides, resize, at_xy) -> None:
    width, height = sides
    padded = [-(-side // 32) * 32 for side in sides]
    card = replace(CARD, input_width=width, input_height=height, padded_width=padded[0], padded_height=padded[1])
    card = replace(card, resize=resize)
    box = fit_input(*size, width, height, resize)
    cell_xy = (
        int(box.left + at_xy[0] * box.width) // card.stride,
        int(box.top + at_xy[1] * box.height) // card.stride,
    )
    frame = with_heads(bench, card, size, cell_xy)
    looked_at(bench, card, ("door", "person")).process(frame)
    left, top, right, bottom = frame.detections().boxes_xyxy[0].tolist()
    heat = heat_of(frame)["person"]
    rows, columns = heat.plane_hw.shape
    x0, y0, x1, y1 = heat.box_xyxy
    row, column = np.unravel_index(np.argmax(heat.plane_hw), heat.plane_hw.shape)
    cell_width, cell_height = (x1 - x0) / columns, (y1 - y0) / rows
    assert heat.plane_hw.max() == round(255 * SCORE) and (heat.plane_hw > 1).sum() == 1
    assert abs(x0 + (column + 0.5) * cell_width - (left + right) / 2) <= cell_width / 2
    assert abs(y0 + (row + 0.5) * cell_height - (top + bottom) / 2) <= cell_height / 2
    assert x0 <= 0 < size[0] <= x1 + 1e-3 and y0 <= 0 < size[1] <= y1 + 1e-3
    assert (cell_width, cell_height) == pytest.approx((4 * box.scale_x, 4 * box.scale_y), rel=1e-5)


def test_only_what_is_looked_at_travels(bench) -> None:
    stage = looked_at(bench, CARD)
    for seq, (wanted, came) in enumerate(
        [
            ([], []),
            ([("yard", "person")], []),
            ([("door", "unicorn")], []),
            ([("door", "car")], ["car"]),
            ([("door", "car"), ("door", "person"), ("yard", "car")], ["person", "car"]),
            ([], []),
        ]
    ):
        stage.show_heat(Heat(frozenset(wanted)))
        frame = with_heads(bench, CARD, (512, 512), (60, 60), seq)
        stage.process(frame)
        assert list(heat_of(frame)) == came and len(frame.detections()) == 1
        assert bench.leased(HEATMAPS) == 0 and (came or len(frame.buffers()) == 1)


def test_a_class_that_is_not_computed_has_none(bench) -> None:
    """Only the car's heat map is, and it is the first."""
    stage = looked_at(bench, replace(CARD, channels=(CAR,)), ("door", "person"), ("door", "car"))
    frame = with_heads(bench, CARD, (512, 512), (60, 60))
    stage.process(frame)
    assert list(heat_of(frame)) == ["car"] and heat_of(frame)["car"].plane_hw.max() == round(255 * SCORE)


def test_what_was_given_to_another_frame_meanwhile_is_not_shown(bench) -> None:
    stage = looked_at(bench, CARD, ("door", "person"))
    frame = with_heads(bench, CARD, (512, 512), (60, 60))
    bench.pools[HEATMAPS].end_lease(frame.header.leases[-1])
    stage.process(frame)
    assert frame.header.failure and heat_of(frame) == {}


def test_where_only_peaks_come_from_a_device_there_is_none(bench) -> None:
    stage = looked_at(bench, CARD, ("door", "person"))
    frame = bench.frame(width=512, height=512)
    frame.place("candidates", frame.header.leases[0], "float32", (1, 6))[:] = [(0, 0, 9, 9, 0.9, 0)]
    stage.process(frame)
    assert heat_of(frame) == {} and len(frame.detections()) == 1


# -- to whoever looks


@pytest.fixture
def endpoint() -> Iterator[str]:
    with tempfile.TemporaryDirectory(dir="/tmp") as folder:
        yield f"ipc://{Path(folder, 'published')}"


def test_a_topic_names_a_source_and_a_class() -> None:
    for source_id, class_name in (("gate", "traffic light"), ("a b", "one/two"), ("gate", "")):
        assert heat_wanted(heat_topic(source_id, class_name)) == (source_id, class_name)


def test_a_plane_is_published_with_where_it_lies(bench: Bench, endpoint: str) -> None:
    import zmq

    from configs.uri import Uri

    bench.settings = replace(bench.settings, deliver=replace(bench.settings.deliver, also=(Uri(endpoint),)))
    stage = Deliver(bench.kit())
    stage.prepare()
    stage.begin(Start(CARD, LIMITS, []))
    stage.stream_started(start_of())
    stage.process(bench.result(0))
    plane_hw = np.arange(12, dtype=np.uint8).reshape(3, 4)
    with zmq.Context() as context, context.socket(zmq.SUB) as subscriber:
        subscriber.connect(endpoint)
        subscriber.subscribe(b"heat/door/person")
        wait_until(lambda: stage.idle() or bench.looked_at[-1:] == [WantPixels(heat=frozenset({("door", "person")}))])
        frame = bench.result(1)
        put_heat(frame, {name: HeatMap(plane_hw, (-1.0, 0.0, 65.0, 48.0)) for name in ("car", "person")})
        (again,) = from_parts(
            [bytes(part) for part in to_parts(frame)], bench.pools
        )  # over a wire, as between processes
        assert isinstance(again, Frame)
        stage.process(again)
        subscriber.setsockopt(zmq.RCVTIMEO, 60_000)
        topic, line, captured, plane = subscriber.recv_multipart()
    stage.close()
    facts = {"source": "door", "seq": 1, "class": "person", "rows": 3, "columns": 4, "width": 64, "height": 48}
    told = json.loads(line)
    assert told.items() >= facts.items() and told["box_xyxy"] == [-1, 0, 65, 48] and told["kind"] == "heat"
    assert (topic, captured, plane) == (b"heat/door/person", b"0", plane_hw.tobytes())
