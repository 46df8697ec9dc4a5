"""What was found and its pictures, paired: whatever comes first, each picture once, in order, and never another's."""

from hypothesis import given
from hypothesis import strategies as st

from pipeline.serve.pairs import MOST_WAITING, Pairs

SMALL, FULL = b"wide/480/gate", b"full/gate"


def stamp(frame: int) -> bytes:
    return b"%d" % (1_000_000 + frame)


def paired(happens: list[tuple[str, int]], *topics: bytes) -> list[tuple[bytes, int]]:
    """Topics and frames of the pairs that come of it; each line and picture tells its frame, which are compared."""
    pairs = Pairs()
    pairs.look_at(set(topics))
    made = []
    for what, frame in happens:
        said = b"%d" % frame
        come = pairs.hear(stamp(frame), said) if what == "line" else pairs.see(what.encode(), stamp(frame), said)
        for topic, (line, captured, jpeg) in come:
            assert line == jpeg and captured == stamp(int(line))
            made.append((topic, int(line)))
    return made


def test_a_table_of_what_comes_first() -> None:
    line, small, full = "line", SMALL.decode(), FULL.decode()
    table: list[tuple[list[tuple[str, int]], list[tuple[bytes, int]]]] = [
        ([], []),
        ([(line, 1), (line, 2)], []),
        ([(small, 1), (small, 2)], []),
        ([(small, 1), (line, 1)], [(SMALL, 1)]),
        ([(line, 1), (small, 1)], [(SMALL, 1)]),
        # One has no line: it was dropped.
        ([(small, 1), (small, 2), (line, 2), (line, 1)], [(SMALL, 2)]),
        # One has no picture: it came too fast.
        ([(line, 1), (small, 2), (line, 2)], [(SMALL, 2)]),
        ([(small, 1), (small, 2), (line, 1), (line, 2)], [(SMALL, 1), (SMALL, 2)]),
        # Two sizes of the same.
        ([(full, 1), (line, 1), (small, 1)], [(FULL, 1), (SMALL, 1)]),
        # One that nobody looks at any more.
        ([("wide/480/yard", 1), (line, 1)], []),
    ]
    for happens, made in table:
        assert paired(happens, SMALL, FULL) == made, happens


@given(st.sets(st.integers(0, 40)), st.sets(st.integers(0, 40)), st.lists(st.booleans(), min_size=100, max_size=100))
def test_whatever_is_missing_the_rest_is_shown_once_and_in_order(
    lines: set[int], pictures: set[int], turns: list[bool]
) -> None:
    """However the two ways overtake each other, each in its own order, as far as one may be behind."""
    ways = {"line": sorted(lines), SMALL.decode(): sorted(pictures)}
    happens = []
    for is_line in turns:
        way = "line" if is_line else SMALL.decode()
        if ways[way]:
            happens.append((way, ways[way].pop(0)))
    happens += [(way, frame) for way, left in ways.items() for frame in left]
    assert paired(happens, SMALL) == [(SMALL, frame) for frame in sorted(lines & pictures)]


def test_what_lost_its_other_half_does_not_grow() -> None:
    pairs = Pairs()
    pairs.look_at({SMALL})
    for frame in range(10 * MOST_WAITING):
        assert pairs.see(SMALL, stamp(frame), b"") == []
    assert [pairs.hear(stamp(frame), b"") != [] for frame in range(10 * MOST_WAITING)].count(True) == MOST_WAITING
    pairs.look_at(set())
    pairs.look_at({SMALL})
    assert pairs.hear(stamp(10 * MOST_WAITING - 1), b"") == []


def test_one_who_comes_later_sees_from_the_next_picture_on() -> None:
    pairs = Pairs()
    pairs.look_at({SMALL})
    pairs.see(SMALL, stamp(1), b"small")
    pairs.look_at({SMALL, FULL})
    pairs.see(FULL, stamp(2), b"full")
    assert [topic for topic, _ in pairs.hear(stamp(1), b"")] == [SMALL]
    assert [topic for topic, _ in pairs.hear(stamp(2), b"")] == [FULL]
