"""Checks what came out against itself and the pictures: each frame of a source has one fate, told once, in order.

What has a picture is found in the videos by order: the k-th picture that is not grey belongs to the k-th line with the
status ok or failed. Where the presentation times of the two part, one is missing; what fits again goes on together.
A pair is checked by the picture's own number, the moment it was made in milliseconds:

- it comes from the right camera, was not made after the frame was captured, and numbers grow with seq;
- from one pair to the next, as much time passed in the pictures as in the lines, by the source's clock or, where that
  was repaired, by the wall clock. So a picture that belongs to the frame before or after does not pass.

Knows no file.
"""

from bisect import bisect_left, bisect_right
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from statistics import median

from tests.whole.witness.pictures import Picture
from tests.whole.witness.records import FrameLine, Line, SignalLine

LAP = 2**32  # numbers are milliseconds modulo this
SAME_MOMENT_SECONDS = 0.005  # a video's clock has a finer step
AHEAD = 200  # lines or pictures looked ahead for one that fits
CLOCKS_AGREE_SECONDS = 0.05  # between the camera and us: one machine
ARRIVAL_SECONDS = 1.0  # how exactly time is known by arrival alone, in an outage or where time stamps leapt
LOST_STATES = ("lost", "live")


@dataclass(frozen=True)
class Allowed:
    """What may be, because of what was done to the run."""

    missing_pictures: int = 0  # an output may miss frames while it stands still or its process is killed
    damage: bool = False  # packets were lost: pictures may repeat an older one or be past reading
    new_clocks: int = 0  # time stamps leapt so often: how long that step was only arrival tells


NOTHING = Allowed()


@dataclass
class Account:
    """What became of the frames of one source."""

    source: str
    frames: int = 0
    by_status: Counter[str] = field(default_factory=Counter)
    dropped: Counter[str] = field(default_factory=Counter)  # by "stage: reason"
    silent: int = 0
    pictures: int = 0
    grey: int = 0
    unreadable: int = 0
    without_picture: list[FrameLine] = field(default_factory=list)
    outages: int = 0
    lost_in_outages: int = 0
    lost_on_network: int = 0
    problems: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class Pair:
    """A line and its picture, with the moment that the picture says it was made."""

    line: FrameLine
    picture: Picture
    made_seconds: float  # in the lap of the line's `captured_unix`

    @property
    def number(self) -> int:
        assert self.picture.code is not None
        return self.picture.code.number


def account(
    source: str,
    lines: Sequence[Line],
    pictures: Sequence[Picture] | None,
    code: int | None = None,
    sent: Sequence[int] | None = None,
    allowed: Allowed = NOTHING,
) -> Account:
    """`lines` and `pictures` of `source` alone, in their order; no pictures, no check of pictures.

    `code` is the source number that its pictures must have, None for that of the first; `sent` are the numbers of the
    pictures that its camera made.
    """
    result = Account(source)
    frames = [line for line in lines if isinstance(line, FrameLine)]
    _check_fates(frames, result)
    _check_signals(lines, result)
    if pictures is not None:
        shown = [picture for picture in pictures if not picture.is_grey]
        result.pictures, result.grey = len(shown), len(pictures) - len(shown)
        paired = _pair([line for line in frames if line.has_picture], shown, result)
        pairs = _readable(paired, code, result, allowed)
        signals = [line for line in lines if isinstance(line, SignalLine)]
        _check_numbers(pairs, signals, sent, result, allowed)
        if sent is not None:
            _count_lost(pairs, signals, sent, result)
        if len(result.without_picture) > allowed.missing_pictures:
            told = [f"seq {line.seq} ({line.status}) has no picture in the video" for line in result.without_picture]
            result.problems += told
    return result


# -- lines


def _check_fates(frames: Sequence[FrameLine], result: Account) -> None:
    if not frames:
        result.problems.append("it has no frame at all")
        return
    times = Counter(line.seq for line in frames)
    result.frames = max(times) + 1
    result.by_status.update(line.status for line in frames)
    result.problems += [f"seq {seq} is told {count} times" for seq, count in times.items() if count > 1]
    silent = [seq for seq in range(result.frames) if seq not in times]
    result.silent = len(silent)
    result.problems += [f"seq {text} silent" for text in _ranges(silent)]
    for before, line in pairwise(frames):
        if line.seq < before.seq:
            result.problems.append(f"seq {line.seq} comes after {before.seq}")
    for line in frames:
        _check_fate(line, result)


def _check_fate(line: FrameLine, result: Account) -> None:
    if line.status == "dropped":
        result.dropped[f"{line.stage}: {line.reason}"] += 1
        if not (line.stage and line.reason):
            result.problems.append(f"seq {line.seq} was dropped without a stage or a reason")
    if line.status == "failed" and not line.reason:
        result.problems.append(f"seq {line.seq} failed without a reason")


def _check_signals(lines: Sequence[Line], result: Account) -> None:
    """A signal says which frame comes first after it."""
    last_seq, at_least = -1, 0
    for line in lines:
        if isinstance(line, SignalLine):
            result.outages += line.state == "lost"
            if line.seq <= last_seq:
                result.problems.append(f"signal {line.state} before seq {line.seq} comes after seq {last_seq}")
            at_least = line.seq
        else:
            if line.seq < at_least:
                result.problems.append(f"seq {line.seq} comes after a signal before seq {at_least}")
            last_seq = max(last_seq, line.seq)


def _ranges(numbers: Sequence[int]) -> Iterator[str]:
    """`5 is`, `7 to 9 are`."""
    start = 0
    for end in range(1, len(numbers) + 1):
        if end == len(numbers) or numbers[end] != numbers[end - 1] + 1:
            first, last = numbers[start], numbers[end - 1]
            yield f"{first} is" if first == last else f"{first} to {last} are"
            start = end


# -- lines and pictures


def _pair(lines: Sequence[FrameLine], pictures: Sequence[Picture], result: Account) -> list[tuple[FrameLine, Picture]]:
    """By order, and by presentation time where one is missing."""
    paired: list[tuple[FrameLine, Picture]] = []
    file, origin, i, j = -1, 0.0, 0, 0

    def fits(line: FrameLine, picture: Picture) -> bool:
        return picture.file == file and abs(picture.pts_seconds + origin - line.pts_seconds) < SAME_MOMENT_SECONDS

    def skip(lines_to: int, pictures_to: int) -> None:
        result.without_picture += lines[i:lines_to]
        result.problems += [f"{picture} belongs to no line" for picture in pictures[j:pictures_to]]

    while i < len(lines) and j < len(pictures):
        next_i, next_j = i, j
        if pictures[j].file != file:
            next_i = _first_of_file(i, lines, pictures[j:], paired)
        elif not fits(lines[i], pictures[j]):
            next_i = next((k for k in range(i, min(i + AHEAD, len(lines))) if fits(lines[k], pictures[j])), i)
            if next_i == i:
                next_j = next((k for k in range(j, min(j + AHEAD, len(pictures))) if fits(lines[i], pictures[k])), j)
        skip(next_i, next_j)
        i, j = next_i, next_j
        if not fits(lines[i], pictures[j]):  # a new file, or the clock leapt
            file, origin = pictures[j].file, lines[i].pts_seconds - pictures[j].pts_seconds
        paired.append((lines[i], pictures[j]))
        i, j = i + 1, j + 1
    skip(len(lines), len(pictures))
    return paired


def _first_of_file(
    i: int, lines: Sequence[FrameLine], pictures: Sequence[Picture], paired: Sequence[tuple[FrameLine, Picture]]
) -> int:
    """Which line the file of `pictures[0]` begins with. The next in order, unless what is before it was lost: then most
    of its pictures fit a line from another on, which is as old as those before it were."""
    own = [picture for picture in pictures[:AHEAD] if picture.file == pictures[0].file]
    is_whole_end = len(own) == len(pictures)
    moments = [line.pts_seconds for line in lines]
    ages = [line.captured_unix - _made(line, shown) for line, shown in paired[-AHEAD:] if shown.code]
    usual_age = median(ages) if ages else None

    def misfits(k: int) -> tuple[int, float, int]:
        origin = moments[k] - own[0].pts_seconds
        shown = [picture.pts_seconds + origin for picture in own]
        count = sum(not _is_among(moment, moments) for moment in shown)
        if is_whole_end:  # after a clean end no line is left over
            count += len(moments) - bisect_right(moments, shown[-1] + SAME_MOMENT_SECONDS)
        return count, _oddness(lines[k], own[0], usual_age), k

    return min(range(i, min(i + AHEAD, len(lines))), key=misfits)


def _is_among(moment: float, moments: Sequence[float]) -> bool:
    at = bisect_left(moments, moment - SAME_MOMENT_SECONDS)
    return at < len(moments) and moments[at] < moment + SAME_MOMENT_SECONDS


def _oddness(line: FrameLine, picture: Picture, usual_age: float | None) -> float:
    """How far the age of `picture`, if it belongs to `line`, is from the usual one."""
    if picture.code is None:
        return 0.0
    age = line.captured_unix - _made(line, picture)
    if usual_age is None:
        return 0.0 if age > -CLOCKS_AGREE_SECONDS else float("inf")
    return abs(age - usual_age)


def _made(line: FrameLine, picture: Picture) -> float:
    """When the picture says it was made, in Unix seconds."""
    assert picture.code is not None
    captured = round(line.captured_unix * 1000)
    return (captured - (captured - picture.code.number + LAP // 2) % LAP + LAP // 2) / 1000


def _readable(
    paired: Sequence[tuple[FrameLine, Picture]], code: int | None, result: Account, allowed: Allowed
) -> list[Pair]:
    """Those whose picture can be read and comes from the right camera."""
    pairs = []
    for line, picture in paired:
        if picture.code is None:
            result.unreadable += 1
            if not allowed.damage:
                result.problems.append(f"the bar code of seq {line.seq} ({picture}) cannot be read")
            continue
        code = picture.code.source if code is None else code
        if picture.code.source != code:
            result.problems.append(f"seq {line.seq} shows a picture of camera {picture.code.source}, not {code}")
            continue
        pairs.append(Pair(line, picture, _made(line, picture)))
    return pairs


def _check_numbers(
    pairs: Sequence[Pair],
    signals: Sequence[SignalLine],
    sent: Sequence[int] | None,
    result: Account,
    allowed: Allowed,
) -> None:
    times_sent = Counter(sent or ())
    for pair in pairs:
        if pair.made_seconds > pair.line.captured_unix + CLOCKS_AGREE_SECONDS:
            result.problems.append(f"seq {pair.line.seq} shows a picture made after it was captured")
        if sent is not None and pair.number not in times_sent:
            result.problems.append(f"seq {pair.line.seq} shows number {pair.number}, which no camera sent")
    if not allowed.damage:
        _check_steps(pairs, signals, times_sent, allowed.new_clocks, result)


def _check_steps(
    pairs: Sequence[Pair],
    signals: Sequence[SignalLine],
    times_sent: Counter[int],
    new_clocks: int,
    result: Account,
) -> None:
    steps = [later.made_seconds - earlier.made_seconds for earlier, later in pairwise(pairs)]
    usual_step = median(steps) if steps else 0.0
    for earlier, later in pairwise(pairs):
        stands_still = times_sent[earlier.number] > 1
        if earlier.number == later.number and not stands_still:
            result.problems.append(f"seq {later.line.seq} shows the same picture as seq {earlier.line.seq}")
        elif later.made_seconds < earlier.made_seconds:
            result.problems.append(f"seq {later.line.seq} shows an older picture than seq {earlier.line.seq}")
        elif stands_still or _clocks_agree(earlier, later, usual_step, _told_between(signals, earlier, later)):
            continue
        elif new_clocks and _clocks_agree(earlier, later, usual_step, by_arrival=True):
            new_clocks -= 1
        else:
            result.problems.append(f"seq {later.line.seq} shows a picture of another moment: {_steps(earlier, later)}")


def _told_between(signals: Sequence[SignalLine], earlier: Pair, later: Pair) -> bool:
    """Whether a loss of the source, or its return, lies between two frames."""
    return any(earlier.line.seq < told.seq <= later.line.seq and told.state in LOST_STATES for told in signals)


def _clocks_agree(earlier: Pair, later: Pair, usual_step: float, by_arrival: bool) -> bool:
    """Whether as much time passed between two pictures as between their lines, by one of the line's clocks."""
    made, *others = _passed(earlier, later)
    # A new connection or a new clock has none in common with the last; by arrival it is only known about.
    tolerance = max(0.45 * usual_step, 0.1 * made, ARRIVAL_SECONDS if by_arrival else 0.0)
    return any(abs(made - other) <= tolerance for other in others)


def _passed(earlier: Pair, later: Pair) -> tuple[float, float, float]:
    """Seconds between the pictures, and between the lines by presentation time and by capture."""
    return (
        later.made_seconds - earlier.made_seconds,
        later.line.pts_seconds - earlier.line.pts_seconds,
        later.line.captured_unix - earlier.line.captured_unix,
    )


def _steps(earlier: Pair, later: Pair) -> str:
    made, shown, captured = _passed(earlier, later)
    return f"{made:.3f} s after the last in the pictures, {shown:.3f} s by pts, {captured:.3f} s by capture"


def _count_lost(pairs: Sequence[Pair], signals: Sequence[SignalLine], sent: Sequence[int], result: Account) -> None:
    """What was sent between two pictures and is neither of the frames between them: it never came."""
    numbers = sorted(sent)
    for earlier, later in pairwise(pairs):
        between = bisect_left(numbers, later.number) - bisect_right(numbers, earlier.number)
        lost = max(0, between - (later.line.seq - earlier.line.seq - 1))
        if _told_between(signals, earlier, later):
            result.lost_in_outages += lost
        else:
            result.lost_on_network += lost
