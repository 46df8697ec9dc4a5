"""Silence is counted in time that the listener was awake."""

from pipeline.run.heartbeat import LONGEST_STEP_SECONDS, Heartbeats


def heartbeats(*looks: float) -> Heartbeats:
    """`infer` was heard at second 0; then came looks."""
    beats = Heartbeats()
    beats.heard("infer")
    for now in (0.0, *looks):
        beats.look(now)
    return beats


def test_who_was_never_heard_is_not_silent() -> None:
    assert heartbeats(1.0).silence("track") == 0.0


def test_silence_grows_with_time_until_something_is_heard() -> None:
    beats = heartbeats(0.5, 1.0, 1.5)
    assert beats.silence("infer") == 1.5
    beats.heard("infer")
    assert beats.silence("infer") == 0.0


def test_the_listeners_own_absence_counts_for_no_more_than_one_step() -> None:
    assert heartbeats(0.5, 60.5).silence("infer") == 0.5 + LONGEST_STEP_SECONDS
