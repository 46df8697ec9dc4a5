"""An address prints itself without secrets, whatever is in it; so does any text that may be one."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from configs.uri import Uri, shown, shown_text

# Address → how it is shown, and the short name that a source gets from it
SHOWN = {
    "": ("", "source"),
    "street.mp4": ("street.mp4", "street"),
    "/videos/a b.mp4": ("/videos/a b.mp4", "a-b"),
    "me@home.mp4": ("***@…", "source"),  # the end of an address that a space had cut in two looks the same
    "frames/*.jpg": ("frames/*.jpg", "source"),
    "frames/img?.jpg": ("frames/img?.jpg", "img"),
    "0": ("0", "0"),
    "/dev/video0": ("/dev/video0", "video0"),
    "lavfi:testsrc2=size=640x360": ("lavfi:testsrc2=size=640x360", "testsrc2"),
    "two\nlines.mp4": ("two\\nlines.mp4", "two-lines"),
    "not\udc80utf.mp4": ("not\\x80utf.mp4", "not-utf"),
    "x" * 5000: ("x" * 100 + "…" + "x" * 100, "x" * 64),
    # On a network
    "rtsp://cam": ("rtsp://cam", "cam"),
    "rtsp://cam/": ("rtsp://cam/", "cam"),
    "rtsp://10.0.0.7:554/Streaming/1": ("rtsp://10.0.0.7:554/…", "10-0-0-7"),
    "rtsp://[2001:db8::7]:554/1": ("rtsp://[2001:db8::7]:554/…", "2001-db8--7"),
    "rtsp://user:pass@10.0.0.7/1": ("rtsp://***@10.0.0.7/…", "10-0-0-7"),
    "rtsp://user@cam": ("rtsp://***@cam", "cam"),
    "rtsp://u:p@ss@cam/1": ("rtsp://***@cam/…", "cam"),
    "rtsp://u:p w'\"[x]\\\n@cam/1": ("rtsp://***@cam/…", "cam"),
    "https://cam/live?token=abc": ("https://cam/…", "cam"),
    "https://cam?token=abc": ("https://cam/…", "cam"),
    # A / in the password: what looks like the host is the user
    "rtsp://u:pa/ss@cam/1": ("rtsp://…", "rtsp"),
    "rtsp://u:12/34@cam/1": ("rtsp://…", "rtsp"),
    "rtsp://u:pa?ss@cam/1": ("rtsp://…", "rtsp"),
    "rtsp://u:pa#ss@cam/1": ("rtsp://…", "rtsp"),
    "rtsp://u:pass cam/1": ("rtsp://…", "rtsp"),
    "rtsp://[bad/1": ("rtsp://…", "rtsp"),
    "rtsp://": ("rtsp://…", "rtsp"),
    # Not an address, and yet it may hold a password
    "user:pass@10.0.0.7/1": ("***@…", "source"),
    "rtsp:/user:pass@10.0.0.7/1": ("…://…", "source"),
    "10.0.0.7/live?token=abc": ("10.0.0.7/live?…", "source"),
    "uri=rtsp://user:pass@cam": ("…://…", "source"),
    "word@127.0.0.1:1/live": ("***@…", "source"),
    "127.0.0.1:554/live/token": ("…://…", "source"),
    "rtsp:host/live": ("…://…", "source"),
    "rtsp:\\\\user:pass\\token": ("…://…", "source"),
    "rtsp:\\/\\/user:pass\\/h": ("…://…", "source"),
    "rtsp%3A%2F%2Fuser%3Apass%2Ftoken": ("…://…", "source"),
    "rtsp：//user：pass/x": ("…://…", "source"),
    "user:pass＠host": ("***@…", "source"),
    "rtsp ://user:pass/host": ("…://…", "source"),
    "lavfi:testsrc2=rate=1/40": ("lavfi:testsrc2=rate=1/40", "testsrc2"),
    "lavfi:movie=http\\\\://host\\\\:80/token": ("lavfi:movie…", "movie"),
    "lavfi:movie=clip.mp4": ("lavfi:movie…", "movie"),
}


@pytest.mark.parametrize(("text", "expected"), SHOWN.items(), ids=range(len(SHOWN)))
def test_an_address_is_shown_without_secrets(text: str, expected: tuple[str, str]) -> None:
    uri = Uri(text)
    assert (uri.shown, uri.name) == expected
    assert shown_text(text) == uri.shown
    assert (str(uri), f"{uri}", repr(uri)) == (uri.shown, uri.shown, f"Uri({uri.shown!r})")


VALUES = {
    "text": ("a", "'a'"),
    "a number": (3, "3"),
    "nothing": (None, "null"),
    "true": (True, "true"),
    "a list": ([1, "rtsp://u:p@cam"], "[…]"),
    "a mapping": ({"rtsp://u": "p@cam"}, "{…}"),
    "an address": (Uri("rtsp://u:p@cam"), "'rtsp://***@cam'"),
}


@pytest.mark.parametrize(("value", "expected"), VALUES.values(), ids=VALUES)
def test_any_value_is_shown_without_secrets(value: object, expected: str) -> None:
    assert shown(value) == expected


SENT = {
    "rtsp://cam/a b": "rtsp://cam/a b",
    "rtsp://u:p@cam/1": "rtsp://u:p@cam/1",
    "rtsp://u:p%20w@cam/1": "rtsp://u:p%20w@cam/1",
    "rtsp://u:100%@cam/1": "rtsp://u:100%25@cam/1",
    "rtsp://u:p w@x@cam:8554/1?a=b": "rtsp://u:p%20w%40x@cam:8554/1?a=b",
    'rtsp://ü:[\\]"\n@cam': "rtsp://%C3%BC:%5B%5C%5D%22%0A@cam",
}


@pytest.mark.parametrize(("text", "sent"), SENT.items(), ids=range(len(SENT)))
def test_letters_that_would_end_a_password_are_encoded_for_ffmpeg(text: str, sent: str) -> None:
    assert Uri(text).for_ffmpeg() == sent


SECRET = "Zq7xKv"
HOSTILE = st.text(st.characters(exclude_categories=["Cs"]), max_size=6)


@given(HOSTILE, HOSTILE, st.sampled_from(["rtsp", "http", "srt+x", "RTSP"]), st.text("@:/?#[]\\ \n'\"%", max_size=8))
def test_no_secret_is_shown_whatever_stands_around_it(a: str, b: str, scheme: str, tail: str) -> None:
    secret = a + SECRET + b
    addresses = [
        f"{scheme}://{secret}:{secret}@cam/{secret}",
        f"{scheme}://u:{secret}{tail}@cam:554/",
        f"{scheme}://cam/{secret}{tail}",
        f"{scheme}://cam:1?k={secret}#{tail}",
        f"u:{secret}@cam{tail}",
    ]
    for uri in map(Uri, addresses):
        told = f"{uri.shown} {uri.name} {uri!r} {shown([uri.reveal()])} {uri.network and uri.network.problem}"
        assert SECRET not in told
        assert told.isprintable()


def test_equal_addresses_are_equal_and_nothing_else_is() -> None:
    assert Uri("rtsp://a:b@cam") == Uri("rtsp://a:b@cam") != Uri("rtsp://a:c@cam")
    assert len({Uri("a"), Uri("a"), Uri("b")}) == 2 and sorted([Uri("b"), Uri("a")]) == [Uri("a"), Uri("b")]
    assert Uri("a") != "a"
