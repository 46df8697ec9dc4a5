"""One stage on the workbench: a kit of real pools, a real ledger and meter, and lists of what the stage said.

No socket, no process and no supervisor: what a worker would do around a stage, a test does by itself.
"""

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

from pipeline.flow.detections import Detections
from pipeline.flow.frame import Frame, Message
from pipeline.flow.ledger import Ledger, create_ledger
from pipeline.flow.messages import (
    EndOfStream,
    FrameHeader,
    Hop,
    Limits,
    ModelCard,
    SignalChange,
    Slot,
    Start,
    StreamStart,
    WantPixels,
)
from pipeline.flow.metrics import Meter
from pipeline.flow.sharedmem import Lessor, Pool, create_pool
from pipeline.settings import Settings, SourceSettings
from pipeline.stage import FRAMES, HEATMAPS, Kit
from pipeline.stages.decode import Decode

CARD = ModelCard("m", "w", ("person", "car"), 512, 512, 512, 512, 4, "stretch", "cpu", "eager", {}, "fp32", 1, 1)
SMALL_CARD = ModelCard("m", "w", ("person", "car"), 64, 64, 64, 64, 4, "stretch", "cpu", "eager", {}, "fp32", 1, 1)
LIMITS = Limits(ahead=6, of_source=8, waiting=1, lanes=1, round=1)
# Numbers of workers, as the slots' table knows them.
DECODER, STAGE, NEXT_STAGE = 1, 2, 3
SLOT_BYTES = 4 << 20


def start_of(source_id: str = "door", place: int = 0, **changes: object) -> StreamStart:
    """A file's, in which everything waits, where nothing else is said."""
    facts: dict = {"source_id": source_id, "place": place, "seq": 0, "is_live": False, "policy": "block"}
    facts |= {"width": 640, "height": 480, "frames_per_second": 10.0, "frame_count": None, "score_threshold": 0.3}
    return StreamStart(**(facts | changes))


def live(source_id: str = "door", place: int = 0, **changes: object) -> StreamStart:
    return start_of(source_id, place, **({"is_live": True, "policy": "latest"} | changes))


def end_of(seq: int, source_id: str = "door", place: int = 0) -> EndOfStream:
    return EndOfStream(source_id, place, seq)


def signal_of(state: str, seq: int = 0, source_id: str = "door", at_unix: float = 0.0) -> SignalChange:
    return SignalChange(source_id, 0, seq, state, "", at_unix, None)  # type: ignore[arg-type]


def header_of(seq: int = 0, source_id: str = "door", place: int = 0, **changes: object) -> FrameHeader:
    facts: dict = {"source_id": source_id, "place": place, "seq": seq, "pts_seconds": seq / 10, "captured_ns": 0}
    facts |= {"captured_unix": 0.0, "width": 640, "height": 480, "trace": [Hop("decode", 0, 0)]}
    return FrameHeader(**(facts | changes))


class Bench:
    """`kit()` for a stage, and `frame()`s for it, each with its slot as a decoder would have leased it.

    models    what it said of the network, later than when it was ready
    ended     sources whose last frame met its fate, as the stage said it
    looked_at the pictures and heat maps that it asked for, each time
    stops     what it said with each wish that the run stops: whether the user wants it
    stop      set it, and the stage is told to take no more frames
    endpoints where the run's queues would be
    """

    endpoints = "inproc://bench"

    def __init__(
        self, sources: dict[str, SourceSettings] | None = None, slots: int = 8, slot_bytes: int = SLOT_BYTES, **parts
    ) -> None:
        self.settings = Settings(sources=sources or {"door": SourceSettings(uri="x")}, **parts)
        self.pools = {name: Pool(create_pool(name, slots, slot_bytes)) for name in (FRAMES, HEATMAPS)}
        self.ledger = Ledger(create_ledger(4))
        self.decoder = Lessor(self.pools[FRAMES], 0, slots, DECODER)
        self.meter = Meter(owns_process=True)
        self.models: list[ModelCard] = []
        self.ended: list[str] = []
        self.looked_at: list[WantPixels] = []
        self.stops: list[bool] = []
        self.stop = threading.Event()
        self._slots = slots

    def kit(self, leases_from: str = "", source_id: str = "door", incarnation: int = 0, patient: bool = False) -> Kit:
        pool = self.pools.get(leases_from)
        return Kit(
            settings=self.settings,
            source_id=source_id,
            place=list(self.settings.sources).index(source_id),
            is_patient=patient,
            incarnation=incarnation,
            endpoints=self.endpoints,
            pools=self.pools,
            lessor=Lessor(pool, 0, self._slots, DECODER if leases_from == FRAMES else STAGE) if pool else None,
            ledger=self.ledger,
            meter=self.meter,
            tell=lambda doing: None,
            say_model=self.models.append,
            say_ended=self.ended.append,
            want_pictures=self.looked_at.append,
            ask_stop=self.stops.append,
            stopped=self.stop.is_set,
        )

    def lease(self, seq: int = 0, place: int = 0) -> Slot:
        slot = self.decoder.lease(place, seq)
        assert slot, "no slot is free"
        return slot

    def frame(
        self, seq: int = 0, source_id: str = "door", place: int = 0, input_side: int | None = None, **changes: object
    ) -> Frame:
        slot = self.lease(seq, place)
        frame = Frame(header_of(seq, source_id, place, leases=[slot], **changes), self.pools)
        if input_side:
            frame.place("input_rgb", slot, "uint8", (input_side, input_side, 3))[:] = 127
        return frame

    def result(self, seq: int = 0, source_id: str = "door", place: int = 0, picture: bool = False, **changes) -> Frame:
        """A frame as it comes to deliver: with detections (none), and a grey picture on request."""
        frame = self.frame(seq, source_id, place, **({"width": 64, "height": 48} | changes))
        if picture:
            frame.place("image_bgr", frame.header.leases[0], "uint8", (48, 64, 3))[:] = 50 + seq
        frame.put_detections(Detections.empty())
        return frame

    def leased(self, pool: str = FRAMES) -> int:
        """Slots that somebody has."""
        return self.pools[pool].leased(0, self._slots)

    @contextmanager
    def decoding(
        self, incarnation: int = 0, keeps: bool = False, seconds_each: float = 0.0, card: ModelCard = SMALL_CARD
    ) -> Iterator["Decoding"]:
        """A decoder at work. A frame's slots are given back at once, unless `keeps`, and then by who calls this; each
        message takes `seconds_each`."""
        with Decoding(self, card, incarnation, keeps, seconds_each).running() as decoding:
            yield decoding


class Decoding:
    """A decoder in a thread of its own, and what it said."""

    def __init__(self, bench: Bench, card: ModelCard, incarnation: int, keeps: bool, seconds_each: float) -> None:
        self.said: list[Message] = []
        self.keeps, self._seconds_each = keeps, seconds_each
        self.stage = Decode(bench.kit(FRAMES, incarnation=incarnation))
        self._bench, self._card = bench, card
        self._failure: BaseException | None = None
        self._thread = threading.Thread(target=self._run, daemon=True)

    @contextmanager
    def running(self) -> Iterator["Decoding"]:
        self.stage.prepare()
        self.stage.begin(Start(self._card, LIMITS, []))
        self._thread.start()
        try:
            yield self
        finally:
            self._bench.stop.set()
            self._thread.join(20)
            self.stage.close()
        if self._failure:
            raise self._failure

    def to_its_end(self) -> "Decoding":
        self._thread.join(60)
        assert not self._thread.is_alive(), "the source did not end"
        return self

    def _run(self) -> None:
        try:
            self.stage.run(self._heard)
        except BaseException as error:
            self._failure = error

    def _heard(self, message: Message) -> None:
        self.said.append(message)
        if isinstance(message, Frame) and not self.keeps:
            message.give_back()
        time.sleep(self._seconds_each)

    def frames(self) -> list[Frame]:
        return [message for message in self.said if isinstance(message, Frame)]

    def words(self) -> list[Message]:
        return [message for message in self.said if not isinstance(message, Frame)]
