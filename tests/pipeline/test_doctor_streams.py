"""What the doctor says of a source: real servers and files, and what was heard of streams that no server here sends."""

import re
import socket
from fractions import Fraction
from pathlib import Path

import pytest

from configs.uri import Uri
from pipeline.doctor import streams
from pipeline.doctor.finding import Finding, Question
from pipeline.settings import Settings, SourceSettings
from pipeline.sources.survey import Heard, Survey
from tests.kit.media import noise, write_audio, write_picture, write_video
from tests.kit.servers import StartServer

USER, PASSWORD = "uQ7zuser", "pQ7zpass"
SECONDS = 2.0


def told(uri: object, seconds: float = SECONDS, **settings) -> dict[str, Finding]:
    """What is found of a source called cam, by the word after its name."""
    source = SourceSettings(uri=Uri(str(uri)), open_timeout_seconds=10.0, **settings)
    return by_word(streams.source(Question(Settings(sources={"cam": source}), "cam", seconds)))


def by_word(findings) -> dict[str, Finding]:
    found = {}
    for finding in findings:
        name, _, word = finding.subject.partition(": ")
        assert name == "cam" and "\n" not in finding.text + finding.advice
        assert USER not in finding.text + finding.advice and PASSWORD not in finding.text + finding.advice
        found[word or "cam"] = finding
    return found


# ---------------------------------------------------------------------------------------------- a server, a few seconds


def test_a_camera_as_it_should_be(play_server: StartServer) -> None:
    server = play_server(loop=True, clock_ahead=0.0, user=USER, password=PASSWORD)
    found = told(server.url_for(USER, PASSWORD), seconds=3.0)
    assert "h264 High, 768x576, 10 frames/s" in found["cam"].text and "***@127.0.0.1" in found["cam"].text
    assert found["B-frames"].level == "ok" and "good" in found["B-frames"].text
    assert found["key frames"] == Finding("cam: key frames", "ok", "1.0 s apart")
    assert "frames a second came" in found["rate"].text and "within" in found["times"].text
    assert found["clock"].level == "ok" and "captured_unix is when a picture was taken" in found["clock"].text


def test_a_camera_that_sends_slower_than_its_clock_goes(play_server: StartServer) -> None:
    found = told(play_server(loop=True, speed=0.5).url, seconds=4.0)
    assert found["times"].level == "problem" and "older in a second" in found["times"].text
    assert found["rate"].level == "note" and "the stream says 10" in found["rate"].text
    assert found["clock"].level == "note" and "no RTCP sender report" in found["clock"].text


def test_a_server_that_sends_faster_than_its_clock_goes(play_server: StartServer) -> None:
    found = told(play_server(loop=True, speed=2.0).url, seconds=4.0)
    assert found["times"].level == "note" and "times as fast" in found["times"].text


def test_a_camera_whose_clock_is_wrong(play_server: StartServer) -> None:
    found = told(play_server(loop=True, clock_ahead=-3600.0).url)
    assert found["clock"].level == "note" and "behind ours" in found["clock"].text and "NTP" in found["clock"].advice


def test_b_frames_and_key_frames_far_apart(play_server: StartServer, tmp_path) -> None:
    options = {"bf": "2", "g": "1000", "b_strategy": "0", "x264-params": "scenecut=0"}
    pictures = noise(200, 64, 48)
    clip = write_video(tmp_path / "b.mp4", pictures, time_base=Fraction(1, 20), options=options)
    found = told(play_server(file=clip, loop=True).url)
    assert found["B-frames"].level == "note" and "Baseline" in found["B-frames"].advice
    assert found["key frames"].level == "note" and found["key frames"].text == "more than 6 s apart"
    assert "1 to 2 s" in found["key frames"].advice
    file = told(clip)
    assert file["B-frames"].level == "ok" and "no matter in a file" in file["B-frames"].text
    assert file.keys() == {"cam", "B-frames"}


def test_one_that_ends_while_it_is_heard(play_server: StartServer, tmp_path) -> None:
    clip = write_video(tmp_path / "short.mp4", noise(10, 64, 48), time_base=Fraction(1, 10))
    found = told(play_server(file=clip).url, seconds=4.0)
    assert any(each.level == "problem" and "was lost while it was heard" in each.text for each in found.values())


# ------------------------------------------------------------------------------------------------- what does not open


def test_a_password_that_is_wrong(play_server: StartServer) -> None:
    server = play_server(user=USER, password="another")
    (finding,) = told(server.url_for(USER, PASSWORD)).values()
    assert finding.level == "problem" and "refuses the user or password" in finding.text
    assert "takes connections, so look at path, user and password" in finding.advice


def test_a_path_that_the_server_does_not_know(play_server: StartServer) -> None:
    (finding,) = told(play_server().url + "x").values()
    assert finding.level == "problem" and "no such path" in finding.text


def test_a_port_that_nobody_listens_at() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    (finding,) = told(f"rtsp://{USER}:{PASSWORD}@127.0.0.1:{port}/1").values()
    assert finding.level == "problem" and "refuses the connection" in finding.text
    assert "nothing listens on that port" in finding.advice and f"127.0.0.1 port {port}" in finding.advice


def test_a_server_that_says_nothing() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        source = SourceSettings(uri=Uri(f"rtsp://127.0.0.1:{server.getsockname()[1]}/1"), open_timeout_seconds=1.0)
        found = by_word(streams.source(Question(Settings(sources={"cam": source}), "cam", 1.0)))
    assert found["cam"].level == "problem" and "did not answer within 1 s" in found["cam"].text


@pytest.mark.parametrize("kind", ["missing", "empty", "text", "audio", "folder without images", "a bad pattern"])
def test_what_is_no_video(kind: str, tmp_path) -> None:
    places = {name: tmp_path / name.replace(" ", "-") for name in ("missing", "empty", "text", "audio")}
    places["empty"].touch()
    places["text"].write_text("no video\n" * 100)
    places["audio"] = write_audio(tmp_path / "audio.wav")
    (tmp_path / "folder").mkdir()
    others = {"folder without images": tmp_path / "folder", "a bad pattern": "lavfi:nosuchthing"}
    (finding,) = told((places | others)[kind]).values()
    assert finding.level == "problem" and finding.advice


# ------------------------------------------------------------------------------------------------------ what just is


def test_files_images_and_patterns(clip: Path, tmp_path) -> None:
    found = told(clip)
    assert [each.level for each in found.values()] == ["ok"] * 3
    assert found["key frames"].text == "1.0 s apart"
    one = write_video(tmp_path / "one.mp4", noise(1, 64, 48))
    assert told(one)["cam"].level == "ok"
    assert [each.level for each in told("lavfi:testsrc2=size=160x120").values()] == ["ok"]
    write_picture(tmp_path / "a.png", noise(1, 32, 16)[0])
    assert "1 images, the first of 32x16" in told(tmp_path / "*.png")["cam"].text


# -------------------------------------------------------------------------- streams that no server here sends, as heard


def heard(packets: list[Heard], **facts) -> Survey:
    usual = {
        "kind": "rtsp",
        "shown": "rtsp://host/…",
        "comes_by_itself": True,
        "has_time_stamps": True,
        "codec": "h264",
        "profile": "Main",
        "opened_seconds": 0.1,
        "frames_per_second": 10.0,
        "first_frame_seconds": 0.2,
        "width": 64,
        "height": 48,
    }
    return Survey(**(usual | facts), packets=packets)


def packets(count: int = 60, late=lambda number: 0.0, key_every: int = 10, rate: float = 10.0, **facts) -> list[Heard]:
    """A picture each tenth of a second, so much late."""
    return [
        Heard(0.2 + i / rate + late(i), i / rate, i / rate, i % key_every == 0, 1000, None)._replace(**facts)
        for i in range(count)
    ]


def findings(survey: Survey) -> dict[str, Finding]:
    return by_word(streams._all_of("cam", SourceSettings(uri=Uri("x")), survey))


def test_pictures_that_are_held_back_now_and_then() -> None:
    def held(number: int) -> float:
        return 0.4 if number == 40 else 0.0

    finding = findings(heard(packets(late=held)))["times"]
    assert finding.level == "note" and re.search(r"all within (39|40)\d ms", finding.text)
    assert findings(heard(packets()))["times"].text.startswith("95 % of pictures come within 0 ms")


def test_a_burst_at_the_start_says_nothing_of_the_pace() -> None:
    """A server begins with what it has kept since the last key frame."""
    kept = [Heard(0.2 + i / 1000, i / 10, i / 10, i == 0, 1000, None) for i in range(20)]
    after = [Heard(0.3 + (i - 19) / 10, i / 10, i / 10, i % 20 == 0, 1000, None) for i in range(20, 70)]
    found = findings(heard(kept + after))
    assert found["times"].level == "ok" and found["rate"].level == "ok"


def test_key_frames() -> None:
    assert findings(heard(packets(key_every=1)))["key frames"].text == "each picture is one"
    assert findings(heard(packets(key_every=25)))["key frames"].level == "ok"
    far = findings(heard(packets(120, key_every=100)))["key frames"]
    assert far.level == "note" and far.text == "10.0 s apart" and "up to 10 s" in far.advice
    none = findings(heard(packets(is_key=False)))["key frames"]
    assert none.level == "note" and "none in 6 s" in none.text


def test_a_late_first_picture_is_told_with_what_it_waited_for() -> None:
    finding = findings(heard(packets(), first_frame_seconds=6.5, opened_seconds=0.4))["cam"]
    assert finding.level == "note" and "after 6.5 s" in finding.text and "key frame" in finding.advice


def test_a_stream_that_may_reorder_and_does_not() -> None:
    finding = findings(heard(packets(), delay_frames=2))["B-frames"]
    assert finding.level == "note" and "holds 2 pictures back" in finding.text


def test_nothing_that_decodes_nothing_at_all_and_too_little() -> None:
    (finding,) = findings(heard(packets(), first_frame_seconds=None)).values()
    assert finding.level == "problem" and "60 packets came, and none decodes" in finding.text
    (finding,) = findings(heard([], first_frame_seconds=None, failure="no data for 5 s")).values()
    assert finding.level == "problem" and "no data for 5 s" in finding.text
    assert findings(heard(packets(3)))["pace"].level == "note"


def test_time_stamps_that_are_missing_or_stand_still() -> None:
    assert "no time stamps" in findings(heard(packets(), has_time_stamps=False))["pace"].text
    for still in (0.0, None):
        finding = findings(heard(packets(pts=still, dts=still)))["times"]
        assert finding.level == "note" and "stand still" in finding.text
