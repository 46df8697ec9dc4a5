"""One line of a log that programs read. Imports nothing slow: it also tells why a command could not even begin."""

import time
from typing import Any

import msgspec


def log_line(level: str, event: str, text: str, **more: Any) -> str:
    """A JSON object, without a newline."""
    line = {"at_unix": round(time.time(), 3), "level": level, "event": event, "text": text}
    return msgspec.json.encode(line | more).decode()


def error_line(text: str, is_log: bool) -> str:
    return log_line("error", "error", text) if is_log else f"error: {text}"
