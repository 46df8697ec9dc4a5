"""The answers to servers that ask for a password are those of the examples in the RFCs."""

import base64

import pytest

from pipeline.sinks import password

REALM = 'realm="http-auth@example.org", qop="auth, auth-int"'
NONCE = 'nonce="7ypf/xlj9XXwfDPEoM4URrv/xwf94BcCAzFZH4GiTo0v"'
OPAQUE = 'opaque="FQhe/qaU925kfnzjCev0ciny7QMkPqMAFRtzCUYo5tdS"'
OWN_NONCE = "f2/wE4q74E6zIJEtWaHKaf5wv/H5QzzpXusqGemxURZJ"
BASIC, MD5, SHA = 'Basic realm="a"', 'Digest realm="a", nonce="b"', 'Digest realm="a", nonce="b", algorithm=SHA-256'


@pytest.mark.parametrize(
    ("challenges", "chosen"),
    [
        ([], ""),
        (["Negotiate"], ""),
        (['Digest realm="a", nonce="b", algorithm=SHA-512-256'], ""),
        ([BASIC], BASIC),
        ([BASIC, MD5], MD5),
        ([SHA, MD5], SHA),
    ],
)
def test_the_challenge_is_taken_that_shows_least(challenges: list[str], chosen: str) -> None:
    assert password.choose(challenges) == chosen


@pytest.mark.parametrize(
    ("algorithm", "response"),
    [
        ("MD5", "8ca523f5e9506fed4657c9700eebdbec"),
        ("SHA-256", "753927fa0e85d155564e2e272a28d1802ca10daf4496794697cf8db5856cb6c1"),
    ],
)
def test_the_examples_of_rfc_7616(algorithm: str, response: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(password.secrets, "token_hex", lambda size: OWN_NONCE)
    challenge = f"Digest {REALM}, algorithm={algorithm}, {NONCE}, {OPAQUE}"
    told = password.answer(challenge, "GET", "/dir/index.html", "Mufasa", "Circle of Life", 1)
    expected = ('username="Mufasa"', f'response="{response}"', OPAQUE, NONCE, "nc=00000001", "qop=auth")
    assert all(part in told for part in (*expected, f"algorithm={algorithm}", f'cnonce="{OWN_NONCE}"'))
    assert "Circle" not in told


def test_a_server_of_an_older_time_wants_no_own_nonce() -> None:
    challenge = 'Digest realm="testrealm@host.com", nonce="dcd98b7102dd2f0e8b11d0f600bfb0c093"'
    told = password.answer(challenge, "GET", "/dir/index.html", "Mufasa", "Circle Of Life", 1)
    assert 'response="670fd8c2df070c60b045671b8b24ff02"' in told and "nc=" not in told


def test_a_basic_answer_is_the_pair() -> None:
    told = password.answer(BASIC, "ANNOUNCE", "rtsp://h/a", "cam", "s3:cret", 1)
    assert base64.b64decode(told.removeprefix("Basic ")) == b"cam:s3:cret"
