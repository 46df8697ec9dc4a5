"""Dockerfile and compose.yaml, as far as they can be tried without a daemon: what is copied is there and runs by
itself, for a user who may write nothing of it; the health check tells a run that answers from others.
"""

import os
import re
import shutil
import signal
import subprocess
import sys
from fnmatch import fnmatch
from pathlib import Path

import pytest
import yaml

from tests.kit.harness import HANG_SECONDS, finish, free_port, wait_until
from tests.kit.places import DATA, ROOT
from tests.whole.test_startup import without_privileges

TOKEN = "0123456789abcdef0123456789abcdef"
SERVICE = yaml.safe_load((ROOT / "compose.yaml").read_text())["services"]["centerstream"]
INSTRUCTIONS = re.sub(r"\\\n\s*", "", (ROOT / "Dockerfile").read_text()).splitlines()
FINAL = INSTRUCTIONS[max(i for i, line in enumerate(INSTRUCTIONS) if line.startswith("FROM ")) :]


def copied(instructions: list[str]) -> list[tuple[list[str], str]]:
    """Sources and target of each COPY from here."""
    lines = [line.split()[1:] for line in instructions if line.startswith("COPY ") and "--from" not in line]
    return [(sources, target) for *sources, target in lines]


def interpolated(text: str, **environment: str) -> str:
    """As compose does it: ${NAME:-default}, and $$ for a $."""

    def value(place: re.Match[str]) -> str:
        return "$" if place[0] == "$$" else environment.get(place["name"], place["default"])

    return re.sub(r"\$\$|\$\{(?P<name>\w+):-(?P<default>[^}]*)\}", value, text)


def is_ignored(path: str) -> bool:
    """Whether .dockerignore leaves `path` out: the last pattern counts that matches it, or a folder of it."""
    ignored = False
    for line in (ROOT / ".dockerignore").read_text().splitlines():
        pattern = line.removeprefix("!").removeprefix("**/")
        parts = [str(place) for place in (Path(path), *Path(path).parents)] + [Path(path).name]
        if line and not line.startswith("#") and any(fnmatch(part, pattern) for part in parts):
            ignored = not line.startswith("!")
    return ignored


def test_what_is_copied_is_there_and_not_ignored() -> None:
    sources = [source for each, _ in copied(INSTRUCTIONS) for source in each]
    assert len(sources) >= 8
    for source in sources:
        assert (ROOT / source).exists() and not is_ignored(source), source
    assert all(is_ignored(path) for path in ("tests/data/x.mp4", ".git/config", "token", "models/__pycache__/a.pyc"))
    assert not is_ignored("models/weights/mobilenetv3_coco.safetensors")


def test_the_packages_are_those_of_the_project_and_all_are_locked() -> None:
    words = next(line for line in INSTRUCTIONS if "wanted.py" in line and line.startswith("RUN ")).split()
    groups = words[words.index("wanted.py") + 1 : words.index(">")]
    done = subprocess.run(
        [sys.executable, ".ci/wanted.py", *groups], cwd=ROOT, capture_output=True, text=True, check=True
    )
    names = {re.match(r"[\w-]+", line)[0] for line in done.stdout.splitlines()}
    assert {"torch", "opencv-python-headless", "openvino"} <= names and "pytest" not in names
    locked = set(re.findall(r"^([\w-]+)==", (ROOT / "requirements.lock").read_text(), re.MULTILINE))
    assert names <= locked


def test_nobody_is_root_and_nothing_can_be_written_but_the_volumes() -> None:
    users = [line.split()[1] for line in FINAL if line.startswith("USER ")]
    assert len(users) == 1 and users[0].partition(":")[0] not in ("root", "0")
    assert interpolated(SERVICE["user"]).partition(":")[0] not in ("root", "0")
    assert SERVICE["read_only"] is True and SERVICE["cap_drop"] == ["ALL"]
    targets = {interpolated(volume).split(":")[1] for volume in SERVICE["volumes"]}
    assert targets == {"/media", "/out", "/cache"}


def test_a_source_is_given_by_the_environment_and_a_secret_stays_a_name() -> None:
    given = "rtsp://user:${file:/run/secrets/camera}@192.0.2.7/1"
    command = [interpolated(word, CENTERSTREAM_SOURCE=given) for word in SERVICE["command"]]
    assert command[0] == given
    assert "--set=serve.token=${file:/run/secrets/token}" in command


@pytest.fixture
def image(tmp_path: Path):
    """What the final stage copies, in a folder that nobody may write; and places like the volumes'."""
    app = tmp_path / "app"
    app.mkdir()
    for sources, target in copied(FINAL):
        for source in sources:
            place = app / (source if target == "./" else target)
            if (ROOT / source).is_dir():
                shutil.copytree(ROOT / source, place, ignore=shutil.ignore_patterns("__pycache__"))
            else:
                shutil.copy(ROOT / source, place)
    for name in ("out", "cache", "tmp"):
        (tmp_path / name).mkdir()
    (tmp_path / "token").write_text(TOKEN + "\n")
    for path in (app, *app.rglob("*")):
        path.chmod(path.stat().st_mode & ~0o222)
    yield tmp_path
    for path in (app, *app.rglob("*")):
        path.chmod(path.stat().st_mode | 0o200)


def contained(image: Path, *words: str) -> dict:
    """How to start the image's command there as its user: for subprocess."""
    places = {"/media": str(DATA), "/out": str(image / "out"), "/run/secrets": str(image)}
    line = [sys.executable, str(image / "app" / "run_pipeline.py"), *words]
    for inside, outside in places.items():
        line = [word.replace(inside, outside) for word in line]
    own = {"CENTERSTREAM_CACHE": str(image / "cache"), "TMPDIR": str(image / "tmp")}
    own |= {name: os.environ[name] for name in ("PATH", "NUMBA_CACHE_DIR", "PYTHONPYCACHEPREFIX") if name in os.environ}
    return {"args": [*without_privileges(), *line], "env": own, "cwd": image / "app", "text": True}


def test_its_command_line_is_one(image) -> None:
    command = [interpolated(word) for word in SERVICE["command"]]
    done = subprocess.run(**contained(image, *command, "--validate"), capture_output=True, timeout=HANG_SECONDS)
    assert done.returncode == 0, done.stderr
    assert "pets09_excerpt: file, 768x576" in done.stdout


@pytest.mark.thorough
def test_it_runs_and_its_health_check_knows_that_it_does(image) -> None:
    port = free_port()
    command = [interpolated(word).replace("0.0.0.0:8080", f"127.0.0.1:{port}") for word in SERVICE["command"]]
    small = ["--realtime", "--input=64x64", "--engine=eager"]
    kind, *check = SERVICE["healthcheck"]["test"]
    assert kind == "CMD" and check[:2] == ["python", "-c"] and "127.0.0.1:8080" in check[2]
    code = check[2].replace("8080", str(port)).replace("/run/secrets/token", str(image / "token"))

    def is_healthy() -> bool:
        return subprocess.run([sys.executable, "-c", code], capture_output=True).returncode == 0

    assert not is_healthy()
    run = subprocess.Popen(
        **contained(image, *command, *small), stdout=subprocess.PIPE, stderr=subprocess.PIPE, process_group=0
    )
    try:
        wait_until(lambda: is_healthy() or run.poll() is not None, what="health")
        assert run.poll() is None
        (image / "token").write_text("another token, of some length")
        assert not is_healthy()
        run.send_signal(signal.SIGTERM)
    finally:
        ended, errors = finish(run, HANG_SECONDS)
    assert ended == 0 and "Traceback" not in errors and TOKEN not in errors
    assert (image / "out" / "objects.jsonl").exists()
