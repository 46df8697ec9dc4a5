"""What a profile writes: the trace of each frame, its sums, Chrome's format, and a page that holds nothing foreign."""

import json
import re
from dataclasses import replace
from html.parser import HTMLParser
from itertools import pairwise

import msgspec
import pytest

from pipeline.flow.fates import NEWER
from pipeline.flow.messages import Hop
from pipeline.flow.metrics import quantiles_of
from pipeline.profile import frames
from pipeline.profile.chrome import trace_events
from pipeline.profile.levers import Row
from pipeline.profile.parts import Part
from pipeline.profile.record import (
    Applied,
    CameraRun,
    Cameras,
    Figure,
    Machine,
    Profile,
    RunRecord,
    StageRecord,
    Stream,
)
from pipeline.profile.report import page
from pipeline.sinks import Target
from pipeline.sinks.trace import TraceLine, open_sink
from pipeline.stage import CHAIN
from tests.kit.bench import CARD
from tests.kit.results import result

MS = 1_000_000
NASTY = "<script>alert('x')</script>&\"'"


def line(
    seq: int, captured_ms: float = 0.0, each_ms: float = 5.0, wait_ms: float = 2.0, source: str = "door"
) -> TraceLine:
    """A frame that waits `wait_ms` for each stage and then takes `each_ms` there."""
    at, hops = captured_ms, []
    for stage in CHAIN:
        hops.append(Hop(stage, round((at + wait_ms) * MS), round((at + wait_ms + each_ms) * MS)))
        at += wait_ms + each_ms
    return TraceLine(1, source, seq, round(captured_ms * MS), hops)


def dropped(seq: int, captured_ms: float) -> TraceLine:
    hop = Hop("decode", round(captured_ms * MS), round((captured_ms + 1) * MS))
    return TraceLine(1, "door", seq, round(captured_ms * MS), [hop], "dropped", "gather", "queue full")


# -- the trace


def test_a_frames_trace_is_its_hops_until_it_was_taken(tmp_path) -> None:
    path = tmp_path / "t.jsonl"
    sink = open_sink(Target(str(path)))
    hops = (Hop("track", 10, 20), Hop("deliver", 30, 30))
    sink.write(replace(result(seq=3), captured_ns=5, trace=hops), None)
    sink.write(replace(result(seq=4, dropped=NEWER), captured_ns=7, trace=hops[:1]), None)
    sink.close()
    taken, lost = frames.read(path)
    assert (taken.source, taken.seq, taken.captured_ns, taken.hops[0]) == ("door", 3, 5, hops[0])
    assert taken.hops[1].entered_ns == 30 and taken.hops[1].left_ns > 30
    assert (lost.status, lost.stage, lost.reason, lost.hops) == ("dropped", NEWER.stage, NEWER.reason, [hops[0]])


def test_a_trace_that_was_cut_off_is_read_up_to_there(tmp_path) -> None:
    path = tmp_path / "t.jsonl"
    whole = msgspec.json.encode(line(0)) + b"\n"
    path.write_bytes(whole + whole[:40])
    assert frames.read(path) == [line(0)]


# -- its sums


def test_waiting_and_working_add_up_to_the_latency() -> None:
    lines = [line(seq, captured_ms=100 * seq) for seq in range(20)]
    times = frames.stage_times(lines)
    for stage in CHAIN:
        assert times[stage].waiting.p50_ms == pytest.approx(2) and times[stage].working.p95_ms == pytest.approx(5)
    for part in frames.breakdown(lines):
        assert sum(part.waiting_ms.values()) + sum(part.working_ms.values()) == pytest.approx(part.latency_ms)
    assert frames.throughput(lines) == pytest.approx(10)


def test_a_percentile_is_told_by_frames_that_were_so_slow() -> None:
    lines = [line(seq, 100 * seq, wait_ms=2.0 if seq < 90 else 200.0) for seq in range(100)]
    by_percent = {part.percent: part for part in frames.breakdown(lines)}
    assert by_percent[50].waiting_ms["track"] == pytest.approx(2) and by_percent[99].waiting_ms[
        "track"
    ] == pytest.approx(200)


def test_dropped_frames_are_counted_and_time_nothing() -> None:
    lines = [line(0), dropped(1, 100), line(2, 200), dropped(3, 300)]
    assert frames.dropped_share(lines) == 0.5
    assert frames.stage_times(lines)["decode"].working.count == 2


def test_depth_is_how_many_wait() -> None:
    lines = [line(seq, captured_ms=0.0, wait_ms=100.0) for seq in range(3)]
    depths = frames.depths(lines, points=50)
    assert depths.waiting["decode"][0] == 3 and depths.waiting["decode"][-1] == 0
    assert max(depths.waiting["deliver"]) == 3


def test_the_beginning_is_left_out() -> None:
    lines = [line(seq, captured_ms=100 * seq) for seq in range(101)]
    assert [each.seq for each in frames.steady(lines)][:1] == [10]


def test_nothing_captured_sums_up_to_nothing() -> None:
    assert frames.steady([]) == [] and frames.breakdown([]) == [] and frames.depths([]).seconds == []
    assert frames.throughput([]) == 0.0


# -- Chrome's format


def check_events(events: list[dict]) -> None:
    """The parts of the trace event format that we use."""
    needed = {"X": {"ts", "dur", "name", "cat"}, "M": {"name", "args"}, "b": {"ts", "id", "cat", "name"}}
    needed |= {"e": needed["b"], "s": needed["b"], "t": needed["b"], "f": needed["b"] | {"bp"}}
    for event in events:
        assert event["ph"] in needed and needed[event["ph"]] | {"pid", "tid"} <= set(event), event
        assert all(isinstance(event[key], int) for key in ("pid", "tid"))
        assert all(isinstance(event[key], int | float) and event[key] >= 0 for key in ("ts", "dur") if key in event)


def test_the_trace_is_as_the_format_wants_it() -> None:
    file = trace_events([line(seq, 3 * seq) for seq in range(10)] + [dropped(10, 50)])
    events = json.loads(json.dumps(file))["traceEvents"]
    check_events(events)
    assert sum(event["ph"] == "X" for event in events) == 10 * len(CHAIN) + 1
    begun, ended = ([event["id"] for event in events if event["ph"] == phase] for phase in "be")
    assert sorted(begun) == sorted(ended) and len(set(begun)) == 11
    names = {event["args"]["name"] for event in events if event["name"] == "process_name"}
    assert names == {"frames", *CHAIN}


def test_spans_of_one_lane_do_not_overlap() -> None:
    """Perfetto nests slices of a lane in each other, or leaves them out."""
    events = trace_events([line(seq, 3 * seq) for seq in range(10)])["traceEvents"]
    lanes: dict[tuple, list] = {}
    for event in events:
        if event["ph"] == "X":
            lanes.setdefault((event["pid"], event["tid"]), []).append((event["ts"], event["ts"] + event["dur"]))
    assert len(lanes) == 2 * len(CHAIN)  # each begins before the one before it is done, and none is needed more
    for spans in lanes.values():
        spans.sort()
        assert all(end <= begin for (_, end), (begin, _) in pairwise(spans))


# -- the page


def profile_of(lines: list[TraceLine], source: str = "street.mp4", change: str = "infer.batch=4") -> Profile:
    times, latency = frames.stage_times(lines), quantiles_of([each.latency_ms for each in lines])
    stages = {stage: StageRecord(Part(stage, cpu_ms=1.0), 1000.0, 0.1, times[stage], 2.0) for stage in CHAIN}
    run = RunRecord(
        10.0,
        len(lines),
        9.0,
        0.0,
        latency,
        1.5,
        9.5,
        {"infer:0": 9.0, "track": 1.0},
        frames.breakdown(lines),
        frames.depths(lines),
    )
    cameras = Cameras(10.0, 500.0, 3, 4, 5, {"16": [30, 32, 34]}, [CameraRun(4, 80.0, 0.0, True)], 4)
    return Profile(
        made_unix=0.0,
        seconds=10.0,
        machine=Machine("a processor", 2, [2.0, 1.9]),
        stream=Stream(source, 640, 480, 10.0, False),
        settings={},
        model=CARD,
        hand_over_ms=0.2,
        stages=stages,
        bottleneck="infer",
        bottleneck_why=f"it is slow {change}",
        throughput=Figure(10.0, 9.0, 11.0, 9.5),
        run=run,
        levers=[Row("batch", change, {}, 12.0, 0.2, "trial", True)],
        applied=Applied(change, source, Figure(12.0, 11.0, 13.0, 12.1)),
        cameras=cameras,
        notes=[change],
    )


class Page(HTMLParser):
    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.attributes: list[tuple[str, str | None]] = []
        self.text = ""
        self.feed(text)

    def handle_starttag(self, tag, attrs) -> None:
        self.tags.append(tag)
        self.attributes += attrs

    def handle_data(self, data: str) -> None:
        self.text += data


def test_what_a_user_gave_is_text_wherever_it_is_shown() -> None:
    lines = [line(seq, 30 * seq, source=NASTY) for seq in range(30)]
    text = page(profile_of(lines, NASTY, NASTY), lines)
    read = Page(text)
    assert "script" not in read.tags and "<script" not in text
    assert not [name for name, _ in read.attributes if name.startswith("on")]
    assert read.text.count("alert") >= 5


def test_the_page_asks_for_nothing_from_anywhere() -> None:
    lines = [line(seq, 30 * seq) for seq in range(30)]
    text = page(profile_of(lines), lines)
    read = Page(text)
    assert not {"script", "link", "img", "iframe", "object"} & set(read.tags)
    assert not [name for name, _ in read.attributes if name in ("src", "href")]
    assert not re.search(r"https?:|url\(|@import", text)
    for title in ("Time line by stage", "The slowest frames", "Latency by percentile", "Waiting against working"):
        assert title in read.text
    assert read.tags.count("svg") == 6 and "30 to 34" not in text and "infer.batch=4" in read.text


def test_a_profile_that_was_stopped_early_is_a_page_too() -> None:
    whole = profile_of([line(0)])
    whole.run, whole.levers, whole.applied, whole.cameras = None, [], None, None
    for each in whole.stages.values():
        each.run = None
    assert "infer" in Page(page(whole, [])).text


def test_the_record_is_json_that_can_be_read_again() -> None:
    profile = profile_of([line(seq, 30 * seq) for seq in range(5)])
    assert msgspec.json.decode(msgspec.json.encode(profile), type=Profile) == profile
    assert json.loads(msgspec.json.encode(profile))["schema"] == 1
