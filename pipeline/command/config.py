"""Reads the settings of a run; every error is one line. Knows the shape of `pipeline.settings`, and no stage."""

from collections.abc import Iterable
from typing import Any

from msgspec.structs import replace

from configs import reader, secrets
from configs.reader import ConfigError
from configs.uri import Secret, Uri
from pipeline.errors import UsageError
from pipeline.settings import SHORTEST_TOKEN, Settings


def load_settings(path: str | None, assignments: Iterable[tuple[str, Any]]) -> Settings:
    """Settings of the YAML file `path` (None: the defaults), with (dotted key, value) pairs applied in order, and in
    the addresses of sources and outputs what they name (`configs.secrets`).

    Raises UsageError for a file that cannot be read, an unknown key, a value of the wrong type or out of range, or an
    address that names what is not there.
    """
    try:
        settings = reader.read_settings(Settings, path, assignments)
    except ConfigError as error:
        raise UsageError(str(error)) from None
    sources = {
        name: replace(source, uri=_filled(f"sources.{name}.uri", source.uri))
        for name, source in settings.sources.items()
    }
    also = tuple(_filled("deliver.also", each) if each.network else each for each in settings.deliver.also)
    serve = replace(settings.serve, token=_token(settings.serve.token))
    try:
        deliver = replace(settings.deliver, also=also)
    except ValueError as error:
        raise UsageError(f"deliver: {error}") from None
    return replace(settings, sources=sources, deliver=deliver, serve=serve)


def _token(given: Secret | None) -> Secret | None:
    if given is None:
        return None
    try:
        token = Secret(secrets.value_of(given.reveal()))
    except secrets.SecretError as error:
        raise UsageError(f"serve.token: {error}") from None
    if len(token.reveal()) < SHORTEST_TOKEN:
        raise UsageError(f"serve.token: can be guessed; give {SHORTEST_TOKEN} letters or more")
    return token


def _filled(key: str, address: Uri) -> Uri:
    try:
        return secrets.filled(address)
    except secrets.SecretError as error:
        raise UsageError(f"{key}: {error}") from None


def parse_assignment(text: str) -> tuple[str, Any]:
    """`infer.score_threshold=0.4` as ("infer.score_threshold", 0.4). Raises UsageError."""
    try:
        return reader.parse_assignment(text)
    except ConfigError as error:
        raise UsageError(str(error)) from None
