"""Reads the settings of a run; every error is one line. Knows the shape of `pipeline.settings`, and no stage."""

from collections.abc import Iterable
from pathlib import Path
from typing import Any

from configs import reader
from configs.reader import ConfigError
from pipeline.errors import UsageError
from pipeline.settings import DeliverSettings, Settings


def load_settings(path: str | None, assignments: Iterable[tuple[str, Any]]) -> Settings:
    """Settings of the YAML file `path` (None: the defaults), with (dotted key, value) pairs applied in order.

    Raises UsageError for a file that cannot be read, an unknown key, or a value of the wrong type or out of range.
    """
    try:
        settings = reader.read_settings(Settings, path, assignments)
    except ConfigError as error:
        raise UsageError(str(error)) from None
    _check_folders(settings.deliver)
    return settings


def parse_assignment(text: str) -> tuple[str, Any]:
    """`infer.score_threshold=0.4` as ("infer.score_threshold", 0.4). Raises UsageError."""
    try:
        return reader.parse_assignment(text)
    except ConfigError as error:
        raise UsageError(str(error)) from None


def _check_folders(deliver: DeliverSettings) -> None:
    for key in ("video", "jsonl", "mot"):
        path = getattr(deliver, key)
        if path and path != "-" and not _folder_exists(key, path):
            raise UsageError(f"deliver.{key}: the folder of {path} does not exist; make it first")


def _folder_exists(key: str, path: str) -> bool:
    try:
        return Path(path).absolute().parent.is_dir()
    except OSError as error:  # a name too long, a folder above that may not be entered
        raise UsageError(f"deliver.{key}: {path}: {error.strerror}") from None
