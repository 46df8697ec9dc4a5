"""decode: opens a source, and puts each frame into a slot of shared memory, scaled to the network's input.

Full-size pixels go along only for who wants them of deliver; the page is shown pictures from here. Knows no network,
only the size of its input.
"""

import threading
import time
from collections.abc import Iterator
from dataclasses import asdict

from msgspec.structs import replace

from pipeline.errors import SourceError
from pipeline.flow.fates import ABOVE_RATE, LATE, NO_SLOT, Drop
from pipeline.flow.frame import Frame, Message
from pipeline.flow.messages import (
    EndOfStream,
    FrameHeader,
    Hop,
    Outage,
    Pause,
    Pixels,
    Policy,
    Retune,
    SignalChange,
    SignalState,
    Slot,
    Start,
    StreamStart,
)
from pipeline.flow.sharedmem import aligned
from pipeline.onlooker import PageOnlooker
from pipeline.source_address import parse_address
from pipeline.sources import (
    CapturedFrame,
    Item,
    LeftOut,
    OpeningStopped,
    Signal,
    Source,
    SourceInfo,
    open_source,
)
from pipeline.sources.pixels import PixelConverter
from pipeline.stage import FRAMES, SHOWN, Emit, Kit, SourceStage

# Slots come back without a word: so soon a decoder that waits for one looks, and then ever less often.
LOOK_SECONDS, LONGEST_LOOK_SECONDS = 0.002, 0.008
PAUSE_SECONDS = 0.05


class Decode(SourceStage):
    """A source's process."""

    def __init__(self, kit: Kit) -> None:
        super().__init__(kit)
        self._settings = kit.settings.sources[kit.source_id]
        self._always_full_size = self._full_size = kit.settings.deliver.has_pictures()
        self._always_watched = self._is_watched = kit.settings.deliver.show
        self._may_block = parse_address(self._settings.uri).may_block
        is_shown = kit.settings.serve.at is not None
        self._page = PageOnlooker(f"{kit.endpoints}/{SHOWN}", kit.source_id, self._warn) if is_shown else None
        self._source: Source | None = None
        self._start: StreamStart | None = None
        self._tuning = Tuning(self._settings.max_rate, self._settings.every)
        self._slot: Slot | None = None
        self._offset_seconds: float | None = None
        self._converter = PixelConverter()
        self._has_told = False
        self._paused = threading.Event()
        self._retune: Retune | None = None

    def prepare(self) -> None:
        # What a camera sent while the network loads would be old before it is looked at: it is opened last.
        if not self._may_block:
            self._source = self._open()

    def _open(self) -> Source:
        self.kit.tell("opening the source")
        self._offset_seconds = None
        source = open_source(
            self._settings,
            self.kit.source_id,
            self._interrupted,
            patiently=self.kit.is_patient,
            onlooker=self._page,
        )
        self.kit.meter.figures = source.health.figures
        return source

    def begin(self, start: Start) -> None:
        self._model = start.model
        self._limits = start.limits
        self._set_limit()
        self._began_ns = time.monotonic_ns()

    def _set_limit(self) -> None:
        assert self.kit.lessor is not None
        self.kit.lessor.limit = self._limits.of_source - self._limits.spare * (self._policy == "latest")

    def hear(self, word: Pause | Pixels | Retune) -> None:
        match word:
            case Retune():
                self._retune = word
            case Pixels():
                self._full_size = self._always_full_size or word.wanted
                self._is_watched = self._always_watched or word.wanted
            case Pause(paused=True):
                self._paused.set()
            case Pause():
                self._paused.clear()

    def _interrupted(self) -> bool:
        """What ends a live source's frames for now: it is left while it is paused. A recording just waits."""
        return self.kit.stopped() or (self._may_block and self._paused.is_set())

    # -- the stream

    def run(self, emit: Emit) -> None:
        self._pass_on = emit
        self._seq = self.kit.ledger.captured(self.kit.place)
        failure: str | None = None
        try:
            while True:
                self._wait_while_paused()
                if self.kit.stopped():
                    break
                source = self._source = self._source or self._open()
                self._play(source)
                if not (self._may_block and self._paused.is_set()):
                    self._tell_troubles(source)
                    failure = source.failure
                    break
                source.close()
                self._source = None
        except OpeningStopped:
            if not self._has_told and not self._seq:
                return
        except SourceError as error:
            if not self._has_told and not self._seq:
                raise
            self.problem, failure = error, str(error)
        emit(EndOfStream(self.kit.source_id, self.kit.place, self._seq, failure))

    def _emit(self, message: Message) -> None:
        self._has_told = True  # and who was told of a source waits for its end
        self._pass_on(message)

    def _wait_while_paused(self) -> None:
        if not self._paused.is_set():
            return
        began_unix = time.time()
        self._say_signal("paused", "paused on request", began_unix, None)
        while self._paused.is_set() and not self.kit.stopped():
            time.sleep(PAUSE_SECONDS)
        pause = Outage("paused", "paused on request", began_unix, time.time(), 0)
        self._say_signal("live", "", time.time(), pause)

    def _play(self, source: Source) -> None:
        """Until the source ends, or its frames are interrupted."""
        for item in self._with_room(source):
            match item:
                case SourceInfo():
                    self._tell_start(item)
                case Signal():
                    self._tell_signal(item)
                case CapturedFrame() | LeftOut():
                    self._take(item)

    def _with_room(self, source: Source) -> Iterator[Item]:
        items = iter(source.frames(self._interrupted))
        done = 0 if self._may_block else self._seq
        most = self._settings.max_frames
        while (most is None or self._seq < most) and self._make_room() and (item := next(items, None)) is not None:
            if done and isinstance(item, CapturedFrame | LeftOut):
                done -= 1  # an earlier process of this run has told of it
                continue
            yield item

    def _make_room(self) -> bool:
        """Where nothing may be dropped, wait for a free slot before a frame is taken, so that a stop meanwhile loses
        none. False when there is to be no further frame."""
        if not self._may_block:
            self._wait_while_paused()
        wait_seconds = LOOK_SECONDS
        while self._policy == "block" and (self._slot is None or self._paused.is_set()):
            if self.kit.stopped():
                return False
            if self._paused.is_set():
                self._wait_while_paused()
            elif self._slot is None and (slot := self._lease()) is None:
                time.sleep(wait_seconds)
                wait_seconds = min(2 * wait_seconds, LONGEST_LOOK_SECONDS)
            else:
                self._slot = slot
        self._free_ns = time.monotonic_ns()
        return True

    @property
    def _policy(self) -> Policy:
        return self._start.policy if self._start else "latest"

    def _lease(self) -> Slot | None:
        assert self.kit.lessor is not None
        return self.kit.lessor.lease(self.kit.place, self._seq)

    def _tell_start(self, info: SourceInfo) -> None:
        queue, wish = self.kit.settings.queue, self.kit.settings
        usual: Policy = "latest" if info.is_live else "block"
        count = info.frame_count
        if count is not None and self._settings.max_frames is not None:
            count = min(count, self._settings.max_frames)
        before = self._start
        self._start = StreamStart(
            source_id=self.kit.source_id,
            place=self.kit.place,
            seq=self._seq,
            is_live=info.is_live,
            policy=usual if queue.policy == "auto" else queue.policy,
            width=info.width,
            height=info.height,
            frames_per_second=info.frames_per_second,
            frame_count=count or self._settings.max_frames,
            score_threshold=before.score_threshold if before else wish.infer.score(),
            classes=before.classes if before else wish.postprocess.classes,
            zones=before.zones if before else self._settings.zones,
            lines=before.lines if before else self._settings.lines,
        )
        self._set_limit()
        self._emit(self._start)

    def _tell_signal(self, signal: Signal) -> None:
        outage = Outage(**asdict(signal.outage)) if signal.outage else None
        self._say_signal(signal.state, signal.cause, signal.at_unix, outage)

    def _say_signal(self, state: SignalState, cause: str, at_unix: float, outage: Outage | None) -> None:
        self._emit(SignalChange(self.kit.source_id, self.kit.place, self._seq, state, cause, at_unix, outage))

    def _apply_retune(self) -> None:
        word, self._retune = self._retune, None
        if word is None or self._start is None:
            return
        self._tuning.change(word)
        told = ("score_threshold", "classes", "zones", "lines")
        changes = {key: value for key in told if (value := getattr(word, key)) is not None}
        if changes:
            self._start = replace(self._start, seq=self._seq, **changes)
            self._emit(self._start)

    def _tell_troubles(self, source: Source) -> None:
        told = source.troubles()
        if repaired := source.health.repaired_times:
            told.append(f"{repaired} time stamps were repaired: they jumped, did not grow or were missing")
        for trouble in told:
            self._warn(trouble)
        if source.failure:
            self.problem = SourceError(f"{self.kit.source_id}: {source.failure}")

    def _warn(self, trouble: str) -> None:
        self.kit.meter.warn(f"{self.kit.source_id}: {trouble}")

    # -- frames

    def _take(self, taken: CapturedFrame | LeftOut) -> None:
        if self._retune:
            self._apply_retune()
        now_ns = time.monotonic_ns()
        captured_ns = now_ns if isinstance(taken, LeftOut) else taken.captured_ns
        pts_seconds = self._continued(taken.pts_seconds, captured_ns)
        self.kit.ledger.capture(self.kit.place, pts_seconds, captured_ns)
        if isinstance(taken, LeftOut):
            self._drop(pts_seconds, captured_ns, LATE)
        elif not self._tuning.admits(pts_seconds):
            self._drop(pts_seconds, captured_ns, ABOVE_RATE)
        elif frame := self._place(taken, pts_seconds):
            self._emit(frame)
            if self._page:  # after: while the frame is computed
                self._page.show(taken.video_frame, taken.rotation_degrees, frame.header.captured_ns)
        else:
            self._drop(pts_seconds, captured_ns, NO_SLOT)
        self._seq += 1

    def _continued(self, pts_seconds: float, captured_ns: int) -> float:
        """The source's time goes on where an earlier connection, or process, left it, by what has passed meanwhile."""
        if self._offset_seconds is None:
            self._offset_seconds = 0.0
            last_seconds, last_ns = self.kit.ledger.last_capture(self.kit.place)
            if last_ns and self._start and self._start.is_live:
                passed_seconds = max(1e-3, (captured_ns - last_ns) / 1e9)
                self._offset_seconds = last_seconds + passed_seconds - pts_seconds
        return pts_seconds + self._offset_seconds

    def _drop(self, pts_seconds: float, captured_ns: int, fate: Drop) -> None:
        """A frame that goes no further: its header does."""
        if self._slot:  # it is the next one's, and says so before: else who waits for this one would wait for ever
            assert self.kit.lessor is not None
            self.kit.lessor.keep_for(self._slot, self._seq + 1)
        captured_unix = time.time() - (time.monotonic_ns() - captured_ns) / 1e9
        header = FrameHeader(
            self.kit.source_id, self.kit.place, self._seq, pts_seconds, captured_ns, captured_unix, 0, 0, dropped=fate
        )
        self._emit(Frame(header, self.kit.pools))

    def _place(self, captured: CapturedFrame, pts_seconds: float) -> Frame | None:
        """The frame in shared memory; None when there is no room for it."""
        slot, self._slot = self._slot or self._lease(), None
        if slot is None:
            return None
        frame = Frame(self._header(captured, pts_seconds, slot), self.kit.pools)
        # Waiting for a slot, or behind the frame before in the decoder's own queue, is waiting, not work: it comes
        # before the hop.
        entered_ns = max(frame.header.captured_ns, self._free_ns)
        self._fill(frame, captured, slot)
        frame.header.trace.append(Hop("decode", entered_ns, time.monotonic_ns()))
        self.kit.meter.passed(frame.header)
        return frame

    def _header(self, captured: CapturedFrame, pts_seconds: float, slot: Slot) -> FrameHeader:
        # A file's first frame was decoded to see whether it is a video at all, while the network was loading:
        # its life in the pipeline begins with the others'.
        early_ns = max(0, self._began_ns - captured.captured_ns)
        return FrameHeader(
            source_id=self.kit.source_id,
            place=self.kit.place,
            seq=self._seq,
            pts_seconds=pts_seconds,
            captured_ns=captured.captured_ns + early_ns,
            captured_unix=captured.captured_unix + early_ns / 1e9,
            clock=captured.clock,
            width=captured.width,
            height=captured.height,
            may_wait=self._policy == "block",
            watched=self._is_watched or (self._page is not None and self._page.wants_pictures()),
            unseen=self._tuning.leaves_unseen(self._seq),
            leases=[slot],
        )

    def _fill(self, frame: Frame, captured: CapturedFrame, slot: Slot) -> None:
        model, picture, turn = self._model, captured.video_frame, captured.rotation_degrees
        width, height = model.input_width, model.input_height
        input_bytes = 0
        if not frame.header.unseen:
            input_hwc = frame.place("input_rgb", slot, "uint8", (model.padded_height, model.padded_width, 3))
            input_hwc[height:] = input_hwc[:, width:] = 0
            input_bytes = input_hwc.nbytes
            self._converter.write_input(picture, turn, input_hwc[:height, :width], model.resize)
        if self._full_size:
            try:
                image_hwc = frame.place("image_bgr", slot, "uint8", (captured.height, captured.width, 3))
            except ValueError:
                raise self._too_large(captured.width, captured.height, input_bytes) from None
            self._converter.write_bgr(picture, turn, image_hwc)

    def _too_large(self, width: int, height: int, taken_bytes: int) -> SourceError:
        """Only pixels in full size can be too many: the network's input has the same size whatever the source has."""
        most_pixels = (self.kit.pools[FRAMES].spec.slot_bytes - aligned(taken_bytes)) // 3
        return SourceError(
            f"{self.kit.source_id}: a frame of {width}x{height} has {width * height / 1e6:.1f} million pixels, a video "
            f"or window can take {most_pixels / 1e6:.1f} million: make it smaller, or run without video and window"
        )

    def close(self) -> None:
        if self._source:
            self._source.close()
        if self._page:
            self._page.close()
        if self._slot:  # taken for a frame that never came
            self.kit.pools[FRAMES].end_lease(self._slot)


class Tuning:
    """Which frames are looked at: so many a second at most, and of those one in so many."""

    def __init__(self, max_rate: float | None, every: int) -> None:
        self._max_rate, self._every = max_rate, every
        self._next_seconds = 0.0

    def change(self, word: Retune) -> None:
        self._max_rate = self._max_rate if word.max_rate is None else word.max_rate or None
        self._every = word.every or self._every

    def admits(self, pts_seconds: float) -> bool:
        """Whether the frame is let in; the rate holds on average, whatever the source's own is."""
        if self._max_rate is None:
            return True
        period_seconds = 1 / self._max_rate
        if pts_seconds < self._next_seconds - 1e-6:
            return False
        self._next_seconds = max(self._next_seconds + period_seconds, pts_seconds)
        return True

    def leaves_unseen(self, seq: int) -> bool:
        return seq % self._every != 0
