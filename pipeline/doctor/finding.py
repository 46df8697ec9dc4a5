"""What a check is asked, and what it answers: a line for people, a record for programs. Knows no check."""

from typing import Literal

from msgspec import Struct

from pipeline.settings import Settings

Level = Literal["ok", "note", "problem"]


class Question(Struct, frozen=True):
    """What a check is asked about: the run that is meant, and of one source its id and how long it is heard."""

    settings: Settings
    source_id: str = ""
    seconds: float = 0.0


class Finding(Struct, frozen=True):
    """One thing that was looked at.

    subject  what, in a word or two; of a source "its id: what"
    level    ok; note: a run works, and this is worth knowing; problem: something that was asked for does not work
    text     what was found, one line without credentials
    advice   what to do; "" where there is nothing to be done, or the text says it
    """

    subject: str
    level: Level
    text: str
    advice: str = ""


def ok(subject: str, text: str) -> Finding:
    return Finding(subject, "ok", text)


def note(subject: str, text: str, advice: str = "") -> Finding:
    return Finding(subject, "note", text, advice)


def problem(subject: str, text: str, advice: str = "") -> Finding:
    return Finding(subject, "problem", text, advice)
