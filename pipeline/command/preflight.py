"""Is what was asked for there? Tells what can be told before anything slow is started: of the model, its weights and
classes, of the outputs, then of the sources. The stages look again and have the last word. Opens nothing that may
block, writes nothing, and knows no torch.
"""

import re
from collections.abc import Callable, Iterable
from contextlib import suppress
from pathlib import Path

from msgspec.structs import replace

import models
from configs.uri import shown_text
from pipeline.command.files import Identity, check_folders, check_inputs, check_outputs
from pipeline.errors import UsageError
from pipeline.kinds import SINKS, SOURCE
from pipeline.settings import Settings, SourceSettings
from pipeline.source_address import parse_address

_LISTS = (b"#EXTM3U", b"ffconcat version", b"\xef\xbb\xbf#EXTM3U")
_LONGEST_LIST_BYTES = 1 << 20


def check(settings: Settings, config: str | None = None) -> Settings:
    """The settings with what the model itself says; `config` is the file that they are from.

    Raises UsageError, OutputError or SourceError for the first thing that is wrong.
    """
    settings.infer.check_model(models.list_models())
    weights, class_names = _weights(settings)
    settings.postprocess.class_ids(class_names)
    for source_id, source in settings.sources.items():
        source.check_counted(source_id, settings.postprocess.classes or class_names)
    settings.deliver.record.check_classes(settings.postprocess.classes or class_names)
    written = _written(settings, config, weights)
    for source in settings.sources.values():
        check_inputs({"the source": _files(source)}, written)
    return with_models_own(settings)


def with_models_own(settings: Settings) -> Settings:
    """From which score on objects are reported, where the settings do not say and the checkpoint does.

    Raises UsageError for weights that are none, or not for the model.
    """
    if settings.infer.score_threshold is not None:
        return settings
    spec = _described(settings)[1]
    return replace(settings, infer=replace(settings.infer, score_threshold=spec and spec.score_threshold))


def read_again(read: Callable[[], Settings]) -> Settings:
    """Of a file that is followed: its settings with what the model itself says. Raises UsageError."""
    return with_models_own(read())


def check_one(settings: Settings, source_id: str, config: str | None = None) -> None:
    """The same for one source among all, of which others may be running: whatever they read may be gone by now.

    Raises as `check`.
    """
    weights, _ = _weights(settings)
    check_inputs({"the source": _files(settings.sources[source_id])}, _written(settings, config, weights))


def _written(settings: Settings, config: str | None, weights: Path) -> dict[Identity, str]:
    """The files that will be written, with words for each."""
    _check_shared(settings)
    written = check_outputs(_each(settings, settings.deliver.files()))
    check_folders(_each(settings, settings.deliver.folders()))
    check_inputs({"the configuration": [Path(config)] if config else [], "the weights": [weights]}, written)
    return written


def _check_shared(settings: Settings) -> None:
    """Raises UsageError for a file or an address that several sources, or outputs, would have to share and cannot."""
    taken = set()
    for name, (kind, target) in settings.deliver.outputs().items():
        if len(settings.sources) > 1 and not SINKS[kind].is_shared and SOURCE not in target:
            what = "address" if SINKS[kind].schemes else "name"
            raise UsageError(f"deliver.{name}: {shown_text(target)} is for one source; put {SOURCE} into its {what}")
        if SINKS[kind].schemes and target in taken:
            raise UsageError(f"deliver.{name}: {shown_text(target)} is given twice; leave one out")
        taken.add(target)


def _each(settings: Settings, paths: dict[str, str]) -> dict[str, str]:
    """The paths of all that may be written, for each source where it has its own, by what they are called."""
    every = {}
    for name, path in paths.items():
        if SOURCE not in path:
            every[f"deliver.{name}"] = path
            continue
        for source_id in settings.sources:
            every[f"deliver.{name} ({source_id})"] = path.replace(SOURCE, source_id)
    return every


def _weights(settings: Settings) -> tuple[Path, tuple[str, ...]]:
    """Their file, and the classes that the network can have.

    Raises UsageError for weights that are none, or not for the model.
    """
    path, spec = _described(settings)
    if spec:
        return path, spec.class_names
    # Weights without names have the usual classes, or numbered ones: how many shows when they are loaded.
    counted = {name for source in settings.sources.values() for _, name in source.counted()}
    named = dict.fromkeys((*settings.postprocess.classes, *sorted(counted)))
    numbered = (name for name in named if name.startswith(models.NUMBERED_CLASS))
    return path, models.SPECS[settings.infer.model].class_names + tuple(numbered)


def _described(settings: Settings) -> tuple[Path, models.ModelSpec | None]:
    try:
        return models.describe_weights(settings.infer.model, settings.infer.weights)
    except models.CheckpointError as error:
        raise UsageError(f"infer.weights: {error}") from None


def _files(source: SourceSettings) -> Iterable[Path]:
    """What a source reads on this machine. Raises SourceError for an address that leads nowhere."""
    address, text = parse_address(source.uri), source.uri.reveal()
    if address.kind == "file":
        return [Path(text), *_named_in(_list_of_files(Path(text)), Path(text).parent)]
    if address.kind == "pattern":
        return _named_in(text, Path())
    return address.image_paths


def _list_of_files(path: Path) -> str:
    """The text of a playlist or of a list to join; empty for any other file."""
    with suppress(OSError), path.open("rb") as file:
        start = file.read(_LONGEST_LIST_BYTES)
        if start.startswith(_LISTS):
            return start.decode(errors="surrogateescape")
    return ""


def _named_in(text: str, folder: Path) -> list[Path]:
    """The files that are there by a name that stands in `text`, from `folder` on."""
    names = {name for line in text.splitlines() for name in (line, *re.split(r"[\s'\"=:,;\[\]]+", line)) if name}
    found = []
    for name in names:
        with suppress(OSError, ValueError):  # what no name can be
            if (folder / name).is_file():
                found.append(folder / name)
    return found
