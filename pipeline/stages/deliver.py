"""deliver: draws, hands each frame to the outputs, and tells its fate.

An output that fails is closed; the others go on.
Outputs are opened when a source has given its first frame: a run that does not come so far leaves earlier results as
they are.
"""

import importlib
import time
from functools import partial, reduce
from operator import or_
from typing import TYPE_CHECKING, Any

from configs.uri import shown_text
from pipeline.errors import OutputError
from pipeline.flow.detections import Detections
from pipeline.flow.events import Counts
from pipeline.flow.fates import DELIVERED, FAILED, LOST, NO_OUTPUT
from pipeline.flow.frame import Frame
from pipeline.flow.heat import heat_of
from pipeline.flow.messages import EndOfStream, FrameHeader, Hop, SignalChange, Start, StreamStart, WantPixels
from pipeline.flow.results import FrameResult
from pipeline.kinds import SINKS, SOURCE
from pipeline.outputs import Output, Ticket
from pipeline.shapes import Layout
from pipeline.sinks import Image, Target
from pipeline.stage import FRAMES, PUBLISHED, SERVE, Kit, Stage

if TYPE_CHECKING:
    from pipeline.overlay import Overlay

STILL_SECONDS = 1.0
# The first frame of a signal that is back was taken before deliver hears of either: a still that claimed to be of now
# could stand in its place in a video, and everything after it would be shown a frame too late.
ON_ITS_WAY_SECONDS = 0.5
NO_COUNTS = Counts((), {}, {})


class _Source:
    """What deliver knows of a source; of its last frame, the picture that is shown while its signal is lost."""

    def __init__(self, score_threshold: float) -> None:
        self.score_threshold = score_threshold
        self.layout = Layout()
        self.frames_per_second: float | None = None
        self.may_wait = False
        self.signal: SignalChange | None = None
        self.last: tuple[Ticket, FrameResult, Image] | None = None
        self.still_due = 0.0

    def keep(self, ticket: Ticket, result: FrameResult, image_bgr: Image) -> None:
        self.let_go()
        ticket.hold()
        self.last = (ticket, result, image_bgr)

    def let_go(self) -> None:
        if self.last:
            self.last[0].release()
            self.last = None


class Deliver(Stage):
    """The outputs' process. A frame is delivered when an output took it, or when none was asked for."""

    in_order = True
    sees_all = True

    def __init__(self, kit: Kit) -> None:
        super().__init__(kit)
        self._settings = kit.settings.deliver
        self._wanted = self._settings.outputs()
        if kit.settings.serve.at:
            self._wanted[SERVE] = ("publish", f"{kit.endpoints}/{PUBLISHED}")
        self._looked_at: dict[str, WantPixels] = {}
        self._outputs: dict[str, Output] = {}
        self._sources: dict[str, _Source] = {}
        self._overlay: Overlay | None = None
        self._written: set[str] = set()
        self._closing: dict[str, list[Output]] = {}
        self._lost: dict[int, set[int]] = {}
        self._modules: dict[str, Any] = {}

    def prepare(self) -> None:
        for kind, _ in self._wanted.values():  # only what is wanted is imported, and before the first frame
            self._modules[kind] = importlib.import_module(SINKS[kind].module)
        if self._settings.has_pictures():
            from pipeline.overlay import Overlay

            self._overlay = Overlay()
        if "window" in self._modules:
            self.kit.tell("looking for a screen")
            self._modules["window"].check_screen()
        for module in self._modules.values():
            if hasattr(module, "check_encoder"):
                module.check_encoder(self._settings.encoder)
            if hasattr(module, "check_library"):
                module.check_library()

    def begin(self, start: Start) -> None:
        self._class_names = start.model.class_names

    # -- sources

    def _source(self, source_id: str) -> _Source:
        if source_id not in self._sources:
            self._sources[source_id] = _Source(self.kit.settings.infer.score())
        return self._sources[source_id]

    def stream_started(self, start: StreamStart) -> None:
        if start.source_id not in self._sources and self.kit.incarnation:
            self._tell_lost(start)
        source = self._source(start.source_id)
        source.score_threshold = start.score_threshold
        source.layout = Layout(start.zones, start.lines)
        source.frames_per_second = start.frames_per_second
        source.may_wait = start.policy == "block"

    def _tell_lost(self, start: StreamStart) -> None:
        """What an earlier process took and told nothing of, now before anything new of the source. What had slots the
        supervisor tells us of as well."""
        lost = self.kit.ledger.untold(start.place, "deliver")
        self._lost[start.place] = set(lost)
        now_ns, now_unix = time.monotonic_ns(), time.time()
        for seq in lost:
            header = FrameHeader(
                start.source_id, start.place, seq, 0.0, now_ns, now_unix, 0, 0, dropped=LOST["deliver"]
            )
            self.process(Frame(header, {}))

    def signal_changed(self, signal: SignalChange) -> None:
        self._source(signal.source_id).signal = signal
        for output in self._open_outputs(signal.source_id):
            output.record(signal)

    def stream_ended(self, end: EndOfStream) -> None:
        if end.failure is None:
            for output in self._open_outputs(end.source_id):
                output.open()
        self._lost.pop(end.place, None)
        if source := self._sources.pop(end.source_id, None):
            source.let_go()
        if self._overlay:
            self._overlay.forget(end.source_id)
        own = [name for name in self._outputs if name.endswith(f" ({end.source_id})")]
        self._let_pass()
        for output in self._outputs.values():
            output.end(end.source_id)
        self._closing[end.source_id] = [self._outputs.pop(name) for name in own]
        for output in self._closing[end.source_id]:
            output.close()
        self._look_closing()

    def _let_pass(self) -> None:
        """Whatever is to be offered to an output is, before one is closed."""
        for output in self._outputs.values():
            output.let_pass()

    def _look_closing(self) -> None:
        """A source has ended when its own outputs are closed; the others do not wait for that."""
        for source_id, outputs in list(self._closing.items()):
            if all(output.is_closed for output in outputs):
                del self._closing[source_id]
                self.kit.say_ended(source_id)

    # -- outputs

    def _open_outputs(self, source_id: str) -> list[Output]:
        """All that take this source, opened if they are not yet."""
        outputs = []
        for plain_name, (kind, path) in self._wanted.items():
            name = output_name(plain_name, path, source_id)
            if name not in self._outputs:
                self._outputs[name] = self._open(name, kind, path.replace(SOURCE, source_id), source_id)
            outputs.append(self._outputs[name])
        return outputs

    def _open(self, name: str, kind: str, path: str, source_id: str) -> Output:
        source, goes_on = self._source(source_id), self.kit.incarnation > 0 or name in self._written
        minutes = None if source.may_wait else self._settings.segment_minutes
        segment_seconds = None if minutes is None else 60 * minutes
        rotate_megabytes = self._settings.rotate_megabytes
        target = Target(
            path,
            source.frames_per_second,
            goes_on,
            segment_seconds,
            encoder=self._settings.encoder,
            record=self._settings.record,
            want=partial(self._want_pictures, name),
            rotate_bytes=None if rotate_megabytes is None else round(rotate_megabytes * 1e6),
            keep_files=self._settings.keep_files,
            spool=self._settings.spool,
            classes=self.kit.settings.postprocess.classes,
            warn=self.kit.meter.warn,
        )
        self._written.add(name)
        where = "" if name == SERVE else shown_text(path) if SINKS[kind].schemes else path
        counts = self.kit.meter.output(name, where)
        make = partial(self._modules[kind].open_sink, target)
        return Output(name, counts, make, self._failed, lambda: self.kit.ask_stop(True), SINKS[kind])

    def _want_pictures(self, name: str, wanted: WantPixels) -> None:
        """By an output's thread: somebody looks at these there."""
        self._looked_at[name] = wanted
        self.kit.want_pictures(reduce(or_, self._looked_at.values()))

    def _failed(self, error: OutputError) -> None:
        """What becomes of the run; without outputs nobody would see what is computed from here on."""
        self.problem = self.problem or error
        goes_on = any(output.counts.problem is None for output in self._outputs.values())
        self.kit.meter.warn(f"{error}; {'the other outputs go on' if goes_on else 'no output is left, the run ends'}")
        if not goes_on:
            self.kit.ask_stop(False)

    # -- frames

    def process(self, frame: Frame) -> None:
        header = frame.header
        if header.reclaimed and header.seq in self._lost.get(header.place, ()):
            return
        source = self._source(header.source_id)
        result = self._result(frame, source)
        image_bgr = frame.array("image_bgr") if "image_bgr" in frame else None
        ticket = Ticket(frame, self._tell)
        outputs = self._open_outputs(header.source_id)
        self._show(outputs, ticket, result, image_bgr)
        outputs = [output for output in outputs if not output.kind.on_demand]
        if image_bgr is not None and self._overlay and self._settings.overlay:
            self._overlay.draw(image_bgr, result)
        self._offer(outputs, ticket, result, image_bgr, source.may_wait)
        if image_bgr is not None and self._overlay and not source.may_wait:
            source.keep(ticket, result, image_bgr)
        ticket.release(taken=not outputs)

    def _show(self, outputs: list[Output], ticket: Ticket, result: FrameResult, image_bgr: Image | None) -> None:
        """To those on demand, which keep nobody waiting and have no say in a frame's fate."""
        for output in (output for output in outputs if output.kind.on_demand and output.is_heard):
            is_wanted = result.source_id in self._looked_at.get(output.name, WantPixels()).source_ids
            clean_bgr = image_bgr if is_wanted else None
            if clean_bgr is not None and self._overlay and self._settings.overlay:
                clean_bgr = clean_bgr.copy()  # the others' is drawn on
            output.offer(ticket, result, clean_bgr, may_wait=False)

    @staticmethod
    def _offer(
        outputs: list[Output], ticket: Ticket, result: FrameResult, image_bgr: Image | None, may_wait: bool
    ) -> None:
        """To all; to the others once its line is written and its fate told: so no picture is without a line, whenever
        this process is lost. Lines that are behind keep nobody waiting."""
        lines = next((output for output in outputs if output.kind.has_fates), None)
        others = [output for output in outputs if output is not lines]

        def go_on() -> None:
            for output in others:
                output.offer(ticket, result, image_bgr if output.kind.has_pictures else None, may_wait)

        if lines and not may_wait and lines.is_behind(result.source_id):
            lines.let_pass()
            lines.offer(ticket, result, image_bgr, may_wait)
            go_on()
        elif not (lines and lines.offer(ticket, result, image_bgr, may_wait, go_on)):
            go_on()

    def _tell(self, frame: Frame, taken: bool) -> None:
        header = frame.header
        if header.dropped:
            self.kit.ledger.tell(header.place, header.dropped, header.seq)
            return
        for slot in header.leases:
            if slot.pool == FRAMES:
                self.kit.pools[FRAMES].tell(slot)
        fate = NO_OUTPUT if not taken else FAILED if header.failure else DELIVERED
        self.kit.ledger.tell(header.place, fate, header.seq)
        if fate is DELIVERED:
            self._tell_still(header)
        self.kit.meter.delivered(header, time.monotonic_ns())

    def _tell_still(self, header: FrameHeader) -> None:
        if header.same_as is not None:
            self.kit.ledger.tell_taken_over(header.place)
        if header.audit:
            self.kit.ledger.tell_audit(header.place, header.audit)

    def _result(self, frame: Frame, source: _Source) -> FrameResult:
        header = frame.header
        has_result = header.failure is None and header.dropped is None
        now_ns = time.monotonic_ns()
        counts = (header.counts if has_result else None) or NO_COUNTS
        here = () if header.dropped else (Hop("deliver", now_ns, now_ns),)
        return FrameResult(
            source_id=header.source_id,
            seq=header.seq,
            pts_seconds=header.pts_seconds,
            captured_unix=header.captured_unix,
            width=header.width,
            height=header.height,
            clock=header.clock,
            failure=header.failure,
            dropped=header.dropped,
            predicted=header.unseen and has_result,
            latency_ms=(now_ns - header.captured_ns) / 1e6,
            detections=frame.detections() if has_result else Detections.empty(),
            score_threshold=source.score_threshold,
            class_names=self._class_names,
            frames_per_second=self.kit.meter.recent_per_second() or None,
            taken_from=header.same_as if has_result else None,
            layout=source.layout,
            zones=counts.zones,
            lines=counts.lines,
            events=counts.events,
            captured_ns=header.captured_ns,
            heat=heat_of(frame),
            trace=(*header.trace, *here),
        )

    # -- while a signal is lost

    def idle(self) -> None:
        """The last picture of each source whose signal is lost, greyed, once a second."""
        self._look_closing()
        for output in self._outputs.values():
            if output.kind.on_demand:
                output.look()
        now, known_unix = time.monotonic(), time.time() - ON_ITS_WAY_SECONDS
        for source in self._sources.values():
            signal = source.signal
            if signal is None or signal.state != "lost" or not source.last or now < source.still_due:
                continue
            if (lost_seconds := known_unix - signal.at_unix) >= 0:
                source.still_due = now + STILL_SECONDS
                self._draw_still(source, signal, lost_seconds)

    def _draw_still(self, source: _Source, signal: SignalChange, lost_seconds: float) -> None:
        assert source.last and self._overlay
        _, result, image_bgr = source.last
        still_bgr = self._overlay.without_signal(image_bgr, signal.cause, signal.at_unix, lost_seconds)
        for output in (each for each in self._open_outputs(result.source_id) if not each.kind.on_demand):
            output.still(result.source_id, result.pts_seconds + lost_seconds, still_bgr)

    def close(self) -> None:
        for source in self._sources.values():
            source.let_go()
        self._let_pass()
        for output in self._outputs.values():
            output.close()
        for output in [*self._outputs.values(), *(each for own in self._closing.values() for each in own)]:
            output.join()


def output_name(name: str, path: str, source_id: str) -> str:
    """What an output is called: one for all sources, or each source's own."""
    return f"{name} ({source_id})" if SOURCE in path else name
