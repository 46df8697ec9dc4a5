"""decode: which frames are looked at, what is dropped and told of, and how a decoder goes on where another was lost."""

import tempfile
import time
from contextlib import closing
from fractions import Fraction

import numpy as np
import pytest
import zmq
from hypothesis import given
from hypothesis import strategies as st

from pipeline.flow.fates import ABOVE_RATE, LATE, LOST, NO_SLOT
from pipeline.flow.frame import Frame
from pipeline.flow.messages import EndOfStream, Limits, Pause, Pixels, Retune, SignalChange, StreamStart
from pipeline.settings import DeliverSettings, QueueSettings, ServeSettings, SourceSettings
from pipeline.shapes import Line, Zone
from pipeline.sources import late
from pipeline.stage import SHOWN
from pipeline.stages.decode import Tuning
from tests.kit.bench import DECODER, Bench
from tests.kit.harness import wait_until
from tests.kit.media import grey_steps, noise, write_video
from tests.kit.places import CLIP

FRAMES = 20
YARD = Zone(((0.0, 0.0), (1.0, 0.0), (1.0, 1.0)))
GATE = Line(((0.5, 1.0), (0.5, 0.0)))
SERVED = ServeSettings(at="127.0.0.1:0")
PATTERN = "lavfi:testsrc2=size=64x48:rate=50"  # endless


@pytest.fixture(scope="module")
def video(tmp_path_factory):
    """20 frames at 10 a second, each of another grey."""
    return write_video(tmp_path_factory.mktemp("v") / "v.mkv", grey_steps(FRAMES, 64, 48))


def bench_of(uri: object, **settings: object) -> Bench:
    settings_of_door = SourceSettings(uri=str(uri), **settings)  # type: ignore[arg-type]
    return Bench(sources={"door": settings_of_door})


def decoded(bench: Bench, incarnation: int = 0):
    with bench.decoding(incarnation=incarnation) as decoding:
        return decoding.to_its_end()


def seqs(frames: list[Frame]) -> list[int]:
    return [frame.header.seq for frame in frames]


def test_a_file_is_a_start_its_frames_and_an_end(video) -> None:
    bench = bench_of(video)
    decoding = decoded(bench)
    start, *frames, end = decoding.said
    assert isinstance(start, StreamStart) and (start.seq, start.is_live, start.policy) == (0, False, "block")
    assert (start.width, start.height, start.frames_per_second) == (64, 48, 10.0)
    assert seqs(frames) == list(range(FRAMES)) and end == EndOfStream("door", 0, FRAMES)
    assert [frame.header.pts_seconds for frame in frames] == pytest.approx([seq / 10 for seq in range(FRAMES)])
    assert bench.ledger.captured(0) == FRAMES and bench.leased() == 0


def test_a_file_waits_for_a_free_slot_and_loses_nothing(video) -> None:
    bench = bench_of(video)
    with bench.decoding(keeps=True) as decoding:
        wait_until(lambda: bench.leased() == 8, what="all slots taken")
        time.sleep(0.1)
        assert len(decoding.frames()) == 8 and bench.ledger.captured(0) <= 8
        given_back = 0
        while not isinstance(decoding.said[-1], EndOfStream):
            for frame in decoding.frames()[given_back:]:
                frame.give_back()
                given_back += 1
            time.sleep(0.01)
        frames = decoding.frames()
    assert seqs(frames) == list(range(FRAMES)) and not any(frame.header.dropped for frame in frames)


def test_a_live_source_drops_what_has_no_slot_and_says_so(video) -> None:
    bench = bench_of(video, realtime=True)
    with bench.decoding(keeps=True) as decoding:
        frames = decoding.to_its_end().frames()
    assert seqs(frames) == list(range(FRAMES))
    assert [frame.header.dropped for frame in frames] == [None] * 8 + [NO_SLOT] * (FRAMES - 8)
    assert all(not frame.header.leases for frame in frames[8:])


def test_a_policy_that_was_asked_for_holds_for_any_source(video) -> None:
    bench = Bench(sources={"door": SourceSettings(uri=str(video))}, queue=QueueSettings(policy="latest"))
    assert decoded(bench).said[0].policy == "latest"


def test_frames_that_are_late_have_a_number_and_a_fate(tmp_path, monkeypatch) -> None:
    monkeypatch.setattr(late, "LATE_SECONDS", 0.2)
    path = write_video(tmp_path / "v.mkv", noise(90, 64, 48), time_base=Fraction(1, 60), options={"g": "10", "bf": "0"})
    bench = bench_of(path, realtime=True)
    with bench.decoding(seconds_each=0.05) as decoding:
        said = decoding.to_its_end().said
    frames = decoding.frames()
    left_out = [frame for frame in frames if frame.header.dropped]
    assert bench.ledger.captured(0) == 90 and said[-1] == EndOfStream("door", 0, 90)
    assert seqs(frames) == list(range(90)) and 0 < len(left_out) < 90
    assert {frame.header.dropped for frame in left_out} == {LATE}
    # The tracker sees by the numbers how much is missing.
    looked_at = [frame.header for frame in frames if not frame.header.dropped]
    assert [round(header.pts_seconds * 60) for header in looked_at] == [header.seq for header in looked_at]


# --- how much is looked at -------------------------------------------------------------------------------------------


def test_what_is_above_the_rate_is_dropped_with_a_number_of_its_own(video) -> None:
    frames = decoded(bench_of(video, max_rate=2.5)).frames()
    assert seqs(frames) == list(range(FRAMES))
    assert [f.header.seq for f in frames if not f.header.dropped] == [0, 4, 8, 12, 16]
    assert {f.header.dropped for f in frames} == {None, ABOVE_RATE}


def test_a_slot_that_waited_for_a_frame_above_the_rate_is_the_next_ones_in_the_table_too(video) -> None:
    """Or a dropped frame whose header was lost would be waited for for as long as another is on its way."""
    bench = bench_of(video, max_rate=2.5)
    with bench.decoding(keeps=True) as decoding:
        decoding.to_its_end()
    assert [held.seq for held in bench.pools["frames"].held_by(DECODER)] == [0, 4, 8, 12, 16]


@given(st.floats(0.5, 60), st.floats(0.5, 60))
def test_a_rate_holds_on_average_whatever_the_sources_own_is(own: float, most: float) -> None:
    tuning = Tuning(most, 1)
    count = 200
    admitted = sum(tuning.admits(number / own) for number in range(count))
    assert admitted == pytest.approx(min(count, count * most / own), abs=2)


def test_after_a_gap_a_rate_makes_up_for_one_frame_and_no_more() -> None:
    tuning = Tuning(1.0, 1)
    assert [tuning.admits(seconds) for seconds in (0.0, 0.5, 100.0, 100.1, 100.2, 101.0)] == [
        True, False, True, True, False, True
    ]  # fmt: skip


def test_of_so_many_frames_one_is_for_the_network(video) -> None:
    with bench_of(video, every=3).decoding() as decoding:
        frames = decoding.to_its_end().frames()
    assert [f.header.seq for f in frames if not f.header.unseen] == [0, 3, 6, 9, 12, 15, 18]
    assert not any(f.header.dropped for f in frames)


def test_what_is_not_for_the_network_still_has_its_picture(video) -> None:
    sources = {"door": SourceSettings(uri=str(video), every=2, max_frames=4)}
    bench = Bench(sources=sources, deliver=DeliverSettings(video="o.mp4"))
    with bench.decoding(keeps=True) as decoding:
        frames = decoding.to_its_end().frames()
    assert [("input_rgb" in frame, "image_bgr" in frame) for frame in frames] == [(True, True), (False, True)] * 2
    for frame in frames:
        grey = frame.array("image_bgr").mean()
        assert grey == pytest.approx(frame.header.seq * 10, abs=3)


def test_zones_and_lines_are_told_with_the_start_and_stay_until_they_change(video) -> None:
    bench = bench_of(video, zones={"yard": YARD}, lines={"gate": GATE})
    with bench.decoding() as decoding:
        decoding.stage.hear(Retune(lines={}))
        starts = [word for word in decoding.to_its_end().words() if isinstance(word, StreamStart)]
    assert [(start.zones, start.lines) for start in starts] == [
        ({"yard": YARD}, {"gate": GATE}), ({"yard": YARD}, {})
    ]  # fmt: skip


def test_a_change_on_the_way_is_told_before_the_first_frame_of_it() -> None:
    with bench_of(PATTERN, realtime=True).decoding() as decoding:
        wait_until(lambda: len(decoding.frames()) > 3, what="frames")
        decoding.stage.hear(Retune(score_threshold=0.8, classes=("car",), zones={"yard": YARD}))
        wait_until(lambda: len(decoding.words()) > 1, what="another start")
        before, after = decoding.words()[:2]
    assert (before.score_threshold, before.classes) == (0.3, ())
    assert (after.score_threshold, after.classes) == (0.8, ("car",))
    assert (before.zones, after.zones, after.lines) == ({}, {"yard": YARD}, {})
    place = decoding.said.index(after)
    assert decoding.said[place - 1].header.seq == after.seq - 1


def test_rate_and_every_change_on_the_way_and_need_no_word(video) -> None:
    with bench_of(PATTERN, realtime=True).decoding() as decoding:
        wait_until(lambda: len(decoding.frames()) > 3, what="frames")
        decoding.stage.hear(Retune(every=4))
        wait_until(lambda: any(f.header.unseen for f in decoding.frames()), what="an unseen frame")
        first = next(f.header.seq for f in decoding.frames() if f.header.unseen)
        wait_until(lambda: decoding.frames()[-1].header.seq > first + 12, what="more")
        later = [f.header for f in decoding.frames() if f.header.seq >= first]
    assert all(header.unseen == (header.seq % 4 != 0) for header in later)
    assert [type(word) for word in decoding.words()] == [StreamStart, EndOfStream]


# --- pauses ----------------------------------------------------------------------------------------------------------


def test_a_file_that_is_paused_waits_and_loses_nothing(video) -> None:
    bench = bench_of(video)
    with bench.decoding(keeps=True) as decoding:
        wait_until(lambda: bench.leased() == 8, what="all slots taken")
        decoding.stage.hear(Pause(True))
        for frame in decoding.frames():
            frame.give_back()
        decoding.keeps = False
        wait_until(lambda: len(decoding.words()) > 1, what="the pause")
        time.sleep(0.3)
        while_paused = len(decoding.frames())
        assert while_paused <= 9  # one was on its way
        decoding.stage.hear(Pause(False))
        frames, words = decoding.to_its_end().frames(), decoding.words()
    assert seqs(frames) == list(range(FRAMES)) and not any(frame.header.dropped for frame in frames)
    assert [word.state for word in words if isinstance(word, SignalChange)] == ["paused", "live"]
    assert words[2].outage.state == "paused" and words[1].seq == words[2].seq == while_paused


def test_a_camera_that_is_paused_is_left_and_opened_anew(play_server) -> None:
    server = play_server(file=CLIP, loop=True)
    with bench_of(server.url).decoding() as decoding:
        wait_until(lambda: len(decoding.frames()) > 3, what="frames")
        decoding.stage.hear(Pause(True))
        wait_until(lambda: len(decoding.words()) > 1, what="the pause")
        before = len(decoding.frames())
        time.sleep(0.3)
        assert len(decoding.frames()) == before
        decoding.stage.hear(Pause(False))
        wait_until(lambda: len(decoding.frames()) > before + 3, what="frames again")
    frames = decoding.frames()
    assert seqs(frames) == list(range(len(frames)))
    times = [frame.header.pts_seconds for frame in frames]
    assert times == sorted(times) and times[before] - times[before - 1] >= 0.3  # the source's time goes on
    assert [w.state for w in decoding.words() if isinstance(w, SignalChange)][:2] == ["paused", "live"]


# --- started anew ----------------------------------------------------------------------------------------------------


def test_a_decoder_that_comes_after_another_doubles_and_loses_no_frame_of_a_file(video) -> None:
    """The first was lost with slots in its hands; what it had captured is told of by who reclaims them."""
    bench = bench_of(video)
    with bench.decoding(keeps=True) as first:
        wait_until(lambda: bench.leased() == 8, what="all slots taken")
    captured = bench.ledger.captured(0)
    assert captured == 8
    for frame in first.frames():
        frame.drop(LOST["decode"])
    bench.stop.clear()
    sources = bench.settings.sources
    again = Bench(sources=sources, deliver=DeliverSettings(video="o.mp4"))
    again.ledger = bench.ledger
    with again.decoding(incarnation=1, keeps=True) as second:
        greys: dict[int, float] = {}
        while not (second.said and isinstance(second.said[-1], EndOfStream)):
            for frame in second.frames():
                if frame.header.leases and frame.header.seq not in greys:
                    greys[frame.header.seq] = float(np.mean(frame.array("image_bgr")))
                    frame.give_back()
            time.sleep(0.01)
    assert seqs(second.frames()) == list(range(captured, FRAMES))
    assert all(grey == pytest.approx(seq * 10, abs=3) for seq, grey in greys.items()) and greys
    assert second.said[0].seq == captured and second.said[-1] == EndOfStream("door", 0, FRAMES)
    assert again.ledger.captured(0) == FRAMES


def test_frames_to_take_at_most_are_counted_over_all_decoders(video) -> None:
    bench = bench_of(video, max_frames=10)
    for seq in range(7):
        bench.ledger.capture(0, seq / 10, 1 + seq)
    second = decoded(bench, incarnation=1)
    assert seqs(second.frames()) == [7, 8, 9] and second.said[-1] == EndOfStream("door", 0, 10)


def test_of_a_live_source_the_time_goes_on(video) -> None:
    bench = bench_of(PATTERN, realtime=True)
    for seq in range(5):
        bench.ledger.capture(0, 100.0 + seq / 50, time.monotonic_ns())
    with bench.decoding(incarnation=1) as second:
        wait_until(lambda: len(second.frames()) > 3, what="frames")
    frames = second.frames()
    assert seqs(frames) == list(range(5, 5 + len(frames)))
    times = [frame.header.pts_seconds for frame in frames]
    assert times[0] > 100.0 + 4 / 50 and times == sorted(times) and len(set(times)) == len(times)


def has_pixels(frame: Frame) -> bool:
    return "image_bgr" in [ref.name for ref in frame.header.arrays]


def test_full_size_pixels_are_made_while_somebody_looks() -> None:
    """And always where an output takes every picture."""
    bench = bench_of(PATTERN)
    with bench.decoding(keeps=True) as decoding:

        def taken(count: int) -> list[bool]:
            """Of so many more frames, whether each has them."""
            before = len(decoding.frames())
            wait_until(lambda: _give_back(decoding.frames()) and len(decoding.frames()) >= before + count)
            return pixels[before:]

        pixels: list[bool] = []

        def _give_back(frames: list[Frame]) -> bool:
            for frame in frames[len(pixels) :]:
                assert frame.header.watched == has_pixels(frame)
                pixels.append(has_pixels(frame))
                frame.give_back()
            return True

        assert not any(taken(5))
        decoding.stage.hear(Pixels(True))
        wait_until(lambda: _give_back(decoding.frames()) and pixels[-1])
        assert all(taken(5))
        decoding.stage.hear(Pixels(False))
        wait_until(lambda: _give_back(decoding.frames()) and not pixels[-1])
        assert not any(taken(5))
    always = Bench(sources={"door": SourceSettings(uri=PATTERN)}, deliver=DeliverSettings(video="x.mp4"))
    with always.decoding(keeps=True) as decoding:
        decoding.stage.hear(Pixels(False))
        wait_until(lambda: len(decoding.frames()) > 3)
        assert all(map(has_pixels, decoding.frames()[:4]))
        assert not any(frame.header.watched for frame in decoding.frames())


@pytest.mark.parametrize("uri", [PATTERN, str(CLIP)])
def test_the_page_has_its_pictures_from_the_decoder_and_nothing_in_full_size_goes_along(uri: str) -> None:
    bench = Bench({"door": SourceSettings(uri=uri, realtime=True)}, serve=SERVED)
    with tempfile.TemporaryDirectory(dir="/tmp") as folder, zmq.Context() as context:
        bench.endpoints = f"ipc://{folder}"
        with closing(context.socket(zmq.SUB)) as page, bench.decoding() as decoding:
            page.bind(f"{bench.endpoints}/{SHOWN}")
            wait_until(lambda: len(decoding.frames()) > 3, what="frames")
            assert not page.poll(100) and not any(frame.header.watched for frame in decoding.frames())
            page.subscribe(b"wide/480/door")
            captured = []
            for _ in range(5):
                assert page.poll(20_000), "no picture came"
                topic, moment, jpeg = page.recv_multipart()
                assert topic == b"wide/480/door" and jpeg.startswith(b"\xff\xd8")
                captured.append(int(moment))
            page.unsubscribe(b"wide/480/door")
            wait_until(lambda: not decoding.frames()[-1].header.watched, what="nobody who looks")
    headers = {frame.header.captured_ns: frame.header for frame in decoding.frames()}
    assert all(headers[moment].watched for moment in captured)
    assert not any(map(has_pixels, decoding.frames()))


@pytest.mark.parametrize(("realtime", "limit"), [(False, 9), (True, 7)])
def test_what_is_spare_is_for_sources_that_may_wait(monkeypatch, realtime: bool, limit: int) -> None:
    monkeypatch.setattr("tests.kit.bench.LIMITS", Limits(8, 9, 1, 1, 1, spare=2))
    with bench_of(CLIP, realtime=realtime).decoding(keeps=True) as decoding:
        wait_until(lambda: bool(decoding.frames()))
        assert decoding.stage.kit.lessor.limit == limit
