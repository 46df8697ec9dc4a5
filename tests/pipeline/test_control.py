"""Words from outside: found, asked, refused and answered, with real sockets and a run that only remembers."""

import os
import socket
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path
from unittest import mock

import msgspec
import numpy as np
import pytest

from configs.uri import Uri
from pipeline.command import ctl
from pipeline.command.config import load_settings
from pipeline.control import words as control
from pipeline.control.desk import Desk
from pipeline.control.follow import Follower, Watched
from pipeline.control.runstate import RunState, SourceState
from pipeline.control.view import view
from pipeline.control.words import Add, Done, End, Hold, List, Refused, Remove, Save, Sources, Tune
from pipeline.errors import SourceError, StageError, UsageError
from pipeline.flow.frame import Frame, Message
from pipeline.flow.ledger import Ledger, create_ledger
from pipeline.flow.messages import (
    EndOfStream,
    FrameHeader,
    Limits,
    ModelCard,
    Pause,
    Retune,
    SignalChange,
    Start,
    StreamStart,
)
from pipeline.flow.metrics import Meter
from pipeline.flow.sharedmem import Lessor, Pool, create_pool
from pipeline.flow.transport import Transport
from pipeline.settings import MOST_SOURCES, PostprocessSettings, Settings, SourceSettings
from pipeline.shapes import Line, Zone
from pipeline.source_address import parse_address
from pipeline.sources import OpeningStopped
from pipeline.stages.decode import Decode, Tuning
from pipeline.stages.postprocess import Postprocess
from tests.kit.harness import wait_until

SQUARE = ((0.0, 0.0), (1.0, 0.0), (1.0, 1.0), (0.0, 1.0))
YARD, DOOR = Zone(SQUARE, ("person",)), Line(((0.5, 1.0), (0.5, 0.0)))
CARD = ModelCard("m", "w", ("person", "car"), 64, 64, 64, 64, 4, "stretch", "cpu", "eager", {}, "fp32", 1, 1)


def source(uri: str = "rtsp://192.0.2.7/1", **settings: object) -> SourceSettings:
    return SourceSettings(uri=Uri(uri), **settings)  # type: ignore[arg-type]


class Remembered:
    """A run that goes on, of which only what was asked is known."""

    def __init__(self, *source_ids: str) -> None:
        self.settings = Settings()
        self.state = RunState(started_at=1.0, model=CARD)
        self.state.sources = {name: SourceState(source(), place) for place, name in enumerate(source_ids)}
        self.asked: list[tuple] = []

    def add(self, source_id: str, settings: SourceSettings) -> None:
        self.asked.append(("add", source_id, settings.uri.reveal()))

    def remove(self, source_id: str) -> None:
        self.asked.append(("remove", source_id))

    def hold(self, source_id: str, paused: bool) -> None:
        self.asked.append(("hold", source_id, paused))

    def tune(self, source_id: str, changes: Retune) -> None:
        self.asked.append(("tune", source_id, changes))

    def adopt(self, score_threshold: float, classes: tuple[str, ...]) -> None:
        self.asked.append(("adopt", score_threshold, classes))

    def stop(self) -> None:
        self.asked.append(("stop",))


def nothing_wrong(settings: Settings, source_id: str) -> None:
    pass


@pytest.fixture
def place(monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A temporary folder of our own, with a name short enough for sockets."""
    with tempfile.TemporaryDirectory(prefix="ctl", dir="/tmp") as folder:
        monkeypatch.setattr(tempfile, "tempdir", folder)
        yield Path(folder)


@pytest.fixture
def listening(place: Path) -> Iterator[Remembered]:
    """A run of this process that answers at its socket."""
    folder = tempfile.mkdtemp(prefix=control.FOLDER_PREFIX)
    run, transport, over = Remembered("gate", "door"), Transport(), threading.Event()
    replier = transport.replier(f"ipc://{folder}/{control.SOCKET}")
    desk = Desk(run, nothing_wrong)

    def answer() -> None:
        while not over.wait(0.01):
            desk.serve(replier)
        transport.close()

    thread = threading.Thread(target=answer)
    thread.start()
    yield run
    over.set()
    thread.join()


def told(run: Remembered, request: control.Request) -> str:
    with pytest.raises((UsageError, SourceError)) as refused:
        Desk(run, nothing_wrong).do(request)
    assert run.asked == []
    assert "\n" not in str(refused.value)
    return str(refused.value)


# -- finding a run


def test_the_only_run_is_found_and_one_of_several_by_its_process(listening: Remembered, place: Path) -> None:
    path = control.find_run()
    assert control.runs() == {os.getpid(): path} and path.name == control.SOCKET
    assert control.find_run(os.getpid()) == path
    with pytest.raises(UsageError, match=f"there is no run 1; those that listen: {os.getpid()}"):
        control.find_run(1)
    with (
        mock.patch.object(control, "runs", lambda: {7: path, 8: path}),
        pytest.raises(UsageError, match=r"2 runs listen: 7, 8; say which with --run"),
    ):
        control.find_run()


def test_sockets_that_nobody_listens_at_are_no_runs(place: Path) -> None:
    stale = Path(tempfile.mkdtemp(prefix=control.FOLDER_PREFIX)) / control.SOCKET
    with socket.socket(socket.AF_UNIX) as left:
        left.bind(str(stale))
    Path(tempfile.mkdtemp(prefix=control.FOLDER_PREFIX))
    with pytest.raises(UsageError, match="no run of yours listens"):
        control.find_run()


def test_a_folder_of_somebody_else_is_no_run_of_ours(listening: Remembered, place: Path) -> None:
    with (
        mock.patch.object(os, "getuid", lambda: 12345),
        pytest.raises(UsageError, match="no run of yours listens"),
    ):
        control.find_run()


# -- asking


def test_a_request_comes_as_it_was_sent_and_its_answer_too(listening: Remembered) -> None:
    run = control.find_run()
    assert control.tell(run, Add(source("rtsp://u:p@192.0.2.9/1"), "yard")) == Done("yard was added")
    assert control.tell(run, Tune("gate", score=0.5, classes=("car",), every=2)) == Done("gate was changed")
    assert control.tell(run, Tune("gate", zones={"yard": YARD}, lines={})) == Done("gate was changed")
    assert control.tell(run, End()) == Done("the run stops")
    answer = control.tell(run, List())
    assert isinstance(answer, Sources) and [row.source_id for row in answer.rows] == ["gate", "door"]
    assert listening.asked == [
        ("add", "yard", "rtsp://u:p@192.0.2.9/1"),
        ("tune", "gate", Retune(0.5, ("car",), None, 2)),
        ("tune", "gate", Retune(zones={"yard": YARD}, lines={})),
        ("stop",),
    ]


def test_what_is_no_request_is_refused_and_the_next_is_heard(listening: Remembered) -> None:
    run = control.find_run()
    from pipeline.flow.transport import ask

    bad = [b"", b"\xff" * 100, msgspec.msgpack.encode({"type": "burn"}), msgspec.msgpack.encode({"type": "remove"})]
    bad.append(msgspec.msgpack.encode({"type": "list", "more": 1}))
    bad.append(msgspec.msgpack.encode({"type": "tune", "source_id": "gate", "score": 7.0}))
    bad.append(msgspec.msgpack.encode({"type": "remove", "source_id": "../../etc"}))
    for zones in ({"../yard": {"polygon": SQUARE}}, {"yard": {"polygon": [[0, 0], [1, 1], [1, 0], [0, 1]]}}):
        bad.append(msgspec.msgpack.encode({"type": "tune", "source_id": "gate", "zones": zones}))
    for body in bad:
        answer = ask(f"ipc://{run}", body, 5.0)
        assert answer is not None and msgspec.msgpack.decode(answer, type=Refused)
    assert listening.asked == []
    assert control.tell(run, Remove("gate")) == Done("gate was removed")


def test_a_run_that_does_not_answer_in_time_is_a_failure(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(control, "ANSWER_SECONDS", 0.2)
    folder = tempfile.mkdtemp(prefix=control.FOLDER_PREFIX)
    transport = Transport()
    transport.replier(f"ipc://{folder}/{control.SOCKET}")
    with pytest.raises(StageError, match=r"did not answer within 0\.2 s") as silent:
        control.tell(control.find_run(), List())
    assert silent.value.exit_code == 4
    transport.close()


# -- what is refused


def test_what_cannot_be_is_refused_in_a_line_and_nothing_is_changed() -> None:
    run = Remembered("gate")
    assert told(run, Remove("yard")) == "the run has no source yard; those it has: gate"
    assert told(run, Hold("yard", True)) == "the run has no source yard; those it has: gate"
    assert told(run, Add(source(), "gate")) == "gate is there already"
    assert "the model knows no 'cat'; it knows person, car" in told(run, Tune("gate", classes=("cat",)))
    run.state.sources["gate"].leave_until = 1.0
    assert told(run, Add(source(), "gate")) == "gate is about to be gone; ask again then"
    assert told(run, Hold("gate", True)) == "gate has ended"
    run.state.sources.clear()
    assert told(run, Remove("gate")) == "the run has no source gate; it has none"
    full = Remembered(*(f"s{number}" for number in range(MOST_SOURCES)))
    assert told(full, Add(source(), "gate")).startswith(f"that would be {MOST_SOURCES + 1} sources")
    full.state.is_stopping = True
    assert told(full, Remove("s1")) == "the run is about to end"
    full.state.started_at = None
    assert "still being started" in told(full, Remove("s1"))


def test_whatever_the_check_refuses_is_not_added() -> None:
    def refuse(settings: Settings, source_id: str) -> None:
        assert list(settings.sources) == ["gate", "yard"] and source_id == "yard"
        raise SourceError("x.mp4: no such file")

    run = Remembered("gate")
    with pytest.raises(SourceError, match="no such file"):
        Desk(run, refuse).do(Add(source("x.mp4"), "yard"))
    assert run.asked == []


def test_no_class_is_asked_for_that_is_not_computed() -> None:
    run = Remembered("gate")
    run.state.model = msgspec.structs.replace(CARD, channels=(1,))
    run.settings = Settings(postprocess=PostprocessSettings(classes=("car",)))
    assert "the run was started with are computed: car; start it" in told(run, Tune("gate", classes=("person",)))
    assert "the run was started with are computed: car; start it" in told(run, Tune("gate", classes=()))
    Desk(run, nothing_wrong).do(Tune("gate", classes=("car",)))


def test_zones_and_lines_count_only_what_is_computed() -> None:
    run = Remembered("gate")
    cats = {"yard": msgspec.structs.replace(YARD, classes=("cat",))}
    said = "sources.gate.zones.yard.classes: 'cat' is not looked for; what is looked for: person, car"
    assert told(run, Tune("gate", zones=cats)) == said
    assert told(run, Add(source(zones=cats), "yard")) == said.replace("gate", "yard")
    run.state.model = msgspec.structs.replace(CARD, channels=(1,))
    assert told(run, Tune("gate", zones={"yard": YARD})).endswith("'person' is not looked for; what is looked for: car")
    Desk(run, nothing_wrong).do(Tune("gate", lines={"door": DOOR}))
    assert run.asked == [("tune", "gate", Retune(lines={"door": DOOR}))]


def test_zones_and_lines_that_were_asked_for_last_are_saved(tmp_path: Path) -> None:
    path = tmp_path / "run.yaml"
    path.write_text("sources:\n  gate:\n    uri: a.mp4  # the gate\n")
    run = Remembered("gate")
    run.state.sources["gate"].settings = source(zones={"yard": YARD})
    desk = Desk(run, nothing_wrong, str(path))
    assert desk.do(Save("gate")) == Done(f"the zones and lines of gate were saved to {path}")
    assert load_settings(str(path), []).sources["gate"].zones == {"yard": YARD}
    run.state.sources["gate"].tuning = Retune(zones={}, lines={"door": DOOR})
    desk.do(Save("gate"))
    saved = load_settings(str(path), []).sources["gate"]
    assert (saved.zones, saved.lines) == ({}, {"door": DOOR}) and "# the gate" in path.read_text()
    assert run.asked == []
    assert told(run, Save("gate")).startswith("the run was started without --config FILE; start it with one that has")
    assert told(run, Save("yard")) == "the run has no source yard; those it has: gate"


def test_the_view_has_the_zones_and_lines_as_they_are() -> None:
    run = Remembered("gate")
    state = run.state.sources["gate"]
    state.settings = source(zones={"yard": YARD})
    (opening,) = view(run.state, run.settings).sources
    assert (opening.zones, opening.lines) == ({"yard": YARD}, {})
    state.hear(StreamStart("gate", 0, 5, True, "latest", 64, 64, None, None, 0.3, (), {}, {"door": DOOR}))
    (live,) = view(run.state, run.settings).sources
    assert (live.zones, live.lines) == ({}, {"door": DOOR})


def test_a_source_without_a_name_is_called_by_its_address() -> None:
    run = Remembered("192-0-2-7", "192-0-2-7-2")
    assert Desk(run, nothing_wrong).do(Add(source())) == Done("192-0-2-7-3 was added")


# -- a file that is followed


class Followed:
    """A file, and a run that follows it."""

    def __init__(self, path: Path, **sources: SourceSettings) -> None:
        self.run, self._path, self._now, self._seconds = Remembered(*sources), path, Settings(sources=sources), 0.0
        self.run.settings = self._now
        path.write_text("")
        self._follower = Follower(Watched(str(path), lambda: self._now), self.run, Desk(self.run, nothing_wrong))

    def say(self, **settings: object) -> list[tuple]:
        """The file says something else; what the run is asked then."""
        self._now = Settings(**settings)  # type: ignore[arg-type]
        self._path.write_text(self._path.read_text() + ".")
        self.run.asked.clear()
        for _ in range(2):  # it has to be left alone for a while
            self._seconds += 2
            self._follower.look(self._seconds)
        return self.run.asked


def test_zones_and_lines_follow_the_file_and_the_source_stays_open(tmp_path: Path) -> None:
    file = Followed(tmp_path / "my.yaml", gate=source(), door=source())
    with_zone, with_both = source(zones={"yard": YARD}), source(zones={"yard": YARD}, lines={"door": DOOR})
    told_of_zone, told_of_line = Retune(zones={"yard": YARD}), Retune(lines={"door": DOOR})
    assert file.say(sources={"gate": with_zone, "door": source()}) == [("tune", "gate", told_of_zone)]
    assert file.say(sources={"gate": with_both, "door": source()}) == [("tune", "gate", told_of_line)]
    assert file.say(sources={"gate": with_both, "door": source()}) == []
    assert file.say(sources={"gate": source(), "door": source()}) == [("tune", "gate", Retune(zones={}, lines={}))]
    another = source("rtsp://192.0.2.8/1", zones={"yard": YARD})
    assert ("remove", "door") in file.say(sources={"gate": source(), "door": another})


def test_a_zone_in_the_file_that_counts_what_is_not_looked_for_changes_nothing(tmp_path: Path) -> None:
    file = Followed(tmp_path / "my.yaml", gate=source())
    cars = PostprocessSettings(classes=("car",))
    assert file.say(sources={"gate": source(zones={"yard": YARD})}, postprocess=cars) == []
    said = "sources.gate.zones.yard.classes: 'person' is not looked for; what is looked for: car; nothing was changed"
    assert file.run.state.notes[-1].endswith(said)


# -- the command line


def request(*words: str) -> control.Request:
    """What the run is asked by a command line."""
    asked: list[control.Request] = []

    def tell(run: Path, request: control.Request) -> Sources:
        asked.append(request)
        return Sources([])

    with mock.patch.object(control, "find_run", lambda pid: Path()), mock.patch.object(control, "tell", tell):
        assert ctl.main(list(words)) == 0
    return asked[0]


def test_a_line_becomes_a_request(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    assert request("list") == List()
    assert request("stop", "--run", "7") == End()
    assert request("pause", "gate") == Hold("gate", True)
    assert request("resume", "gate") == Hold("gate", False)
    assert request("set", "gate", "score=0.5", "classes=person,car", "max_rate=5", "every=2") == Tune(
        "gate", 0.5, ("person", "car"), 5.0, 2
    )
    assert request("set", "gate", "classes=", "max_rate=null") == Tune("gate", classes=(), max_rate=0.0)
    assert request("add", "rtsp://u:p@h/1", "--name", "gate", "--max-rate", "5", "--every", "3") == Add(
        source("rtsp://u:p@h/1", max_rate=5.0, every=3), "gate"
    )
    monkeypatch.chdir(tmp_path)
    assert request("add", "clip.mp4") == Add(source(str(tmp_path / "clip.mp4")))
    assert request("add", "frames/*.jpg") == Add(source(str(tmp_path / "frames/*.jpg")))
    assert request("add", "lavfi:testsrc2") == Add(source("lavfi:testsrc2"))
    assert request("add", "0") == Add(source("0"))


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ([], "required: WORD"),
        (["burn"], "allowed is list or look or add or remove or pause or resume or set or save or stop"),
        (["add"], "required: SOURCE"),
        (["add", "x.mp4", "--every", "0"], "sources.source.every: got 0, allowed is a whole number at least 1"),
        (["add", "x.mp4", "--name", "../x"], "sources: got the key '../x', allowed is a name"),
        (["remove"], "required: NAME"),
        (["set", "gate"], "required: KEY=VALUE"),
        (["set", "gate", "colour=red"], "allowed is KEY=VALUE with a key of score, classes, max_rate, every"),
        (["set", "gate", "score"], "give it as key=value"),
        (["set", "gate", "score=2"], "infer.score_threshold: got 2, allowed is a number at least 0.0 and at most 1.0"),
        (["set", "gate", "every=0.5"], "sources.gate.every: got 0.5, allowed is a whole number"),
        (["list", "--run", "x"], "got 'x', allowed is a whole number"),
        (["list", "--verbos"], "there is no option --verbos"),
        (["pause", "gate", "door"], "what is 'door'?"),
    ],
)
def test_a_wrong_line_is_one_line_that_teaches(words: list[str], said: str) -> None:
    with pytest.raises(UsageError) as wrong:
        ctl.main(words)
    assert said in str(wrong.value) and "\n" not in str(wrong.value)


# -- the stages


def test_a_rate_can_be_changed_and_lifted() -> None:
    tuning = Tuning(None, 1)
    tuning.change(Retune(max_rate=1.0, every=3))
    assert [tuning.admits(seconds / 10) for seconds in range(12)] == [True] + [False] * 9 + [True, False]
    assert [tuning.leaves_unseen(seq) for seq in range(4)] == [False, True, True, False]
    tuning.change(Retune(score_threshold=0.5))
    assert not tuning.admits(1.5)
    tuning.change(Retune(max_rate=0.0))
    assert tuning.admits(1.6) and tuning.leaves_unseen(1)


def test_what_is_in_the_network_keeps_what_was_looked_for_when_it_was_taken() -> None:
    """Changes and ends go past the network, and overtake."""
    stage = Postprocess(mock.Mock(settings=Settings()))
    stage.begin(Start(CARD, mock.Mock(), []))
    start = StreamStart("gate", 0, 0, True, "latest", 64, 64, None, None, 0.3)
    stage.stream_started(start)
    stage.stream_started(msgspec.structs.replace(start, seq=5, classes=("car",)))

    def class_ids(seq: int) -> list[int]:
        stage.process(frame := network_frame(seq))
        return np.unique(frame.detections().class_ids).tolist()

    assert [class_ids(seq) for seq in (4, 5, 6)] == [[0, 1], [1], [1]]
    stage.stream_ended(EndOfStream("gate", 0, 8))
    assert class_ids(7) == [1]
    for number in range(2 * MOST_SOURCES):
        stage.stream_started(msgspec.structs.replace(start, source_id=f"s{number}"))
        stage.stream_ended(EndOfStream(f"s{number}", 0, 8))
    assert len(stage._wanted_of) == MOST_SOURCES


def network_frame(seq: int) -> Frame:
    """A peak of each class."""
    heat = np.full((2, 16, 16), -9.0, np.float32)
    heat[0, 4, 4] = heat[1, 10, 10] = 4.0
    frame = Frame(FrameHeader("gate", 0, seq, 0.0, 0, 0.0, 64, 64), {})
    frame.put("hm", heat)
    frame.put("wh", np.full((2, 16, 16), 3.0, np.float32))
    frame.put("reg", np.zeros((2, 16, 16), np.float32))
    return frame


# -- decoders


class Played:
    """A decoder at work in a thread; what it tells, in order."""

    def __init__(self, uri: str, **source_settings: object) -> None:
        pool = Pool(create_pool("frames", 8, 64 * 64 * 3 + 4096))
        self.told: list[Message] = []
        self.over = threading.Event()
        self.decode = Decode(
            mock.Mock(
                settings=Settings(sources={"gate": source(uri, **source_settings)}),
                source_id="gate",
                place=0,
                is_patient=False,
                pools={"frames": pool},
                lessor=Lessor(pool, 0, 8, 1),
                ledger=Ledger(create_ledger(1)),
                meter=Meter(False),
                stopped=self.over.is_set,
            )
        )
        self._thread = threading.Thread(target=self.decode.run, args=(self._take,))

    def start(self) -> None:
        self.decode.prepare()
        self.decode.begin(Start(CARD, Limits(8, 8, 1, 1, 1), []))
        self._thread.start()

    def _take(self, message: Message) -> None:
        self.told.append(message)
        if isinstance(message, Frame):
            message.give_back()

    @property
    def frames(self) -> int:
        return sum(isinstance(message, Frame) for message in self.told)

    def end(self) -> list[str]:
        self.over.set()
        self._thread.join()
        self.decode.close()
        return [m.state if isinstance(m, SignalChange) else type(m).__name__ for m in self.told]


def test_a_recording_that_is_played_at_its_own_speed_waits_while_it_is_paused() -> None:
    played = Played("lavfi:testsrc2=size=64x64:rate=50", realtime=True)
    played.start()
    wait_until(lambda: played.frames > 3, 20)
    played.decode.hear(Pause(True))
    wait_until(lambda: any(isinstance(message, SignalChange) for message in played.told), 20)
    before = played.frames
    assert not played.over.wait(0.5) and played.frames == before
    played.decode.hear(Pause(False))
    wait_until(lambda: played.frames > before, 20)
    assert [word for word in played.end() if word != "Frame"] == ["StreamStart", "paused", "live", "EndOfStream"]


@pytest.mark.parametrize("trouble", [OpeningStopped(parse_address(Uri("0"))), SourceError("refused")])
def test_whoever_was_told_of_a_source_is_told_of_its_end(trouble: SourceError) -> None:
    """One that was paused before it was open, and then could not be opened."""
    played = Played("rtsp://127.0.0.1:1/1")
    played.decode.hear(Pause(True))
    with mock.patch("pipeline.stages.decode.open_source", side_effect=trouble):
        played.start()
        wait_until(lambda: bool(played.told), 20)
        played.decode.hear(Pause(False))
        wait_until(lambda: len(played.told) == 3, 20)
    assert played.end() == ["paused", "live", "EndOfStream"]
