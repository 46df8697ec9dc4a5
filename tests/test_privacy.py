"""A command of ours opens no connection that nobody asked for, and writes nowhere but its outputs and its cache.

Real commands run under strace, as a first start: with a home, a temporary folder and a cache in which there is nothing.
What is told of is each connection, each look-up of a host, and each file that was opened to be written.
"""

import ast
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from models import create_model, save_checkpoint
from tests.kit.harness import HANG_SECONDS
from tests.kit.places import CLIP, ROOT

pytestmark = pytest.mark.thorough

MINI = ROOT / "tests" / "data" / "bccd_mini"
DATA = {"train_json": "train.json", "train_images": "images", "val_json": "train.json", "val_images": "images"}
STRACE = "strace"
CALLS = "trace=connect,sendto,sendmsg,sendmmsg,openat,creat,mkdir,mkdirat"
STRACE_MISSING = "install: apt-get install strace"
# The name of a host is looked for here, and in a name service's socket, whatever protocol is then spoken.
NAMES = ('"/etc/resolv.conf"', '"/etc/hosts"', "/nscd/", "/systemd/resolve", "htons(53)")
LOOPBACK = ('inet_addr("127.', 'inet_pton(AF_INET6, "::1"')
# A call that another thread's came between may have been refused: it counts as done.
MADE = re.compile(
    r'(?P<call>openat|creat|mkdirat|mkdir)\((?:AT_FDCWD, )?"(?P<path>[^"]*)"(?P<how>.*)(?: = \d+|<unfinished)'
)
# Python keeps what it compiled beside each module, ours or another's.
NOBODYS = ("/dev/", "/proc/", "/sys/", "__pycache__")


@pytest.fixture(scope="module")
def fresh(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A user's folder, nothing in it; and folders for temporary files and for outputs."""
    folder = tmp_path_factory.mktemp("fresh")
    for name in ("home", "tmp", "out"):
        (folder / name).mkdir()
    return folder


def trace_of(fresh: Path, *arguments: object) -> list[str]:
    """What the command and all its processes asked of the system, a line for each call."""
    found = shutil.which(STRACE)
    if not found and os.environ.get("CENTERSTREAM_REQUIRE_RTSP") == "1":
        pytest.fail(STRACE_MISSING)
    if not found:
        pytest.skip(STRACE_MISSING)
    trace = fresh / "trace"
    environment = {
        "PATH": os.environ["PATH"],
        "HOME": str(fresh / "home"),
        "TMPDIR": str(fresh / "tmp"),
        "PYTHONPATH": str(ROOT),
    }
    strace = [STRACE, "--follow-forks", "--seccomp-bpf", "-qq", "-s", "200", "-e", CALLS, "-o", str(trace)]
    done = subprocess.run(
        [*strace, sys.executable, *map(str, arguments)],
        cwd=fresh / "out",
        env=environment,
        capture_output=True,
        text=True,
        timeout=HANG_SECONDS,
    )
    assert done.returncode == 0, done.stderr
    assert "Traceback" not in done.stderr, done.stderr
    return trace.read_text(errors="replace").splitlines()


def contacts(trace: list[str]) -> list[str]:
    """Calls that reach, or look for, another machine."""
    return [
        line
        for line in trace
        if any(name in line for name in NAMES)
        or ("sa_family=AF_INET" in line and not any(own in line for own in LOOPBACK))
    ]


def written(trace: list[str], fresh: Path) -> list[str]:
    """What was made or opened to be written outside of the outputs, the temporary folder and our cache."""
    ours = [str(fresh / "out"), str(fresh / "tmp"), str(fresh / "home" / ".cache" / "centerstream")]
    made = (MADE.search(line) for line in trace)
    paths = {
        str(fresh / "out" / found["path"])  # which leaves a whole path as it is
        for found in made
        if found and (found["call"] != "openat" or re.search("O_WRONLY|O_RDWR", found["how"]))
    }
    return sorted(
        path
        for path in paths
        if path != str(fresh / "home" / ".cache")
        and not any(path.startswith(place) for place in ours)
        and not any(place in path for place in NOBODYS)
    )


def left(fresh: Path) -> list[str]:
    """Files in the home but for our cache, and whatever is in the temporary folder, empty folders too."""
    own = fresh / "home" / ".cache" / "centerstream"
    home = [path for path in (fresh / "home").rglob("*") if own not in path.parents and path not in (own, own.parent)]
    return [str(path) for path in (*home, *(fresh / "tmp").rglob("*"))]


def assert_kept_to_itself(trace: list[str], fresh: Path) -> None:
    assert contacts(trace) == []
    assert written(trace, fresh) == []
    assert left(fresh) == []


@pytest.mark.thorough
def test_a_first_start_that_measures_every_engine(fresh) -> None:
    trace = trace_of(
        fresh, ROOT / "run_pipeline.py", CLIP, "--max-frames", 3, "--input", "64x64", "--engine", "auto", "--jsonl", "o"
    )
    assert len(trace) > 1000, "strace saw nothing"
    assert list((fresh / "home" / ".cache" / "centerstream").glob("engines-*.json"))
    assert_kept_to_itself(trace, fresh)


@pytest.mark.slow
@pytest.mark.skipif(not shutil.which("g++"), reason="torch.compile needs a C++ compiler")
def test_a_network_that_is_compiled(fresh) -> None:
    """Of few kinds of layers: the compiler of C++ is started for each, and under strace it is slow."""
    network = create_model("res_18")
    save_checkpoint(network.state_dict(), fresh / "out" / "w.safetensors", network.spec)
    line = (CLIP, "--max-frames", 1, "--input", "64x64", "--engine", "compile", "--set", "run.start_seconds=600")
    weights = ("--model", "res_18", "--weights", "w.safetensors")
    assert_kept_to_itself(trace_of(fresh, ROOT / "run_pipeline.py", *line, *weights), fresh)


def test_a_look_at_this_machine(fresh) -> None:
    assert_kept_to_itself(trace_of(fresh, ROOT / "run_pipeline.py", "doctor", CLIP), fresh)


def test_a_training(fresh) -> None:
    data = [f"data.{name}={MINI / file}" for name, file in DATA.items()]
    small = ["model.input_size=64x64", "schedule.epochs=1", "loop.loaders=1", "loop.batch=4", "out=run"]
    settings = [word for setting in (*data, *small) for word in ("--set", setting)]
    trace = trace_of(fresh, "-m", "train", ROOT / "configs" / "train_smoke.yaml", *settings)
    assert (fresh / "out" / "run" / "last.safetensors").exists()
    assert_kept_to_itself(trace, fresh)


def test_an_export(fresh) -> None:
    trace = trace_of(fresh, "-m", "models.export", "net.onnx", "--width", 64, "--height", 64)
    assert (fresh / "out" / "net.onnx").exists()
    assert_kept_to_itself(trace, fresh)


def test_objects_in_an_image(fresh) -> None:
    image = next((MINI / "images").glob("*.jpg"))
    assert_kept_to_itself(trace_of(fresh, "-m", "models.detect", image, "--out", "found"), fresh)


def test_the_looks_at_a_trace_see_what_they_are_for(fresh) -> None:
    home = fresh / "home"
    trace = [
        '7 connect(3, {sa_family=AF_INET, sin_port=htons(443), sin_addr=inet_addr("192.0.2.7")}, 16) = 0',
        '7 connect(3, {sa_family=AF_INET, sin_port=htons(4430), sin_addr=inet_addr("127.0.0.1")}, 16) = 0',
        '7 connect(3, {sa_family=AF_UNIX, sun_path="/var/run/nscd/socket"}, 110) = -1 ENOENT',
        '7 openat(AT_FDCWD, "/etc/resolv.conf", O_RDONLY|O_CLOEXEC) = 6',
        f'7 openat(AT_FDCWD, "{home}/intel/stats", O_WRONLY|O_CREAT|O_TRUNC|O_CLOEXEC, 0666) = 4',
        f'7 openat(AT_FDCWD, "{home}/.cache/centerstream/a.onnx", O_WRONLY|O_CREAT|O_CLOEXEC, 0666) = 4',
        '7 openat(AT_FDCWD, "/elsewhere/create_mkdir.py", O_RDONLY|O_CLOEXEC) = 4',
        '7 openat(AT_FDCWD, "here", O_RDWR|O_CREAT|O_CLOEXEC, 0666) = 4',
        f'7 mkdir("{home}/intel", 0777) = 0',
        f'7 mkdir("{home}/elsewhere", 0777) = -1 ENOENT (No such file or directory)',
    ]
    assert contacts(trace) == [trace[0], trace[2], trace[3]]
    assert written(trace, fresh) == [f"{home}/intel", f"{home}/intel/stats"]


def imports(path: Path) -> list[str]:
    return [
        name
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Import | ast.ImportFrom)
        for name in ([alias.name for alias in node.names] if isinstance(node, ast.Import) else [node.module or ""])
    ]


@pytest.mark.parametrize("package", ["pipeline", "models", "train"])
def test_no_module_of_ours_is_imported_before_its_process_has_settled(package) -> None:
    assert "configs" in imports(ROOT / package / "__init__.py")


@pytest.mark.parametrize("path", sorted((ROOT / "benchmarks").glob("bench_*.py")), ids=lambda path: path.stem)
def test_every_benchmark_settles_like_a_command(path: Path) -> None:
    assert "common" in imports(path)
    assert any(name.startswith("models") for name in imports(ROOT / "benchmarks" / "common.py"))
