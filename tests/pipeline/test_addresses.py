"""Addresses of outputs on a network: read strictly; what is wrong is one line that shows no secret."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from configs.uri import Uri
from pipeline.addresses import FrameOptions, MqttOptions, WebhookOptions, read, topic_prefix
from pipeline.command.config import load_settings
from pipeline.errors import UsageError
from pipeline.kinds import kind_and_target


@pytest.mark.parametrize(
    ("address", "kind", "host", "port", "who", "path", "options"),
    [
        ("mqtt://h", MqttOptions, "h", None, ("", None), "", MqttOptions()),
        (
            "mqtts://us%40er:pa%3Ass@10.0.0.7:8883/a/b?qos=0&every=1.5&frames=all",
            *(MqttOptions, "10.0.0.7", 8883, ("us@er", "pa:ss"), "/a/b"),
            MqttOptions(qos=0, every=1.5, frames="all"),
        ),
        (
            "mqtt://[::1]:1883/x?classes=person,traffic%20light&discovery=homeassistant",
            *(MqttOptions, "::1", 1883, ("", None), "/x"),
            MqttOptions(classes="person,traffic light", discovery="homeassistant"),
        ),
        (
            "https://h/hook?token=a%20b&qos=9#gather=0&most=5",
            *(WebhookOptions, "h", None, ("", None), "/hook?token=a%20b&qos=9"),
            WebhookOptions(gather=0, most=5),
        ),
    ],
    ids=["bare", "all", "IPv6", "a query of its own"],
)
def test_an_address_is_read(address, kind, host, port, who, path, options) -> None:
    place = read(Uri(address), kind)
    assert (place.host, place.port, (place.user, place.password), place.path) == (host, port, who, path)
    assert place.options == options and kind_and_target(address) is not None
    assert "pa" not in place.identity.partition("@")[0] and place.identity.startswith(f"{place.scheme}://")


@pytest.mark.parametrize(
    ("path", "prefix"), [("", "centerstream"), ("/", "centerstream"), ("/a/b/", "a/b"), ("/a%20b", "a b")]
)
def test_topics_begin_with_what_stands_behind_the_host(path: str, prefix: str) -> None:
    assert topic_prefix(path) == prefix


WRONG = {
    "no host": ("mqtt:///x", "names no host that can be read"),
    "a port beyond the last": ("mqtt://u:s3cret@h:70000/x", "port 70000 cannot be, allowed is 1 to 65535"),
    "a wildcard": ("mqtt://h/a/%23", "it has no + and #"),
    "an empty level": ("mqtt://h/a//b", "no empty level"),
    "a fragment": ("mqtt://h/a#qos=1", "holds a #; write it as %23"),
    "no value": ("mqtt://h/a?qos", "what stands behind the ? is no option: give them as ?key=value, with & between"),
    "twice": ("mqtt://h/a?qos=1&qos=0", "has qos twice"),
    "a token": ("mqtt://h/a?s3cret==", "what stands behind the ? is no option"),
    "not one of": ("mqtt://h/a?qos=2", "qos: got 2, allowed is 0 or 1"),
    "a word for a number": ("mqtt://h/a?every=s3cret", "every: got 's3cret', allowed is a number at least 0.0"),
    "below the range": ("https://h/a#every=-1", "every: got -1, allowed is a number at least 0.0 and at most 3600.0"),
    "unknown": (
        "https://h/a?token=s3cret#qos=1",
        "them as #key=value, with & between them; keys are frames, every, gather, most",
    ),
    "half a batch": ("https://h/a#most=0.5", "most: got 0.5, allowed is a whole number"),
}


@pytest.mark.parametrize(("address", "message"), WRONG.values(), ids=WRONG)
def test_what_is_wrong_is_one_line(address: str, message: str) -> None:
    with pytest.raises(UsageError) as caught:
        load_settings(None, [("deliver.also", [address])])
    told = str(caught.value)
    assert told.startswith("deliver: also has '") and message in told and "\n" not in told
    assert "s3cret" not in told or "every" in address


def test_an_address_with_names_in_it_is_read_once_they_are_filled_in(monkeypatch) -> None:
    monkeypatch.setenv("HOW", "2")
    monkeypatch.setenv("WHO", "a/b")
    assert load_settings(None, [("deliver.also", ["mqtt://${WHO}@h/x?qos=1"])]).deliver.also
    with pytest.raises(UsageError, match="qos: got 2, allowed is 0 or 1"):
        load_settings(None, [("deliver.also", ["mqtt://h/x?qos=${HOW}"])])


@given(tail=st.text(max_size=40), kind=st.sampled_from([MqttOptions, WebhookOptions]))
def test_whatever_stands_behind_the_host_is_read_or_refused_in_one_line(tail: str, kind: type[FrameOptions]) -> None:
    try:
        place = read(Uri(f"mqtt://u:s3cret@h/{tail}"), kind)
    except ValueError as error:
        assert "\n" not in str(error) and "s3cret@" not in str(error)
    else:
        assert 0 <= place.options.every <= 3600 and "s3cret" not in repr(place)
