"""The rig itself: that its faults are what they say, and that it reads what it measures."""

import os
import signal
import socket
import subprocess
import sys
import threading
from collections import Counter

import pytest

from tests.kit.harness import is_running, wait_until
from tests.whole.faults import rig
from tests.whole.faults.memory import memory_group
from tests.whole.faults.network import OURS, Network, own_network
from tests.whole.faults.storage import small_disk, stalling_disk
from tests.whole.witness.account import Account

SEND = "import socket, sys, time\nsock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)\n"
SEND += "for i in range(500):\n    try: sock.sendto(b'%d' % i, (sys.argv[1], int(sys.argv[2])))\n"
SEND += "    except PermissionError: pass\n    time.sleep(0.0005)\n"


def received(network: Network) -> int:
    """How many of 500 datagrams come from there to us."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.bind((OURS, 0))
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 20)
        subprocess.run([*network.before, sys.executable, "-c", SEND, OURS, str(sock.getsockname()[1])], check=True)
        sock.settimeout(0.2)
        count = 0
        try:
            while sock.recv(100):
                count += 1
        except TimeoutError:
            return count


def test_a_network_loses_what_it_is_told_to() -> None:
    with own_network() as network:
        assert received(network) == 500
        network.lose_udp(20)
        assert 300 < received(network) < 470
        network.cut()
        assert received(network) == 0
        network.heal()
        assert received(network) == 500


def test_a_disk_that_stands_still_holds_its_writers(tmp_path) -> None:
    with stalling_disk(tmp_path / "disk") as disk:
        file = disk.folder / "file"
        file.write_bytes(b"1")
        written = threading.Event()
        disk.freeze()
        threading.Thread(target=lambda: (file.write_bytes(b"2"), written.set()), daemon=True).start()
        assert not written.wait(0.5)
        disk.thaw()
        assert written.wait(10)


def test_a_small_disk_fills(tmp_path) -> None:
    with small_disk(tmp_path / "disk", "64k") as folder, pytest.raises(OSError, match="No space left"):
        (folder / "file").write_bytes(bytes(100_000))


def test_who_touches_too_much_of_a_pool_is_killed() -> None:
    code = "import mmap, os; fd = os.memfd_create('x'); os.ftruncate(fd, 64 << 20); pool = mmap.mmap(fd, 64 << 20)\n"
    code += "for at in range(0, 64 << 20, 4096): pool[at] = 1"
    with memory_group(32) as group:
        assert subprocess.run([*group.before, sys.executable, "-c", code]).returncode == -signal.SIGKILL
        group.limit(256)
        assert subprocess.run([*group.before, sys.executable, "-c", code]).returncode == 0


def test_lines_are_read_once_and_whole(tmp_path) -> None:
    path = tmp_path / "lines.jsonl"
    tail = rig.LineTail(path)
    assert tail.read() == []
    path.write_text('{"seq":0}\n{"se')
    assert tail.read() == [{"seq": 0}]
    with path.open("a") as file:
        file.write('q":1}\n')
    assert tail.read() == [{"seq": 0}, {"seq": 1}]
    assert tail.read() == [{"seq": 0}, {"seq": 1}]


def test_videos_come_in_the_order_they_were_written(tmp_path) -> None:
    for name in ("cam0.10.mp4", "cam0.2.mp4", "cam0.mp4", "cam1.mp4", "all.jsonl"):
        (tmp_path / name).touch()
    names = [path.name for path in rig.videos_in(tmp_path)]
    assert names == ["cam0.mp4", "cam0.2.mp4", "cam0.10.mp4", "cam1.mp4"]


def test_workers_are_found_by_their_command_line() -> None:
    code = "import subprocess, sys, time; subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(60)', "
    code += "'-m', 'pipeline.run.worker', 'decode:cam0']); time.sleep(60)"
    with subprocess.Popen([sys.executable, "-c", code]) as parent:
        wait_until(lambda: [rig.worker_id(pid) for pid in rig.descendants(parent.pid)] == ["decode:cam0"])
        [pid] = rig.descendants(parent.pid)
        os.kill(pid, signal.SIGKILL)
        wait_until(lambda: not is_running(pid))
        assert rig.worker_id(pid) is None  # though nobody has taken its exit code yet
        parent.kill()


def test_a_row_says_what_was_lost_and_why(tmp_path, monkeypatch) -> None:
    path = tmp_path / "faults.md"
    monkeypatch.setattr(rig, "TABLE", str(path))
    one = Account("cam0", dropped=Counter({"infer: worker lost": 3}), lost_in_outages=40)
    fault = rig.Fault("kill -9", recovery_seconds={"cam0": 1.26, "cam1": 0.5}, verdict="all accounted for")
    rig.write_row(fault, rig.lost([one]), 0.12)
    rig.write_row(rig.Fault("other"), "", None)
    *head, first, second = path.read_text().splitlines()
    assert head[0] == "# Faults" and head[-1].startswith("|---")
    assert first == "| kill -9 | 1.3 s | 40 in the outage; 3 infer: worker lost | 0.1 s | all accounted for |"
    assert second == "| other | – | – | – | not reached |"
