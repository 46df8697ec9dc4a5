"""A live address that comes back: opened again whenever it is lost, with the time going on, and its picture watched.

Knows connections (`VideoSource`) and no container: each lasts until it is lost, and what it gave is told in one stream.
"""

import time
from collections.abc import Generator, Iterator
from dataclasses import replace

from pipeline.backoff import Backoff
from pipeline.errors import SourceError
from pipeline.settings import SourceSettings
from pipeline.source_address import Address
from pipeline.sources.base import (
    LONGEST_SLEEP_SECONDS,
    CapturedFrame,
    Item,
    OpeningStopped,
    Source,
    SourceInfo,
    Stopped,
    at_most,
)
from pipeline.sources.clock import NUDGE_SECONDS
from pipeline.sources.coded import Onlooker
from pipeline.sources.knock import Knocks
from pipeline.sources.late import LeftOut
from pipeline.sources.signals import Condition, Signal, State
from pipeline.sources.video import VideoSource
from pipeline.sources.watch import PictureWatch, luma_samples


class ReturningSource(Source):
    """Gives the frames of one connection after the other, with a `Signal` for what happens between them.

    Of a file on a web server there is one connection, with the file's own end.
    """

    def __init__(
        self, address: Address, settings: SourceSettings, source_id: str, onlooker: Onlooker | None = None
    ) -> None:
        """Nothing is opened yet."""
        super().__init__(settings)
        self._address = address
        self._source_id, self._onlooker = source_id, onlooker
        self._connection: VideoSource | None = None
        self._backoff = Backoff()
        self._condition = Condition()
        self._well_at = time.monotonic()  # when the last frame came
        self._told: SourceInfo | None = None
        self._pts_seconds = 0.0  # of the last frame
        self._start_connection()

    def open(self, stopped: Stopped) -> None:
        """Raises SourceError when it cannot be opened, without a second attempt."""
        self._connection = self._connect(stopped)
        self.info = self._connection.info

    def close(self) -> None:
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    def frames(self, stopped: Stopped) -> Iterator[Item]:
        return at_most(self._all(stopped), self._settings.max_frames)

    def decoded(self, stopped: Stopped) -> Iterator[CapturedFrame | LeftOut]:
        return (item for item in self._all(stopped) if isinstance(item, CapturedFrame | LeftOut))

    def _all(self, stopped: Stopped) -> Iterator[Item]:
        while connection := (yield from self._connected(stopped)):
            if not connection.comes_by_itself:
                self.info = connection.info
                yield from connection.frames(stopped)
                self.failure = connection.failure
                return
            yield from self._frames_of(connection, stopped)
            if stopped():
                return
            yield from self._lose(connection.failure or "it ended")
            self.close()
            del connection  # with its decoder, before there is a next one

    # -------------------------------------------------------------------------------------------------- connections

    def _connected(self, stopped: Stopped) -> Generator[Signal, None, VideoSource | None]:
        """The open connection, sooner or later; None when stopped or given up."""
        while self._connection is None and not self.failure and not stopped():
            if not self._wait(self._backoff.next_seconds(time.monotonic()), stopped):
                continue
            try:
                self._condition.attempt()
                self._connection = self._connect(stopped)
            except OpeningStopped:
                return None
            except SourceError as error:
                yield from self._lose(str(error))
                if self._remaining_seconds() <= 0:
                    self.failure = f"{error}; given up after {self._settings.give_up_seconds:g} s"
        return self._connection

    def _connect(self, stopped: Stopped) -> VideoSource:
        return VideoSource(self._address, self._settings, self._source_id, stopped, self.health, self._onlooker)

    def _lose(self, cause: str) -> Iterator[Signal]:
        self.health.lose(self._well_at)
        if self._settings.reconnect:
            yield from self._become("lost", cause, self._well_at)
        else:
            self.failure = cause

    def _remaining_seconds(self) -> float:
        limit = self._settings.give_up_seconds
        return float("inf") if limit is None else limit - (time.monotonic() - self._well_at)

    def _wait(self, seconds: float, stopped: Stopped) -> bool:
        """Whether it is time for another attempt, and not for an end; the last is made when there is no more time.

        A host that could not be reached and can be again ends the wait: the back-off spares a server that is there.
        """
        until = time.monotonic() + min(seconds, max(0.0, self._remaining_seconds()))
        knocks = Knocks(self._address.host, self._address.port) if seconds and self._address.host else None
        try:
            while (wait_seconds := until - time.monotonic()) > 0 and not (knocks and knocks.answered.is_set()):
                if stopped():
                    return False
                time.sleep(min(wait_seconds, LONGEST_SLEEP_SECONDS))
        finally:
            if knocks:
                knocks.close()
        return not stopped()

    def _become(self, state: State, cause: str, since_seconds: float) -> Iterator[Signal]:
        """`since_seconds` on the monotonic clock."""
        since_unix = time.time() - (time.monotonic() - since_seconds)
        if signal := self._condition.become(state, cause, since_unix):
            yield signal

    # ------------------------------------------------------------------------------------------------------- frames

    def _start_connection(self) -> None:
        self._watch = PictureWatch(self._settings.frozen_seconds, self._settings.grey_seconds)
        self._began_at: float | None = None
        self._shift_seconds = 0.0

    def _frames_of(self, connection: VideoSource, stopped: Stopped) -> Iterator[Item]:
        self._start_connection()
        for taken in connection.decoded(stopped):
            if isinstance(taken, LeftOut):
                yield replace(taken, pts_seconds=taken.pts_seconds + self._shift_seconds)
                continue
            # Coded in another order than shown, pictures do not arrive in theirs.
            arrived_at = max(self._well_at, taken.captured_ns / 1e9)
            if self._began_at is None:
                self._began_at = arrived_at
                yield from self._begin(taken, arrived_at)
            yield from self._told_of_picture(taken, arrived_at)
            yield from self._told_of_info(connection.info, taken)
            self._backoff.went_well_for(arrived_at - self._began_at)
            self._well_at = arrived_at
            self._pts_seconds = round(taken.pts_seconds + self._shift_seconds, 6)
            yield replace(taken, pts_seconds=self._pts_seconds)

    def _begin(self, first: CapturedFrame, arrived_at: float) -> Iterator[Signal]:
        """Whatever the new stream's clock says, time goes on by what has passed since the last frame."""
        if self._told is not None:
            passed_seconds = max(NUDGE_SECONDS, arrived_at - self._well_at)
            self._shift_seconds = self._pts_seconds + passed_seconds - first.pts_seconds
            self.health.reconnects += 1
        self.health.come_back(arrived_at)
        yield from self._become("live", "", arrived_at)

    def _told_of_picture(self, frame: CapturedFrame, arrived_at: float) -> Iterator[Signal]:
        settings = self._settings
        if not (settings.frozen_seconds or settings.grey_seconds):
            return
        view = self._watch.look(luma_samples(frame.video_frame), bool(frame.video_frame.key_frame), arrived_at)
        causes = {
            "frozen": f"the picture has not changed for {settings.frozen_seconds:g} s",
            "grey": f"nothing has been seen in the picture for {settings.grey_seconds:g} s",
        }
        yield from self._become(view.state, causes.get(view.state, ""), view.since_seconds)

    def _told_of_info(self, info: SourceInfo, frame: CapturedFrame) -> Iterator[SourceInfo]:
        """The connection's, with the size of this frame, where it is another than before."""
        now = replace(info, width=frame.width, height=frame.height)
        if now != self._told:
            self.info = self._told = now
            yield now
