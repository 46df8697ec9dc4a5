"""What CONTRIBUTING.md says a newcomer writes is written, as it stands there, into a copy of the project, and runs."""

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.kit.harness import HANG_SECONDS
from tests.kit.places import CLIP, ROOT


@pytest.fixture
def project(tmp_path) -> Path:
    for folder in ("configs", "pipeline", "models"):
        shutil.copytree(ROOT / folder, tmp_path / folder, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "run_pipeline.py", tmp_path)
    return tmp_path


def recipe(title: str) -> tuple[str, str]:
    """The file and the line of a section."""
    _, _, section = (ROOT / "CONTRIBUTING.md").read_text().partition(f"## {title}")
    file, line = re.findall(r"```python\n(.*?)```", section, re.DOTALL)[:2]
    return file, line


def follow(project: Path, title: str, file_name: str, table: str, last_entry: str) -> None:
    file, line = recipe(title)
    (project / file_name).write_text(file)
    before = (project / table).read_text()
    assert before.count(last_entry) == 1
    (project / table).write_text(before.replace(last_entry, last_entry + line))


def run(project: Path, *arguments: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, *map(str, arguments)]
    return subprocess.run(command, cwd=project, capture_output=True, text=True, timeout=HANG_SECONDS)


@pytest.mark.thorough
def test_a_new_kind_of_output(project) -> None:
    entry = '    "mot": SinkKind("pipeline.sinks.mot", is_shared=False),\n'
    follow(project, "A new kind of output", "pipeline/sinks/plain.py", "pipeline/kinds.py", entry)
    options = ("--max-frames", 5, "--engine", "eager", "--placement", "threads", "--also", "plain:objects.txt")
    done = run(project, "run_pipeline.py", CLIP, *options)
    assert done.returncode == 0, done.stderr
    rows = [line.split() for line in (project / "objects.txt").read_text().splitlines()]
    assert {row[1] for row in rows} == {"0", "1", "2", "3", "4"} and "person" in {row[2] for row in rows}
    assert "wrote objects.txt: 5 frames" in done.stderr


@pytest.mark.thorough
def test_a_new_backbone(project) -> None:
    entry = '    (_paper_spec("dla_34"), "dla"),\n'
    follow(project, "A new backbone", "models/backbones/plain.py", "models/spec.py", entry)
    make = "import models; m = models.create_model('plain')"
    save = f"{make}; models.save_checkpoint(m.state_dict(), 'mine.safetensors', m.spec)"
    assert run(project, "-c", save).returncode == 0
    options = ("--model", "plain", "--weights", "mine.safetensors", "--max-frames", 2, "--engine", "eager")
    done = run(project, "run_pipeline.py", CLIP, *options, "--placement", "threads", "--jsonl", "o.jsonl")
    assert done.returncode == 0, done.stderr
    assert "plain (mine.safetensors) 512x512" in done.stderr and "2 captured = 2 delivered" in done.stderr
