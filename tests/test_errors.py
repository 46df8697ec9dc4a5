"""Credentials in a URL are replaced wherever the URL stands in a text."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.errors import redact

TEXTS = {
    "": "",
    "no url": "no url",
    "rtsp://cam/1": "rtsp://cam/1",
    "rtsp://u:p@cam/1": "rtsp://***@cam/1",
    "rtsp://u@cam": "rtsp://***@cam",
    "rtsp://u:p@ss@cam/1": "rtsp://***@cam/1",
    "open 'rtsp://u:p@cam/1' and http://a:b@c/d": "open 'rtsp://***@cam/1' and http://***@c/d",
    "mail me@example.org": "mail me@example.org",
    "rtsp://cam/live@2x": "rtsp://cam/live@2x",
}


@pytest.mark.parametrize(("text", "shown"), TEXTS.items())
def test_redact(text: str, shown: str) -> None:
    assert redact(text) == shown


@given(st.from_regex(r"[a-zA-Z0-9:@!$%&*._~-]{3,12}", fullmatch=True))
def test_no_password_survives(password: str) -> None:
    assert f":{password}@" not in redact(f"error: rtsp://user:{password}@10.0.0.7/x: refused")
