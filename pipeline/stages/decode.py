"""decode: opens the source, and puts each frame into a slot of shared memory, scaled to the network's input.

Full-size pixels go along only when someone will look at them. Knows no network, only the size of its input.
"""

import time
from collections.abc import Callable

from pipeline.errors import SourceError
from pipeline.frame import Frame, Message
from pipeline.messages import EndOfStream, FrameHeader, Hop, ModelCard, Policy, Slot, StreamStart
from pipeline.pixels import PixelConverter
from pipeline.settings import QueueSettings, SourceSettings
from pipeline.sharedmem import aligned
from pipeline.sources import (
    CapturedFrame,
    LeftOut,
    OpeningStopped,
    Signal,
    Source,
    SourceInfo,
    open_source,
    parse_address,
)
from pipeline.stage import FRAMES, Kit, SourceStage

LEASE_SECONDS = 0.1
# So many frames beside those in the network and before it keep every stage busy. More would only wait longer, also
# where it is delivery that is slow, and push the network's data out of the cache.
IN_HAND = 4


class Decode(SourceStage):
    """The source's process."""

    def __init__(self, kit: Kit) -> None:
        super().__init__(kit)
        ((self._source_id, self._settings),) = kit.settings.sources.items()
        deliver = kit.settings.deliver
        self._full_size = deliver.video is not None or deliver.show
        self._source: Source | None = None
        self._slot: Slot | None = None
        self._converter = PixelConverter()

    def prepare(self) -> None:
        # What a camera sent while the network loads would be old before it is looked at: it is opened last.
        if parse_address(self._settings.uri).kind in ("file", "images"):
            self._source = self._open()

    def _open(self) -> Source:
        self.kit.tell("opening the source")
        return open_source(self._settings, self._source_id, self.kit.stopped)

    def begin(self, model: ModelCard) -> None:
        self._model = model
        self._began_ns = time.monotonic_ns()

    def run(self, emit: Callable[[Message], None]) -> None:
        try:
            source = self._source = self._source or self._open()
        except OpeningStopped:
            return
        start = stream_start(source.info, self._settings, self.kit.settings.queue)
        assert self.kit.leases is not None
        self.kit.leases.limit = self._model.workers + IN_HAND + self.kit.settings.queue.capacity
        emit(start)
        seq = 0
        frames = iter(source.frames(self.kit.stopped))
        while self._make_room(start.policy) and (taken := next(frames, None)):
            if isinstance(taken, Signal | SourceInfo):
                continue
            self.kit.meter.captured(self._source_id)
            if isinstance(taken, LeftOut):
                self.kit.meter.dropped(self._source_id, seq, taken.reason)
            elif frame := self._place(seq, taken):
                emit(frame)
            seq += 1
        self._tell_troubles(source)
        emit(EndOfStream(self._source_id, seq, source.failure))

    def _tell_troubles(self, source: Source) -> None:
        told = source.troubles()
        if repaired_times := source.health.repaired_times:
            told.append(f"{repaired_times} time stamps were repaired: they jumped, did not grow or were missing")
        for trouble in told:
            self.kit.meter.warn(f"{self._source_id}: {trouble}")
        if source.failure:
            self.problem = SourceError(f"{self._source_id}: {source.failure}")

    def _make_room(self, policy: Policy) -> bool:
        """Where nothing may be dropped, wait for a free slot before a frame is taken, so that a stop meanwhile loses
        none. False when there is to be no further frame."""
        assert self.kit.leases is not None
        while policy == "block" and self._slot is None:
            if self.kit.stopped():
                return False
            self._slot = self.kit.leases.lease(LEASE_SECONDS)
        self._free_ns = time.monotonic_ns()
        return True

    def _place(self, seq: int, captured: CapturedFrame) -> Frame | None:
        """The frame in shared memory; None when there was no room for it and it was dropped."""
        assert self.kit.leases is not None
        slot, self._slot = self._slot or self.kit.leases.lease(0.0), None
        if slot is None:
            self.kit.meter.dropped(self._source_id, seq, "no free slot, the stages after it are slower than the source")
            return None
        frame = Frame(self._header(seq, captured, slot), self.kit.pools)
        # Waiting for a slot, or behind the frame before in the decoder's own queue, is waiting, not work: it comes
        # before the hop.
        entered_ns = max(frame.header.captured_ns, self._free_ns)
        self._fill(frame, captured, slot)
        frame.header.trace.append(Hop("decode", entered_ns, time.monotonic_ns()))
        self.kit.meter.passed(frame.header)
        return frame

    def _header(self, seq: int, captured: CapturedFrame, slot: Slot) -> FrameHeader:
        # A file's first frame was decoded to see whether it is a video at all, while the network was loading:
        # its life in the pipeline begins with the others'.
        early_ns = max(0, self._began_ns - captured.captured_ns)
        return FrameHeader(
            source_id=self._source_id,
            seq=seq,
            pts_seconds=captured.pts_seconds,
            captured_ns=captured.captured_ns + early_ns,
            captured_unix=captured.captured_unix + early_ns / 1e9,
            width=captured.width,
            height=captured.height,
            leases=[slot],
        )

    def _fill(self, frame: Frame, captured: CapturedFrame, slot: Slot) -> None:
        model, picture, turn = self._model, captured.video_frame, captured.rotation_degrees
        width, height = model.input_width, model.input_height
        input_hwc = frame.place("input_rgb", slot, "uint8", (model.padded_height, model.padded_width, 3))
        input_hwc[height:] = input_hwc[:, width:] = 0
        self._converter.write_input(picture, turn, input_hwc[:height, :width], model.resize)
        if self._full_size:
            try:
                image_hwc = frame.place("image_bgr", slot, "uint8", (captured.height, captured.width, 3))
            except ValueError:
                raise self._too_large(captured.width, captured.height, input_hwc.nbytes) from None
            self._converter.write_bgr(picture, turn, image_hwc)

    def _too_large(self, width: int, height: int, taken_bytes: int) -> SourceError:
        """Only pixels in full size can be too many: the network's input has the same size whatever the source has."""
        most_pixels = (self.kit.pools[FRAMES].spec.slot_bytes - aligned(taken_bytes)) // 3
        return SourceError(
            f"{self._source_id}: a frame of {width}x{height} has {width * height / 1e6:.1f} million pixels, a video or "
            f"window can take {most_pixels / 1e6:.1f} million: make it smaller, or run without video and window"
        )

    def close(self) -> None:
        if self._source:
            self._source.close()


def stream_start(info: SourceInfo, settings: SourceSettings, queue: QueueSettings) -> StreamStart:
    """The source's first message; its policy is `latest` for what is live, unless the settings say otherwise."""
    usual: Policy = "latest" if info.is_live else "block"
    count = info.frame_count
    if count is not None and settings.max_frames is not None:
        count = min(count, settings.max_frames)
    return StreamStart(
        source_id=info.source_id,
        is_live=info.is_live,
        policy=usual if queue.policy == "auto" else queue.policy,
        width=info.width,
        height=info.height,
        frames_per_second=info.frames_per_second,
        frame_count=count or settings.max_frames,
    )
