"""deliver: every frame's fate is counted, each output gets what is its own, and a lost signal is shown."""

import json
import tempfile
import threading
from types import SimpleNamespace

import cv2
import numpy as np
import pytest
import zmq

from configs.uri import Uri
from pipeline.errors import OutputError
from pipeline.flow.detections import Detections
from pipeline.flow.events import Counts, Event, LineCount, ZoneCount
from pipeline.flow.fates import LOST, NEWER, NO_OUTPUT
from pipeline.flow.frame import Frame
from pipeline.flow.ledger import Page
from pipeline.flow.messages import Audit, SignalChange, Start, WantPixels
from pipeline.outputs import WAITING_FRAMES
from pipeline.settings import DeliverSettings, SourceSettings
from pipeline.shapes import Line, Zone
from pipeline.sinks import Sink
from pipeline.stages import deliver
from pipeline.stages.deliver import Deliver
from tests.kit.bench import CARD, LIMITS, Bench, end_of, header_of, live, signal_of, start_of
from tests.kit.harness import json_lines, wait_until
from tests.kit.media import count_pictures

SOURCES = {name: SourceSettings(uri="x") for name in ("door", "yard")}


class Delivery:
    """deliver on the bench, with some outputs; `close` waits for them."""

    def __init__(self, bench: Bench | None = None, incarnation: int = 0, **outputs: object) -> None:
        settings = DeliverSettings(**outputs)  # type: ignore[arg-type]
        self.bench = bench or Bench(sources=SOURCES, slots=40, deliver=settings)
        self.stage = Deliver(self.bench.kit(incarnation=incarnation))
        self.stage.prepare()
        self.stage.begin(Start(CARD, LIMITS, []))

    def process(self, *frames: Frame) -> None:
        for frame in frames:
            self.stage.process(frame)

    def dropped(self, seq: int, source_id: str = "door", place: int = 0) -> Frame:
        return Frame(header_of(seq, source_id, place, dropped=NEWER), self.bench.pools)

    def page(self, place: int = 0) -> Page:
        return self.bench.ledger.page(place)

    def close(self) -> None:
        self.stage.close()


def capture(bench: Bench, count: int, place: int = 0) -> None:
    for _ in range(count):
        bench.ledger.capture(place, 0.0, 0)


def test_every_frame_has_a_fate_and_a_line(tmp_path) -> None:
    delivery = Delivery(jsonl=str(tmp_path / "o.jsonl"))
    bench = delivery.bench
    capture(bench, 4)
    delivery.stage.stream_started(start_of())
    person = bench.result(2)
    person.put_detections(
        Detections.untracked(np.array([[50, 100, 90, 200]], np.float32), np.ones(1, np.float32), np.zeros(1, np.int32))
    )
    failed = bench.frame(1, failure="out of memory")
    delivery.process(bench.result(0), failed, person, delivery.dropped(3))
    delivery.close()
    lines = json_lines(tmp_path / "o.jsonl")
    assert [(line["seq"], line["status"]) for line in lines] == [(0, "ok"), (1, "failed"), (2, "ok"), (3, "dropped")]
    assert lines[1]["reason"] == "out of memory" and lines[1]["objects"] == []
    assert lines[2]["objects"][0]["box_xyxy"] == [50, 100, 90, 200]
    assert (lines[3]["stage"], lines[3]["reason"]) == ("gather", NEWER.reason)
    assert delivery.page() == Page(4, 2, 1, {NEWER: 1}) and delivery.page().in_flight == 0
    assert bench.leased() == 0


def test_what_took_over_says_so_in_its_line_and_is_counted_with_the_audits(tmp_path) -> None:
    delivery = Delivery(jsonl=str(tmp_path / "o.jsonl"))
    capture(delivery.bench, 5)
    delivery.stage.stream_started(start_of())
    failed = delivery.bench.frame(3, same_as=2, failure="it looked as frame 2, which has no result")
    audited = delivery.bench.result(4, audits=0, audit=Audit(3, 1))
    delivery.process(*[delivery.bench.result(seq, same_as=0) for seq in (1, 2)], failed, audited)
    delivery.close()
    lines = json_lines(tmp_path / "o.jsonl")
    assert [(line["seq"], line["status"], line.get("from")) for line in lines] == [
        (1, "ok", 0), (2, "ok", 0), (3, "failed", None), (4, "ok", None)
    ]  # fmt: skip
    assert delivery.page() == Page(5, 3, 1, {}, taken_over=2, audits=1, audited_objects=3, missed_objects=1)


def test_what_zones_and_lines_tell_comes_to_the_outputs_and_is_drawn(tmp_path) -> None:
    """A frame without result says nothing of them, whatever its header has."""
    delivery = Delivery(jsonl=str(tmp_path / "o.jsonl"), video=str(tmp_path / "o.mp4"))
    zone, line = Zone(((0.0, 0.5), (1.0, 0.5), (1.0, 1.0), (0.0, 1.0))), Line(((0.5, 0.0), (0.5, 1.0)))
    delivery.stage.stream_started(start_of(zones={"yard": zone}, lines={"gate": line}))
    entered = Event(
        event="entered", source="door", seq=0, pts_seconds=0.0, at_unix=0.0, zone="yard", track_id=1, class_name="car"
    )
    counts = Counts((entered,), {"yard": ZoneCount({"car": 1})}, {"gate": LineCount({}, {"car": 2})})
    frame = delivery.bench.result(0, counts=counts, picture=True)
    plain_bgr, drawn_bgr = frame.array("image_bgr").copy(), frame.array("image_bgr")
    delivery.process(frame)
    assert np.any(plain_bgr[24, 5:25] != drawn_bgr[24, 5:25], axis=1).all(), "the zone's upper side"
    delivery.process(delivery.bench.frame(1, failure="out of memory", counts=counts))
    delivery.close()
    ok, failed = json_lines(tmp_path / "o.jsonl")
    assert (ok["zones"], ok["lines"]) == (
        {"yard": {"inside": {"car": 1}}}, {"gate": {"forward": {}, "backward": {"car": 2}}}
    )  # fmt: skip
    assert [event["event"] for event in ok["events"]] == ["entered"]
    assert not {"zones", "lines", "events"} & set(failed)


def test_without_outputs_a_frame_is_delivered_as_it_comes() -> None:
    delivery = Delivery()
    capture(delivery.bench, 2)
    delivery.process(delivery.bench.result(0), delivery.dropped(1))
    assert delivery.page() == Page(2, 1, 0, {NEWER: 1}) and delivery.bench.leased() == 0
    delivery.close()


def test_frames_that_no_output_took_are_not_delivered() -> None:
    delivery = Delivery(jsonl="/dev/full")
    capture(delivery.bench, 3)
    delivery.stage.stream_started(start_of())
    for seq in range(3):
        delivery.process(delivery.bench.result(seq))
    delivery.close()
    assert delivery.page() == Page(3, 0, 0, {NO_OUTPUT: 3}) and delivery.bench.leased() == 0
    assert delivery.bench.stops == [False] and delivery.stage.problem.exit_code == 4


def test_while_another_output_is_left_the_run_goes_on(tmp_path) -> None:
    delivery = Delivery(mot="/dev/full/x", jsonl=str(tmp_path / "o.jsonl"))
    delivery.stage.stream_started(start_of())
    delivery.process(*[delivery.bench.result(seq) for seq in range(3)])
    delivery.close()
    assert delivery.bench.stops == [] and delivery.stage.problem is not None
    assert len(json_lines(tmp_path / "o.jsonl")) == 3 and delivery.page().delivered == 3
    (warning,) = delivery.bench.meter.report(0, 0.0).warnings
    assert "the other outputs go on" in warning


def test_an_output_that_fails_when_the_others_are_finished_was_not_the_last_that_was_left(tmp_path) -> None:
    delivery = Delivery(mot=str(tmp_path / "o.txt"), jsonl=str(tmp_path / "o.jsonl"))

    class Late(Sink):
        def write(self, frame, image_bgr) -> None:
            wait_until(lambda: delivery.stage._outputs["jsonl"].is_closed, what="the other output")
            raise OutputError("cannot write o.txt: disk full")

    delivery.stage._modules["mot"] = SimpleNamespace(open_sink=lambda target: Late())
    delivery.stage.stream_started(start_of())
    delivery.process(delivery.bench.result(0))
    delivery.close()
    assert delivery.bench.stops == [] and delivery.stage.problem is not None
    (warning,) = delivery.bench.meter.report(0, 0.0).warnings
    assert "disk full; the other outputs go on" in warning


def test_a_fate_is_written_beside_the_slot_before_it_is_counted() -> None:
    """Who dies in between leaves a frame that is reclaimed, not one that is counted twice."""
    delivery = Delivery()
    frame = delivery.bench.result(0)
    seen = []
    tell = delivery.bench.ledger.tell
    delivery.bench.ledger.tell = lambda place, fate, seq: (
        seen.append([held.told for held in delivery.bench.pools["frames"].held_by(1)]),
        tell(place, fate, seq),
    )
    delivery.process(frame)
    assert seen == [[True]]
    delivery.close()


# --- whose output is whose -------------------------------------------------------------------------------------------


def test_each_source_has_its_own_file_where_the_name_says_so(tmp_path) -> None:
    delivery = Delivery(jsonl=str(tmp_path / "{source}.jsonl"), mot=str(tmp_path / "all-{source}.txt"))
    bench = delivery.bench
    delivery.stage.stream_started(start_of("door", 0))
    delivery.stage.stream_started(start_of("yard", 1))
    delivery.process(bench.result(0, "door", 0), bench.result(0, "yard", 1), bench.result(1, "door", 0))
    delivery.close()
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "all-door.txt", "all-yard.txt", "door.jsonl", "yard.jsonl"
    ]  # fmt: skip
    assert [(line["source"], line["seq"]) for line in json_lines(tmp_path / "door.jsonl")] == [("door", 0), ("door", 1)]
    assert set(bench.meter.report(0, 0.0).outputs) == {"jsonl (door)", "jsonl (yard)", "mot (door)", "mot (yard)"}


def test_one_file_for_all_sources_has_the_lines_of_all(tmp_path) -> None:
    delivery = Delivery(jsonl=str(tmp_path / "o.jsonl"))
    bench = delivery.bench
    for name, place in (("door", 0), ("yard", 1)):
        delivery.stage.stream_started(start_of(name, place))
        delivery.process(bench.result(0, name, place))
    delivery.close()
    assert [line["source"] for line in json_lines(tmp_path / "o.jsonl")] == ["door", "yard"]


def test_a_source_has_ended_when_its_own_outputs_are_closed(tmp_path) -> None:
    delivery = Delivery(video=str(tmp_path / "{source}.mp4"))
    for name, place in (("door", 0), ("yard", 1)):
        delivery.stage.stream_started(start_of(name, place))
        delivery.process(*[delivery.bench.result(seq, name, place, picture=True) for seq in range(3)])
    delivery.stage.stream_ended(end_of(3, "door", 0))

    def has_ended() -> bool:
        delivery.stage.idle()
        return bool(delivery.bench.ended)

    wait_until(has_ended, what="the end of the source")
    assert delivery.bench.ended == ["door"]
    assert count_pictures(tmp_path / "door.mp4") == 3
    delivery.close()


def test_a_source_without_a_frame_that_ended_well_is_an_empty_file(tmp_path) -> None:
    delivery = Delivery(jsonl=str(tmp_path / "o.jsonl"))
    delivery.stage.stream_started(start_of())
    delivery.stage.stream_ended(end_of(0))
    delivery.close()
    assert json_lines(tmp_path / "o.jsonl") == [] and delivery.bench.ended == ["door"]


def test_who_comes_after_a_lost_one_goes_on_in_the_lines_and_begins_another_video(tmp_path) -> None:
    outputs = {"jsonl": str(tmp_path / "o.jsonl"), "video": str(tmp_path / "o.mp4")}
    first = Delivery(**outputs)
    capture(first.bench, 5)
    first.stage.stream_started(start_of())
    first.process(*[first.bench.result(seq, picture=True) for seq in range(3)])
    wait_until(lambda: first.page().delivered == 3, what="three frames")
    wait_until(lambda: all(o.frames == 3 for o in first.bench.meter.report(0, 0.0).outputs.values()), what="outputs")
    # It is lost here, without a close.
    second = Delivery(bench=first.bench, incarnation=1)
    second.stage.stream_started(start_of())
    second.process(*[second.bench.result(seq, picture=True) for seq in (3, 4)])
    second.close()
    assert [line["seq"] for line in json_lines(tmp_path / "o.jsonl")] == [0, 1, 2, 3, 4]
    assert count_pictures(tmp_path / "o.1.mp4") == 2
    first.close()
    assert count_pictures(tmp_path / "o.mp4") == 3
    assert second.page() == Page(5, 5)


def test_a_live_source_misses_frames_where_an_output_is_slow_and_a_file_does_not(monkeypatch) -> None:
    waits = []
    delivery = Delivery(jsonl="/dev/null")
    delivery.stage.stream_started(live("door", 0))
    delivery.stage.stream_started(start_of("yard", 1))
    for output in delivery.stage._open_outputs("door"):
        monkeypatch.setattr(output, "offer", lambda ticket, result, image, may_wait, then: waits.append(may_wait))
    delivery.process(delivery.bench.result(0, "door", 0), delivery.bench.result(0, "yard", 1))
    assert waits == [False, True]
    delivery.close()


def test_what_a_process_had_taken_when_it_was_lost_is_told_by_the_next(tmp_path) -> None:
    """Dropped headers have no slot by which the supervisor could find them, and others may be told of by it as well."""
    first = Delivery(jsonl=str(tmp_path / "o.jsonl"))
    bench = first.bench
    capture(bench, 5)
    first.stage.stream_started(start_of())
    first.process(bench.result(0), first.dropped(1))
    first.close()
    bench.ledger.arrive(0, "deliver", 4)  # 2 and 3 were taken, and the process killed
    second = Delivery(bench=bench, incarnation=1)
    for _ in range(2):  # its settings may change
        second.stage.stream_started(start_of())
    reclaimed = Frame(header_of(3, dropped=LOST["deliver"], reclaimed=True), {})
    second.process(reclaimed, bench.result(4))
    second.close()
    told = [(line["seq"], line["status"], line.get("reason")) for line in json_lines(tmp_path / "o.jsonl")]
    lost = [(seq, "dropped", "worker lost") for seq in (2, 3)]
    assert told == [(0, "ok", None), (1, "dropped", NEWER.reason), *lost, (4, "ok", None)]
    assert second.page() == Page(5, 2, 0, {NEWER: 1, LOST["deliver"]: 2}) and bench.leased() == 0


def test_a_picture_is_shown_once_its_line_is_written_and_its_fate_told(tmp_path, monkeypatch) -> None:
    delivery = Delivery(jsonl=str(tmp_path / "o.jsonl"), video=str(tmp_path / "o.mkv"))
    seen: list[tuple[int, int, int]] = []

    class Watching(Screen):
        def write(self, frame, image_bgr) -> None:
            lines = json_lines(tmp_path / "o.jsonl")
            seen.append((frame.seq, lines[frame.seq]["seq"], delivery.page().delivered))

    delivery.stage._modules["video"] = SimpleNamespace(open_sink=lambda target: Watching())
    delivery.stage.stream_started(start_of())
    for seq in range(5):
        delivery.process(delivery.bench.result(seq, picture=True))
        wait_until(lambda seq=seq: len(seen) > seq, what="the picture")
    assert seen == [(seq, seq, seq + 1) for seq in range(5)]
    delivery.close()
    assert delivery.bench.leased() == 0


def test_lines_that_are_behind_keep_no_picture_waiting(tmp_path) -> None:
    delivery = Delivery(jsonl=str(tmp_path / "o.jsonl"), video=str(tmp_path / "o.mkv"))
    stalled, screen = threading.Event(), Screen()

    class Stalled(Sink):
        def write(self, frame, image_bgr) -> None:
            assert stalled.wait(60)

    delivery.stage._modules["jsonl"] = SimpleNamespace(open_sink=lambda target: Stalled())
    delivery.stage._modules["video"] = SimpleNamespace(open_sink=lambda target: screen)
    delivery.stage.stream_started(live())
    for seq in range(12):
        delivery.process(delivery.bench.result(seq, picture=True))
        if seq >= WAITING_FRAMES - 1:
            wait_until(lambda seq=seq: screen.frames[-1:] == [seq], what="the picture")
    assert screen.frames == list(range(12))
    stalled.set()
    delivery.close()
    assert screen.frames == list(range(12)) and delivery.bench.leased() == 0


# --- while a signal is lost ------------------------------------------------------------------------------------------


class Screen(Sink):
    """A kind of output with pictures; it remembers them."""

    def __init__(self) -> None:
        self.frames: list[int] = []
        self.stills: list[tuple[str, float, np.ndarray]] = []
        self.states: list[str] = []

    def write(self, frame, image_bgr) -> None:
        if image_bgr is not None:
            self.frames.append(frame.seq)

    def record(self, signal: SignalChange) -> None:
        self.states.append(signal.state)

    def still(self, source_id, pts_seconds, image_bgr) -> None:
        self.stills.append((source_id, pts_seconds, image_bgr.copy()))


class Clock(SimpleNamespace):
    """Time as deliver reads it."""

    def monotonic(self) -> float:
        return self.now

    def time(self) -> float:
        return 1000.0 + self.now

    def monotonic_ns(self) -> int:
        return int(self.now * 1e9)


@pytest.fixture
def shown(monkeypatch):
    """A live source with three frames delivered to a screen, and the time of it all."""
    clock, screen = Clock(now=100.0), Screen()
    monkeypatch.setattr(deliver, "time", clock)
    delivery = Delivery(video="o.mp4")
    delivery.stage._modules["video"] = SimpleNamespace(open_sink=lambda target: screen)
    delivery.stage.stream_started(live())
    delivery.process(*[delivery.bench.result(seq, picture=True) for seq in range(3)])
    wait_until(lambda: screen.frames == [0, 1, 2], what="frames")
    yield delivery, screen, clock
    delivery.close()


def looked(shown, seconds: float) -> list[tuple[str, float, np.ndarray]]:
    """Stills after deliver was idle for so long, asked five times a second."""
    delivery, screen, clock = shown
    for _ in range(round(seconds * 5)):
        clock.now += 0.2
        delivery.stage.idle()
    came_so_far = threading.Event()
    delivery.stage._outputs["video"]._do(lambda sink: came_so_far.set())
    assert came_so_far.wait(20)
    return screen.stills


def test_while_all_is_well_no_picture_is_made_up(shown) -> None:
    assert looked(shown, 5.0) == []


def test_the_last_picture_of_a_lost_signal_is_shown_greyed_once_a_second(shown) -> None:
    delivery, screen, _ = shown
    delivery.stage.signal_changed(signal_of("lost", 3, at_unix=1100.0))
    stills = looked(shown, 5.0)
    assert 4 <= len(stills) <= 6 and {source_id for source_id, _, _ in stills} == {"door"}
    times = [seconds for _, seconds, _ in stills]
    assert times == sorted(times) and times[0] >= 0.2
    assert times[-1] - times[0] == pytest.approx(len(stills) - 1, abs=0.5)
    assert all(still.shape == (48, 64, 3) for _, _, still in stills)
    assert screen.frames == [0, 1, 2] and screen.states[0] == "lost"
    assert delivery.page().delivered == 3  # a still is no frame


def test_a_still_is_shown_before_all_that_a_signal_may_bring_that_is_back(shown) -> None:
    """A frame is on its way for a while: what was taken 0.4 s ago is not here yet."""
    delivery, screen, clock = shown
    delivery.stage.signal_changed(signal_of("lost", 3, at_unix=clock.time()))
    last_seconds, lost_at = 0.2, clock.now
    for looks in range(1, 20):
        stills = looked(shown, 0.2)
        first_seconds = last_seconds + max(0.0, clock.now - 0.4 - lost_at)
        assert all(seconds <= first_seconds for _, seconds, _ in stills), looks
    assert screen.stills


@pytest.mark.parametrize("state", ["live", "frozen", "grey", "paused"])
def test_only_a_lost_signal_is_shown_so(state: str, shown) -> None:
    delivery, _, _ = shown
    delivery.stage.signal_changed(signal_of("lost", 3, at_unix=1100.0))
    looked(shown, 2.0)
    delivery.stage.signal_changed(signal_of(state, 3, at_unix=1102.0))
    before = len(looked(shown, 1.0))
    assert len(looked(shown, 5.0)) == before


def test_the_picture_that_is_kept_is_one_slot_and_is_let_go_with_the_source(shown) -> None:
    delivery, _, _ = shown
    assert delivery.bench.leased() == 1
    delivery.process(delivery.bench.result(3, picture=True))
    wait_until(lambda: delivery.page().delivered == 4, what="the fourth")
    wait_until(lambda: delivery.bench.leased() == 1, what="the third let go")
    delivery.stage.stream_ended(end_of(4))
    wait_until(lambda: delivery.bench.leased() == 0, what="all slots back")


def test_of_a_file_no_picture_is_kept() -> None:
    delivery = Delivery(video="/dev/null.mp4")
    delivery.stage._modules["video"] = SimpleNamespace(open_sink=lambda target: Screen())
    delivery.stage.stream_started(start_of())
    delivery.process(*[delivery.bench.result(seq, picture=True) for seq in range(3)])
    wait_until(lambda: delivery.bench.leased() == 0, what="all slots back")
    delivery.close()


# -- on demand


class Looker:
    """Who subscribes to what deliver publishes, as the page does."""

    def __init__(self, endpoint: str, *topics: bytes) -> None:
        self._context = zmq.Context()
        self._socket = self._context.socket(zmq.SUB)
        self._socket.connect(endpoint)
        for topic in topics:
            self._socket.subscribe(topic)

    def next(self, seconds: float = 30.0) -> list[bytes] | None:
        return self._socket.recv_multipart() if self._socket.poll(int(seconds * 1000)) else None

    def close(self) -> None:
        self._socket.close(linger=0)
        self._context.term()


@pytest.fixture
def endpoint(tmp_path_factory: pytest.TempPathFactory) -> str:
    return f"ipc://{tempfile.mkdtemp(dir='/tmp', prefix='pub')}/p"


def test_what_is_published_has_no_say_in_a_frames_fate(endpoint: str) -> None:
    delivery = Delivery(also=(Uri(endpoint),))
    capture(delivery.bench, 200)
    delivery.stage.stream_started(start_of())
    for seq in range(200):
        delivery.process(delivery.bench.result(seq))
        if seq % 20 == 19:
            wait_until(lambda: delivery.bench.leased() < 10)
    delivery.close()
    assert delivery.page() == Page(200, 200, 0, {}) and delivery.bench.leased() == 0


def test_what_publishes_is_given_nothing_while_nobody_has_subscribed(endpoint: str) -> None:
    delivery = Delivery(also=(Uri(endpoint),))
    bench, came = delivery.bench, None

    def given() -> int:
        return sum(each.frames for each in delivery.stage.kit.meter.report(0, 0.0).outputs.values())

    delivery.stage.stream_started(start_of())
    delivery.process(bench.result(0))  # with which it is opened
    wait_until(lambda: given() == 1 and bench.looked_at == [WantPixels()])
    for seq in range(1, 10):
        delivery.process(bench.result(seq))
        delivery.stage.idle()
    assert given() == 1
    looker = Looker(endpoint, b"frame/door")
    for seq in range(10, 3000):
        delivery.process(bench.result(seq))
        delivery.stage.idle()
        if came := looker.next(0.01):
            break
    assert came and json.loads(came[1])["seq"] >= 10
    looker.close()
    delivery.close()
    assert bench.leased() == 0


def test_a_frame_that_was_only_looked_at_was_not_delivered_where_an_output_was_wanted(endpoint: str) -> None:
    delivery = Delivery(also=(Uri(endpoint),), jsonl="/dev/full")
    capture(delivery.bench, 3)
    delivery.stage.stream_started(start_of())
    delivery.process(*[delivery.bench.result(seq) for seq in range(3)])
    delivery.close()
    assert delivery.page() == Page(3, 0, 0, {NO_OUTPUT: 3}) and delivery.bench.leased() == 0


def test_who_looks_gets_a_clean_picture_while_the_video_has_boxes(endpoint: str, tmp_path) -> None:
    delivery = Delivery(also=(Uri(endpoint),), video=str(tmp_path / "o.mp4"))
    bench, shown = delivery.bench, []
    delivery.stage.stream_started(start_of())
    delivery.process(bench.result(0, picture=True))
    looker = Looker(endpoint, b"full/door", b"drawn/door", b"signal/")
    wait_until(lambda: delivery.stage.idle() or bench.looked_at[-1:] == [WantPixels(frozenset({"door"}))])
    person = bench.result(1, picture=True)
    person.put_detections(
        Detections.untracked(np.array([[10, 10, 50, 40]], np.float32), np.ones(1, np.float32), np.zeros(1, np.int32))
    )
    delivery.process(person)
    while len(shown) < 2:
        topic, line, captured, jpeg = looker.next()
        image_bgr = cv2.imdecode(np.frombuffer(jpeg, np.uint8), cv2.IMREAD_COLOR)
        shown.append(topic)
        assert json.loads(line)["seq"] == 1 and captured == b"0"
        assert (image_bgr.std() < 2) == (topic == b"full/door")
    assert sorted(shown) == [b"drawn/door", b"full/door"]
    delivery.stage.signal_changed(signal_of("lost", 2))
    assert looker.next()[0] == b"signal/door"
    looker.close()
    wait_until(lambda: delivery.stage.idle() or bench.looked_at[-1] == WantPixels())
    delivery.close()
    assert bench.leased() == 0


def test_one_started_anew_says_at_once_that_nobody_looks(endpoint: str) -> None:
    """Decoders may still make pictures for those who looked at the one before."""
    delivery = Delivery(also=(Uri(endpoint),), incarnation=1)
    delivery.stage.stream_started(live())
    delivery.process(delivery.bench.result(0))
    wait_until(lambda: delivery.bench.looked_at == [WantPixels()])
    delivery.close()
