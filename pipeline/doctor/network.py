"""What computes: the weights, the engines and their precisions, the GPU, and what earlier starts have measured.

The one module of the doctor that imports `models`, and through it torch: in a process of its own, as all checks are, so
no command pays for it. Knows no pipeline but its settings.
"""

import hashlib
import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import msgspec

from configs.folders import cache_dir
from configs.uri import shown_text
from models import SPECS, CheckpointError, describe_weights
from models.devices import choose_device, processor_name
from models.engines import ENGINES, EngineError, precisions
from pipeline.doctor.finding import Finding, Question, note, ok, problem
from pipeline.settings import InferSettings

SMI, SMI_SECONDS = "nvidia-smi", 20.0
# What torch.compile looks for.
COMPILERS = ("g++", "clang++", "c++")


def weights(question: Question) -> Iterator[Finding]:
    infer = question.settings.infer
    try:
        path, spec = describe_weights(infer.model, infer.weights)
    except (CheckpointError, ValueError) as error:
        yield problem("weights", str(error), "python -m models.zoo lists what there is")
        return
    told = f"{shown_text(str(path))}, {path.stat().st_size / 1e6:.1f} MB"
    if path == SPECS[infer.model].weights_file:
        yield from _as_shipped(path, told)
    elif spec:
        yield ok("weights", f"{told}, for {spec.name} with {len(spec.class_names)} classes")
    else:
        yield ok("weights", f"{told}; whether they fit {infer.model} shows when they are loaded")


def _as_shipped(path: Path, told: str) -> Iterator[Finding]:
    """The NOTICE beside the file has its checksum."""
    with path.open("rb") as file:
        checksum = hashlib.file_digest(file, "sha256").hexdigest()
    if f"{path.name}\nSHA-256 {checksum}\n" in (path.parent / "NOTICE").read_text():
        yield ok("weights", f"{told}, as they were shipped (SHA-256 {checksum[:12]}…)")
    else:
        how = "take the file from the repository again: git checkout models/weights"
        yield problem("weights", f"{told}: not the file that was shipped (SHA-256 {checksum[:12]}…)", how)


def computing(question: Question) -> Iterator[Finding]:
    """What needs torch, for which one process is enough."""
    for check in (engines, gpu, measured):
        yield from check(question)


def engines(question: Question) -> Iterator[Finding]:
    infer = question.settings.infer
    try:
        device = choose_device(infer.device, "infer.device")
    except ValueError as error:
        yield problem("engines", str(error), "--device auto")
        return
    found: dict[str, tuple[str, ...]] = {}
    for name, (_, _, package, devices) in ENGINES.items():
        if device.partition(":")[0] not in devices:
            continue
        try:
            found[name] = precisions(name, device)
        except EngineError as error:
            yield note("engines", str(error).partition("; here there are")[0])
        except Exception as error:  # whatever a runtime that is broken has to say
            how = f"pip install --force-reinstall {package}" if package else "pip install --force-reinstall torch"
            yield problem("engines", f"{name} cannot be imported: {type(error).__name__}", how)
    if found:
        listed = "; ".join(f"{name} in {' or '.join(each)}" for name, each in found.items())
        yield ok("engines", f"on {device}: {listed}{_on_compiler(found)}")
    yield from _what_was_asked(infer, device, found)


def _on_compiler(found: dict[str, tuple[str, ...]]) -> str:
    return " (compile wants a C++ compiler, and there is none)" if "compile" in found and not _has_compiler() else ""


def _has_compiler() -> bool:
    return any(shutil.which(name) for name in filter(None, (os.environ.get("CXX"), *COMPILERS)))


def _what_was_asked(infer: InferSettings, device: str, found: dict[str, tuple[str, ...]]) -> Iterator[Finding]:
    """Of an engine and a precision that the settings name."""
    allowed = "auto, " + ", ".join(found)
    if infer.engine != "auto" and infer.engine not in found:
        yield problem("engines", f"infer.engine: {infer.engine} cannot be had on {device}", f"allowed is {allowed}")
        return
    if infer.engine == "compile" and not _has_compiler():
        yield problem("engines", "infer.engine: compile needs a C++ compiler", "install g++, or take --engine auto")
    there = {each for name, every in found.items() if infer.engine in ("auto", name) for each in every}
    if infer.precision != "auto" and infer.precision not in there:
        how = f"allowed is auto, {', '.join(sorted(there))}"
        yield problem("engines", f"infer.precision: nothing computes in {infer.precision} on {device}", how)


def gpu(question: Question) -> Iterator[Finding]:
    import torch

    listed = _listed_by_driver()
    if torch.cuda.is_available():
        found = [torch.cuda.get_device_properties(index) for index in range(torch.cuda.device_count())]
        told = [f"cuda:{index} {each.name}, {each.total_memory / 2**30:.0f} GiB" for index, each in enumerate(found)]
        yield ok("GPU", f"{'; '.join(told)} (torch {torch.__version__})")
    elif listed and torch.version.cuda:
        text = f"the driver has {listed}, and torch {torch.__version__} for CUDA {torch.version.cuda} cannot use it"
        yield problem("GPU", text, "a newer driver, or a torch for the CUDA of this one; --device cpu does without")
    elif listed:
        text = f"the driver has {listed}, and torch {torch.__version__} was built without CUDA"
        yield problem("GPU", text, "install a torch with CUDA; --device cpu does without")
    else:
        why = f"{SMI} is not there" if shutil.which(SMI) is None else f"{SMI} lists none"
        text = f"none ({why}): the network computes on {processor_name()}, for which the default was made"
        yield note("GPU", text, "nothing to do, unless there should be one: install its driver")


def _listed_by_driver() -> str:
    """The GPUs that the driver knows, "" for none; a driver that hangs is left after a while."""
    program = shutil.which(SMI)
    if program is None:
        return ""
    try:
        done = subprocess.run([program, "-L"], capture_output=True, text=True, timeout=SMI_SECONDS)
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return "; ".join(line.partition(" (UUID")[0] for line in done.stdout.splitlines() if line.startswith("GPU "))


def measured(question: Question) -> Iterator[Finding]:
    """What is in the cache; a file that is not as it was made counts as none, and will be made anew."""
    from models.engines.choice import Measured, fastest

    folder = cache_dir()
    decode = msgspec.json.Decoder(Measured).decode
    last = ""
    known = sorted(folder.glob("engines-*.json"), key=lambda path: path.stat().st_mtime)
    for path in known:
        try:
            speeds = decode(path.read_bytes())
        except (msgspec.MsgspecError, OSError):
            continue
        taken = fastest(speeds.engines, speeds.agreements)
        if taken in speeds.engines:
            last = f"; the last found {taken} the best, {speeds.engines[taken]:.1f} images a second"
    starts, graphs = (len(list(folder.glob(pattern))) for pattern in ("start-*.ready", "*.onnx"))
    if not known and not starts:
        text = "nothing yet: the first start measures the engines, which takes half a minute or so"
        yield note("measured", text, "nothing to do: those after it know")
        return
    told = f"comparisons of engines: {len(known)}, starts: {starts}, exported networks: {graphs}"
    yield ok("measured", f"remembered are {told}{last}")
