"""Reads the settings of a run; every error is one line. Knows the shape of `pipeline.settings`, and no stage."""

from collections.abc import Iterable
from typing import Any

from msgspec.structs import replace

from configs import reader, secrets
from configs.reader import ConfigError
from pipeline.errors import UsageError
from pipeline.settings import Settings, SourceSettings


def load_settings(path: str | None, assignments: Iterable[tuple[str, Any]]) -> Settings:
    """Settings of the YAML file `path` (None: the defaults), with (dotted key, value) pairs applied in order, and in
    the sources' addresses what they name (`configs.secrets`).

    Raises UsageError for a file that cannot be read, an unknown key, a value of the wrong type or out of range, or an
    address that names what is not there.
    """
    try:
        settings = reader.read_settings(Settings, path, assignments)
    except ConfigError as error:
        raise UsageError(str(error)) from None
    return replace(settings, sources={name: _filled(name, source) for name, source in settings.sources.items()})


def _filled(source_id: str, source: SourceSettings) -> SourceSettings:
    try:
        return replace(source, uri=secrets.filled(source.uri))
    except secrets.SecretError as error:
        raise UsageError(f"sources.{source_id}.uri: {error}") from None


def parse_assignment(text: str) -> tuple[str, Any]:
    """`infer.score_threshold=0.4` as ("infer.score_threshold", 0.4). Raises UsageError."""
    try:
        return reader.parse_assignment(text)
    except ConfigError as error:
        raise UsageError(str(error)) from None
