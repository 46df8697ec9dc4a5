"""The benchmark against peers says in one line what it lacks; the peers' program does what it is said to do, where
$CENTERSTREAM_PEERS_VENV names an environment with its packages."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.kit.media import count_pictures
from tests.kit.places import CLIP, ROOT

VENV = os.environ.get("CENTERSTREAM_PEERS_VENV")
FRAMES = 130


@pytest.mark.thorough
def test_without_the_peers_packages_it_is_skipped_in_one_line(tmp_path) -> None:
    line = [sys.executable, str(ROOT / "benchmarks/bench_peers.py"), "--peers-venv"]
    without_packages = tmp_path / "bare"
    (without_packages / "bin").mkdir(parents=True)
    (without_packages / "bin/python").symlink_to("/bin/false")
    for venv, missing in ((tmp_path / "none", "no virtual environment"), (without_packages, "has no package trackers")):
        done = subprocess.run([*line, str(venv)], capture_output=True, text=True, timeout=300)
        assert done.returncode == 0 and done.stdout.count("\n") == 1 and missing in done.stdout, done
        assert str(venv) in done.stdout and "requirements.txt" in done.stdout


@pytest.mark.slow
@pytest.mark.skipif(VENV is None, reason="CENTERSTREAM_PEERS_VENV names no environment for benchmarks/peers")
def test_the_program_finds_tracks_and_writes_a_video(tmp_path) -> None:
    network, out = tmp_path / "n.onnx", {name: tmp_path / name for name in ("o.mp4", "o.txt", "o.jsonl")}
    subprocess.run([sys.executable, "-m", "models.export", network], cwd=ROOT, check=True)
    options = ["--out", out["o.mp4"], "--mot", out["o.txt"], "--jsonl", out["o.jsonl"]]
    line = [Path(str(VENV), "bin/python"), ROOT / "benchmarks/peers/program.py", CLIP, network, *options]
    done = subprocess.run(list(map(str, line)), capture_output=True, text=True, timeout=540)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout.splitlines()[-1])["frames"] == count_pictures(out["o.mp4"]) == FRAMES
    lines = [json.loads(text) for text in out["o.jsonl"].read_text().splitlines()]
    assert len(lines) == FRAMES and all(any(o["class"] == "person" for o in line["objects"]) for line in lines)
    ids = [int(row.split(",")[1]) for row in out["o.txt"].read_text().splitlines()]
    assert max(ids.count(track) for track in ids) > FRAMES / 2, "somebody is followed through half of the clip"
