"""What the doctor finds of a machine: each check is asked about something that is really well, and really broken."""

import os
import resource
import socket
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from configs.uri import Secret, Uri
from models.agreement import Agreement
from models.engines.choice import Measured
from models.spec import WEIGHTS_DIR
from pipeline.doctor import machine, network, packages, places, ports, video
from pipeline.doctor.examine import CHECKS, Check, Examination
from pipeline.doctor.finding import Finding, Question
from pipeline.settings import (
    DeliverSettings,
    EncoderSettings,
    InferSettings,
    ServeSettings,
    Settings,
    SourceSettings,
)
from tests.kit.harness import is_running, wait_until
from tests.kit.places import CLIP, ROOT

NOTHING_ASKED = Settings()
MANY = Settings(sources={f"cam{number}": SourceSettings(uri=Uri(str(CLIP))) for number in range(128)})


def found(check: Callable[[Question], Iterator[Finding]], settings: Settings = NOTHING_ASKED) -> list[Finding]:
    findings = list(check(Question(settings)))
    for each in findings:
        assert each.text and "\n" not in each.text + each.advice, each
    return findings


def levels(findings: list[Finding]) -> list[str]:
    return [each.level for each in findings]


def installed(folder: Path, monkeypatch: pytest.MonkeyPatch, **versions: str) -> None:
    """Packages that come before those of the environment, as far as their records tell."""
    for name, version in versions.items():
        record = folder / f"{name}-{version}.dist-info"
        record.mkdir(parents=True)
        (record / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name.replace('_', '-')}\nVersion: {version}\n")
    monkeypatch.syspath_prepend(str(folder))


# -------------------------------------------------------------------------------------------------------- packages


@pytest.mark.parametrize(
    ("version", "bounds", "is_so"),
    [
        ("1.0", "", True),
        ("2.6", ">=2.6", True),
        ("2.6.0+cpu", ">=2.6", True),
        ("2.15.1", ">=2.6", True),
        ("2.5.9", ">=2.6", False),
        ("18.1.0", ">=18,<19", True),
        ("19.0", ">=18,<19", False),
        ("4.10.0.84", ">=4.10", True),
        ("4.9.0.80", ">=4.10", False),
        ("3.11.0rc1", ">=3.11", True),
    ],
)
def test_versions_are_compared_as_numbers(version: str, bounds: str, is_so: bool) -> None:
    assert packages.is_within(version, bounds) is is_so


@given(st.lists(st.integers(0, 99), min_size=1, max_size=4), st.lists(st.integers(0, 99), min_size=1, max_size=4))
def test_of_two_versions_one_is_at_least_the_other(one: list[int], other: list[int]) -> None:
    a, b = ".".join(map(str, one)), ".".join(map(str, other))
    assert packages.is_within(a, f">={a},<={a}")
    assert packages.is_within(a, f">={b}") or packages.is_within(b, f">={a}")
    assert packages.is_within(a, f"<{b}") is not packages.is_within(a, f">={b}")


def test_every_bound_of_the_project_is_understood() -> None:
    declared = packages.declared()
    assert len(declared.packages) > 8
    for bounds in (declared.python, *(packages._wanted(requirement).bounds for requirement in declared.packages)):
        assert packages._BOUND.search(bounds) and packages._BOUND.sub("", bounds).strip(" ,") == "", bounds


def test_an_environment_that_is_as_it_should_be() -> None:
    assert levels(found(packages.python) + found(packages.packages) + found(packages.opencv)) == ["ok"] * 3


def test_an_older_package_is_named_with_what_is_needed(tmp_path, monkeypatch) -> None:
    installed(tmp_path, monkeypatch, msgspec="0.18.6", av="19.0.0")
    findings = found(packages.packages)
    assert levels(findings) == ["problem", "problem"]
    assert [each.text for each in findings] == [
        "av 19.0.0, and >=18,<19 is needed",
        "msgspec 0.18.6, and >=0.19 is needed",
    ]
    assert "'msgspec>=0.19'" in findings[1].advice


def test_two_flavours_of_opencv_are_one_too_many(tmp_path, monkeypatch) -> None:
    installed(tmp_path, monkeypatch, opencv_python="4.12.0", opencv_contrib_python="4.12.0")
    (finding,) = found(packages.opencv)
    assert finding.level == "problem" and "overwrite each other" in finding.text
    assert "pip uninstall" in finding.advice and "opencv-contrib-python" in finding.advice


# ----------------------------------------------------------------------------------------------------------- video


def test_pictures_of_both_codecs_come_back() -> None:
    (finding,) = found(video.decoders)
    assert finding.level == "ok" and "H.264 and HEVC" in finding.text


def test_a_decoder_that_gives_nothing_back_is_one_that_fails() -> None:
    assert video._decoding_fails("h264", "libx265")
    assert video._decoding_fails("no_such_decoder", "libx264")


def test_an_encoder_that_was_asked_for_and_does_not_work_is_a_problem() -> None:
    usual = found(video.encoders)
    if "no hardware encoder" not in usual[1].text:
        pytest.skip("here a hardware encoder works")
    assert levels(usual) == ["ok", "note"]
    asked = Settings(deliver=DeliverSettings(encoder=EncoderSettings(codec="h264_nvenc")))
    last = found(video.encoders, asked)[-1]
    assert last.level == "problem" and "h264_nvenc does not work here" in last.text


def test_a_window_matters_only_to_who_asks_for_one(monkeypatch) -> None:
    for name in ("DISPLAY", "WAYLAND_DISPLAY"):
        monkeypatch.delenv(name, raising=False)
    assert levels(found(video.window)) == ["note"]
    assert levels(found(video.window, Settings(deliver=DeliverSettings(show=True)))) == ["problem"]


# --------------------------------------------------------------------------------------------------------- network


def test_weights_as_they_were_shipped_and_with_one_bit_changed(tmp_path) -> None:
    (finding,) = found(network.weights)
    assert finding.level == "ok" and "as they were shipped" in finding.text
    name = "mobilenetv3_coco.safetensors"
    content = bytearray((WEIGHTS_DIR / name).read_bytes())
    content[-1] ^= 1
    (tmp_path / name).write_bytes(content)
    (tmp_path / "NOTICE").write_text((WEIGHTS_DIR / "NOTICE").read_text())
    (finding,) = network._as_shipped(tmp_path / name, "the file")
    assert finding.level == "problem" and "git checkout" in finding.advice


@pytest.mark.parametrize(
    ("infer", "said"),
    [
        (InferSettings(model="dla_34"), "dla_34 ships without weights"),
        (InferSettings(weights="nowhere.safetensors"), "no such file"),
        (InferSettings(weights=str(CLIP)), "no weights file"),
        (InferSettings(model="yolo"), "allowed are"),
    ],
)
def test_weights_that_cannot_be_had(infer: InferSettings, said: str) -> None:
    (finding,) = found(network.weights, Settings(infer=infer))
    assert finding.level == "problem" and said in finding.text


@pytest.mark.parametrize(
    ("infer", "said"),
    [
        (InferSettings(device="cuda:9"), "this machine has"),
        (InferSettings(device="cpu", engine="cuda_graphs"), "cuda_graphs cannot be had on cpu"),
        (InferSettings(device="cpu", precision="fp16"), "nothing computes in fp16 on cpu"),
        (InferSettings(device="cpu", engine="eager", precision="bf16"), "nothing computes in bf16 on cpu"),
    ],
)
def test_an_engine_that_was_asked_for_and_cannot_be_had(infer: InferSettings, said: str) -> None:
    last = found(network.engines, Settings(infer=infer))[-1]
    assert last.level == "problem" and said in last.text


def test_engines_and_their_precisions(monkeypatch) -> None:
    everything = found(network.engines, Settings(infer=InferSettings(device="cpu")))
    assert levels(everything) == ["ok"]
    assert "eager in fp32" in everything[0].text and "openvino in fp32" in everything[0].text
    monkeypatch.setattr("models.engines.find_spec", lambda name: None)
    missing = found(network.engines, Settings(infer=InferSettings(device="cpu")))
    assert levels(missing) == ["note", "note", "ok"] and "pip install 'centerstream[openvino]'" in missing[1].text
    asked = found(network.engines, Settings(infer=InferSettings(device="cpu", engine="openvino")))
    assert asked[-1].level == "problem"


def test_compile_without_a_compiler(monkeypatch, tmp_path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.delenv("CXX", raising=False)
    findings = found(network.engines, Settings(infer=InferSettings(device="cpu", engine="compile")))
    assert levels(findings) == ["ok", "problem"] and "C++ compiler" in findings[1].text


def test_a_driver_that_lists_what_torch_cannot_use_is_a_problem(tmp_path, monkeypatch) -> None:
    import torch

    if torch.cuda.is_available():
        assert levels(found(network.gpu)) == ["ok"]
        return
    assert levels(found(network.gpu)) == ["note"]
    program = tmp_path / "nvidia-smi"
    program.write_text("#!/bin/sh\necho 'GPU 0: NVIDIA L4 (UUID: GPU-0123)'\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    (finding,) = found(network.gpu)
    assert finding.level == "problem" and "NVIDIA L4" in finding.text and "UUID" not in finding.text


def test_what_is_remembered(tmp_path, monkeypatch) -> None:
    monkeypatch.setenv("CENTERSTREAM_CACHE", str(tmp_path))
    assert levels(found(network.measured)) == ["note"]
    (tmp_path / "engines-x.0123456789abcdef.json").write_bytes(b"no longer JSON")
    assert "the last found" not in found(network.measured)[0].text
    taken = Measured({"eager": 5.0, "openvino": 12.5}, {}, {"x": Agreement(1.0, 1.0, 20)})
    (tmp_path / "engines-y.0123456789abcdef.json").write_bytes(msgspec.json.encode(taken))
    (finding,) = found(network.measured)
    assert finding.level == "ok" and "openvino the best, 12.5 images a second" in finding.text


# --------------------------------------------------------------------------------------------------------- machine


def test_a_machine_that_has_enough() -> None:
    assert levels(found(machine.memory) + found(machine.open_files)) == ["ok", "ok"]
    assert found(machine.processor)[0].level == "ok"
    assert levels(found(machine.clock)) in (["ok"], ["note"])


def test_too_few_open_files_for_as_many_sources() -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (300, hard))
        one, many = found(machine.open_files)[0], found(machine.open_files, MANY)[0]
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    assert (one.level, many.level) == ("ok", "problem")
    assert "300 may be open" in many.text and "ulimit -n" in many.advice


def test_too_little_memory(monkeypatch) -> None:
    monkeypatch.setattr(machine, "RUN_BYTES", 1 << 50)
    (finding,) = found(machine.memory)
    assert finding.level == "problem" and "GiB are free" in finding.text


def test_limits_of_a_container(tmp_path) -> None:
    lines = Path("/proc/self/cgroup").read_text().splitlines()
    kinds = {kind for line in lines for kind in (line.split(":")[1].split(",") if line.split(":")[1] else ["unified"])}
    assert machine.cpu_quota(tmp_path) is None and machine.memory_limit(tmp_path) is None
    if "unified" in kinds or any(line.startswith("0::") for line in lines):
        (tmp_path / "cpu.max").write_text("150000 100000\n")
        (tmp_path / "memory.max").write_text("max\n")
        assert machine.cpu_quota(tmp_path) == 1.5 and machine.memory_limit(tmp_path) is None
        (tmp_path / "cpu.max").write_text("max 100000\n")
        (tmp_path / "memory.max").write_text(f"{1 << 30}\n")
        (tmp_path / "memory.current").write_text(f"{900 << 20}\n")
        (tmp_path / "memory.stat").write_text(f"anon 5\ninactive_file {200 << 20}\nfile 7\n")
        assert machine.cpu_quota(tmp_path) is None and machine.memory_limit(tmp_path) == 1 << 30
        assert machine.memory_used(tmp_path) == 700 << 20
    if "memory" in kinds:
        old = tmp_path / "memory"
        old.mkdir()
        (old / "memory.limit_in_bytes").write_text("9223372036854771712\n")
        before = machine.memory_limit(tmp_path)
        (old / "memory.limit_in_bytes").write_text(f"{512 << 20}\n")
        assert before != 512 << 20 and machine.memory_limit(tmp_path) == 512 << 20


# ---------------------------------------------------------------------------------------------------------- places


@pytest.fixture
def temporary(tmp_path, monkeypatch) -> Iterator[Path]:
    """The temporary folder, of a short path."""
    with tempfile.TemporaryDirectory(dir="/tmp") as folder:
        monkeypatch.setattr(tempfile, "tempdir", folder)
        yield Path(folder)


def test_places_that_can_be_written_are_left_as_they_were(temporary, tmp_path, monkeypatch) -> None:
    monkeypatch.setenv("CENTERSTREAM_CACHE", str(tmp_path / "cache"))
    assert levels(found(places.temporary_folder)) == ["ok"]
    assert found(places.cache)[0].level in ("ok", "note")  # for want of room
    assert str(tmp_path / "cache") in found(places.cache)[0].text
    assert list(temporary.iterdir()) == [] and list((tmp_path / "cache").iterdir()) == []


def test_a_long_path_is_told_with_where_the_sockets_are_then(temporary, monkeypatch) -> None:
    long = temporary / ("t" * 80)
    long.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(long))
    (finding,) = found(places.temporary_folder)
    assert finding.level == "note" and "lie in /tmp instead" in finding.text and "TMPDIR" in finding.advice


def test_a_temporary_folder_that_is_gone(temporary, monkeypatch) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(temporary / "gone"))
    (finding,) = found(places.temporary_folder)
    assert finding.level == "problem" and "TMPDIR" in finding.advice


def test_a_cache_that_cannot_be_written_and_where_it_is_instead(temporary, tmp_path, monkeypatch) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("CENTERSTREAM_CACHE", str(tmp_path / "file" / "cache"))
    (finding,) = found(places.cache)
    assert finding.level == "note" and str(temporary) in finding.text and "CENTERSTREAM_CACHE" in finding.advice


def test_no_cache_at_all(temporary, tmp_path, monkeypatch) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("CENTERSTREAM_CACHE", str(tmp_path / "file" / "cache"))
    (temporary / f".centerstream-{os.getuid()}").mkdir(mode=0o777)
    (temporary / f".centerstream-{os.getuid()}").chmod(0o777)  # anybody's: nothing there is trusted
    (finding,) = found(places.cache)
    assert finding.level == "problem" and "CENTERSTREAM_CACHE" in finding.advice


def alone(module: str, function: str, **options) -> list[Finding]:
    done = subprocess.run(
        [sys.executable, "-m", "pipeline.doctor.alone", module, function, function, "60"],
        input=msgspec.json.encode(Question(NOTHING_ASKED), enc_hook=Uri.reveal),
        capture_output=True,
        cwd=ROOT,
        **options,
    )
    return [msgspec.json.decode(line, type=Finding) for line in done.stdout.splitlines()]


def test_shared_memory_is_reserved_without_dev_shm() -> None:
    before = len(list(Path("/proc/self/fd").iterdir()))
    (finding,) = found(places.shared_memory)
    assert finding.level == "ok" and "memfd" in finding.text
    assert len(list(Path("/proc/self/fd").iterdir())) == before


def test_shared_memory_under_a_limit_of_addresses() -> None:
    limit = (8 << 30, 8 << 30)
    (finding,) = alone(
        "pipeline.doctor.places", "shared_memory", preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_AS, limit)
    )
    assert finding.level == "problem" and "ulimit -v" in finding.text + finding.advice


# ----------------------------------------------------------------------------------------------------------- ports


def served_at(at: str) -> Settings:
    return Settings(serve=ServeSettings(at=at, token=Secret("a-token-of-many-letters")))


def test_a_port_is_asked_for_only_where_one_is_wanted() -> None:
    assert found(ports.port) == []


def test_a_port_that_is_free_and_one_that_is_taken() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        at = f"127.0.0.1:{taken.getsockname()[1]}"
        (finding,) = found(ports.port, served_at(at))
        assert finding.level == "problem" and "in use" in finding.text and "another port" in finding.advice
    (finding,) = found(ports.port, served_at(at))
    assert finding.level == "ok" and "only this machine" in finding.text
    assert "with the token" in found(ports.port, served_at(at.replace("127.0.0.1", "0.0.0.0")))[0].text


def test_a_port_where_results_are_to_be_published() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        also = f"tcp://127.0.0.1:{taken.getsockname()[1]}"
        settings = Settings(deliver=DeliverSettings(also=(also, "jsonl:objects.jsonl")))
        (finding,) = found(ports.port, settings)
        assert finding.level == "problem" and also in finding.text
    assert levels(found(ports.port, settings)) == ["ok"]


def test_an_address_that_this_machine_does_not_have() -> None:
    (finding,) = found(ports.port, served_at("192.0.2.1:8080"))
    assert finding.level == "problem" and "127.0.0.1" in finding.advice


# --------------------------------------------------------------------------------------------------------- examine

BROKEN = """
import ctypes, os, signal, subprocess, sys, time
from pipeline.doctor.finding import ok

def well(question):
    print("chatter of Python"); os.write(1, b"chatter of a library")
    yield ok("well", "all is well")

def crashes(question):
    yield ok("crashes", "said before")
    ctypes.string_at(0)

def leaves(question):
    yield ok("leaves", "said before")
    os._exit(7)

def fails(question):
    yield ok("fails", "said before")
    raise ValueError("rtsp://user:pQ7zpass@host")

def hangs(question):
    yield ok("hangs", "said before")
    child = subprocess.Popen(["sleep", "600"])
    open(os.environ["PIDS"], "w").write(f"{os.getpid()} {child.pid}")
    signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
    time.sleep(600)
"""


@pytest.fixture
def broken(tmp_path, monkeypatch) -> Callable[[str, float], Check]:
    (tmp_path / "brokenchecks.py").write_text(BROKEN)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    monkeypatch.setenv("PIDS", str(tmp_path / "pids"))
    return lambda function, seconds=60.0: Check(function, "brokenchecks", function, seconds)


@pytest.mark.parametrize(
    ("function", "how"),
    [
        ("crashes", "was ended by SIGSEGV"),
        ("leaves", "ended with code 7"),
        ("fails", "the check itself failed: ValueError at"),
    ],
)
def test_a_check_that_breaks_is_a_finding_and_what_it_said_before_counts(broken, function: str, how: str) -> None:
    with Examination(NOTHING_ASKED, 1.0) as examination:
        said, finding, well = examination.of_machine((broken(function), broken("well")))
    assert (said.level, said.text) == ("ok", "said before")
    assert finding.level == "problem" and how in finding.text and "pQ7zpass" not in finding.text
    assert well == Finding("well", "ok", "all is well")


def test_a_check_that_hangs_is_ended_with_all_that_it_started(broken, tmp_path) -> None:
    with Examination(NOTHING_ASKED, 1.0) as examination:
        said, finding = examination.of_machine((broken("hangs", 6.0),))
    assert said.text == "said before"
    assert finding.level == "problem" and "no answer within 6 s" in finding.text
    pids = [int(pid) for pid in (tmp_path / "pids").read_text().split()]
    wait_until(lambda: not any(map(is_running, pids)), 10, "the end of what hung")


def test_who_leaves_early_leaves_nothing_behind(broken, tmp_path) -> None:
    with Examination(NOTHING_ASKED, 1.0) as examination:
        findings = examination.of_machine((broken("well"), broken("hangs")))  # kept: it ends all when it is let go
        first = next(findings)
        wait_until(lambda: (tmp_path / "pids").exists() and (tmp_path / "pids").read_text(), what="the hang")
    assert first.subject == "well"
    pids = [int(pid) for pid in (tmp_path / "pids").read_text().split()]
    wait_until(lambda: not any(map(is_running, pids)), 10, "the end of what hung")


def test_every_check_is_a_function() -> None:
    from importlib import import_module

    for check in CHECKS:
        assert callable(getattr(import_module(check.module), check.function)), check
    assert len({check.subject for check in CHECKS}) == len(CHECKS)
