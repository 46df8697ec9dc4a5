"""The spool: lines come out as they went in, once unless they say so, whoever is killed; and it is bounded."""

import signal
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from pipeline.errors import OutputError
from pipeline.settings import SpoolSettings
from pipeline.sinks.spool import SEGMENTS, Spool
from tests.kit.places import ROOT

MEGABYTE = 1_000_000


def open_in(folder: Path, megabytes: float = 8.0, identity: str = "here") -> Spool:
    return Spool(SpoolSettings(folder=str(folder), megabytes=megabytes), "name", identity)


def taken(spool: Spool, most: int = 1000) -> list[bytes]:
    """All that waits, confirmed."""
    found: list[bytes] = []
    while batch := spool.take(most):
        found += batch.lines
        spool.done(batch.end)
    return found


def test_an_empty_spool_gives_nothing_and_leaves_nothing(tmp_path) -> None:
    spool = open_in(tmp_path)
    assert spool.take(10) is None and spool.waiting == 0
    spool.close()
    spool.close()
    assert not list(tmp_path.iterdir())


def test_lines_come_out_as_they_went_in_over_many_segments(tmp_path) -> None:
    spool = open_in(tmp_path, 0.2)
    lines = [b"%d " % number + b"x" * 100 for number in range(5 * SEGMENTS * 100)]
    found = []
    for number, line in enumerate(lines):
        spool.append(line)
        if number % 300 == 299:
            found += taken(spool, most=7)
    assert found + taken(spool) == lines and spool.lost == 0
    assert len(list(spool.folder.glob("lines.*"))) <= 1
    spool.close()
    assert not list(tmp_path.iterdir())


def test_what_is_not_confirmed_is_there_again_and_what_was_taken_says_so(tmp_path) -> None:
    spool = open_in(tmp_path)
    for number in range(10):
        spool.append(b"%d" % number)
    first = spool.take(4)
    assert first and (first.lines, first.repeated) == ([b"0", b"1", b"2", b"3"], False)
    spool.done(2)
    spool.close()
    spool = open_in(tmp_path)
    spool.append(b"10")
    again, others = spool.take(100), spool.take(100)
    assert again and (again.first, again.end, again.lines, again.repeated) == (2, 4, [b"2", b"3"], True)
    assert others and (others.lines[0], others.repeated) == (b"4", False)
    later = spool.take(100)  # of another segment: the file of an earlier process is not written on
    assert later and later.lines == [b"10"] and spool.take(1) is None
    spool.again()
    repeated = spool.take(100)
    assert repeated and (repeated.lines, repeated.repeated) == ([b"2", b"3", *others.lines], True)


def test_where_too_much_waits_the_oldest_goes_but_what_may_have_been_sent(tmp_path) -> None:
    spool = open_in(tmp_path, 0.1)
    line = b"x" * 99
    for _ in range(10):
        spool.append(line)
    sent = spool.take(10)
    for number in range(3000):
        spool.append(b"%03d" % (number % 1000) + line[3:])
        assert sum(file.stat().st_size for file in spool.folder.glob("lines.*")) <= 0.1 * MEGABYTE
    assert spool.lost > 0 and spool.waiting + spool.lost == 3010
    spool.again()
    again = spool.take(10)
    assert sent and again and again.repeated and (again.first, again.lines) == (sent.first, sent.lines)
    spool.done(again.end)
    rest = taken(spool)
    assert len(rest) == 3000 - spool.lost
    assert rest[-1].startswith(b"999") and sum(map(len, rest)) > 0.05 * MEGABYTE


def test_a_spool_of_another_address_or_in_use_is_left_alone(tmp_path) -> None:
    one, other, second = open_in(tmp_path), open_in(tmp_path, identity="there"), open_in(tmp_path)
    for number, spool in enumerate((one, other, second)):
        spool.append(b"%d" % number)
    assert len({spool.folder for spool in (one, other, second)}) == 3
    assert len({spool.token for spool in (one, other, second)}) == 3
    for spool in (one, other, second):
        spool.close()
    again = open_in(tmp_path, identity="there")
    assert again.token == other.token and taken(again) == [b"1"]
    assert taken(open_in(tmp_path)) == [b"0"]


def test_where_it_cannot_be_there_is_one_line(tmp_path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(OutputError, match=r"^cannot spool in .*file/spool: Not a directory; set deliver.spool.folder$"):
        open_in(tmp_path / "file" / "spool")


def test_a_loss_of_power_that_took_the_lines_or_the_place_is_survived(tmp_path) -> None:
    spool = open_in(tmp_path)
    for number in range(10):
        spool.append(b"%d" % number)
    batch = spool.take(8)
    assert batch
    spool.done(3)
    spool.close()
    (segment,) = spool.folder.glob("lines.*")
    segment.write_bytes(b"0\n1\n2\n3\n4\n5")  # what was written after is gone
    spool = open_in(tmp_path)
    spool.append(b"new")
    assert taken(spool) == [b"3", b"4", b"new"] and spool.take(1) is None
    spool.append(b"last")
    spool.close()
    (spool.folder / "place").write_bytes(b"")  # nobody knows whose the lines are
    other = open_in(tmp_path)
    assert other.folder != spool.folder and other.take(1) is None


WRITER = """
import sys
from pathlib import Path
sys.path.insert(0, sys.argv[1])
from tests.pipeline.test_spool import open_in
spool = open_in(Path(sys.argv[2]), 0.5)
number = int(sys.argv[3])
while True:
    spool.append(b"%d" % number + b" " * (number % 5000))
    number += 1
    while spool.waiting > 20:  # it keeps up: however far it gets, nothing has to give way
        batch = spool.take(7)
        print(*[f"{int(line)}{'r' * batch.repeated}" for line in batch.lines], flush=True)
        spool.done(batch.end)
        print("done", flush=True)
"""


def test_killed_at_any_moment_no_line_is_lost_or_comes_twice_unmarked(tmp_path) -> None:
    seen: list[str] = []
    written = 0
    for life in range(6):
        command = [sys.executable, "-c", WRITER, str(ROOT), str(tmp_path), str(written)]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
            assert process.stdout is not None
            for _ in range(3 + 7 * life):
                seen += [word for word in process.stdout.readline().split() if word != "done"]
            process.send_signal(signal.SIGKILL)
            seen += [word for word in process.stdout.read().split() if word != "done"]
        spool = open_in(tmp_path, 0.5)
        written = spool._end
        spool.close()
    spool = open_in(tmp_path, 0.5)
    while batch := spool.take(7):
        seen += [f"{int(line)}{'r' * batch.repeated}" for line in batch.lines]
        spool.done(batch.end)
    once = [int(word) for word in seen if not word.endswith("r")]
    again = {int(word[:-1]) for word in seen if word.endswith("r")}
    assert len(once) == len(set(once)) and once == sorted(once)
    assert set(once) | again == set(range(written)) and spool.lost == 0


class Sending(RuleBasedStateMachine):
    """Appended, taken, confirmed, taken again, closed and opened, in any order: no line is lost but what is counted,
    and none comes twice without saying so."""

    @initialize(folder=st.uuids())
    def begin(self, folder) -> None:
        self.folder = TEMPORARY[0] / str(folder)
        self.spool = open_in(self.folder, 0.1)
        self.appended = self.lost_before = 0
        self.unconfirmed: list[tuple[int, int]] = []
        self.confirmed: set[int] = set()
        self.came: set[int] = set()

    @rule(count=st.integers(1, 60), length=st.integers(1, 3000))
    def append(self, count: int, length: int) -> None:
        for _ in range(count):
            self.spool.append(b"%d" % self.appended + b" " * length)
            self.appended += 1

    @rule(most=st.integers(1, 20))
    def take(self, most: int) -> None:
        if batch := self.spool.take(most):
            for line in batch.lines:
                number = int(line)
                assert batch.repeated or number not in self.came
                assert not self.came or batch.repeated or number > max(self.came)
                self.came.add(number)
                self.unconfirmed.append((number, batch.end))

    @rule(share=st.floats(0, 1))
    def confirm(self, share: float) -> None:
        count = round(share * len(self.unconfirmed))
        ends = {end for _, end in self.unconfirmed[count:]}
        while count and self.unconfirmed[count - 1][1] in ends:  # whole batches
            count -= 1
        if count:
            self.spool.done(self.unconfirmed[count - 1][1])
            self.confirmed |= {number for number, _ in self.unconfirmed[:count]}
            del self.unconfirmed[:count]

    @rule()
    def lose_the_connection(self) -> None:
        self.spool.again()
        self.unconfirmed.clear()

    @rule()
    def open_anew(self) -> None:
        self.lost_before += self.spool.lost
        self.spool.close()
        self.spool = open_in(self.folder, 0.1)
        self.unconfirmed.clear()

    @invariant()
    def nothing_is_lost_but_what_is_counted(self) -> None:
        if hasattr(self, "spool"):
            lost = self.lost_before + self.spool.lost
            assert self.spool.waiting + len(self.confirmed) + lost == self.appended
            assert self.spool.size_bytes <= 0.1 * MEGABYTE + 4000

    def teardown(self) -> None:
        if hasattr(self, "spool"):
            self.lose_the_connection()
            while batch := self.spool.take(50):
                self.confirmed |= {int(line) for line in batch.lines}
                self.spool.done(batch.end)
            self.nothing_is_lost_but_what_is_counted()
            self.spool.close()


TEMPORARY: list[Path] = []


def test_in_any_order_of_calls(tmp_path) -> None:
    from hypothesis.stateful import run_state_machine_as_test

    TEMPORARY[:] = [tmp_path]
    run_state_machine_as_test(Sending, settings=settings(max_examples=40, stateful_step_count=30))
