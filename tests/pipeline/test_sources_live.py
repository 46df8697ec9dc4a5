"""Sources that arrive by themselves, over RTSP and HTTP, from real servers that refuse, freeze, fall silent and die."""

import http.server
import itertools
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest

from pipeline.errors import SourceError
from pipeline.sources import Item, LeftOut, OpeningStopped, SourceSettings, late, open_source
from tests.kit import media
from tests.kit.places import ROOT
from tests.kit.reading import decoded, frames_of, luma, read
from tests.kit.servers import RtspServer, StartServer

SECRET = "pa55w0rd"


# ----------------------------------------------------------------------------------------------------------- RTSP


@pytest.mark.parametrize("transport", ["tcp", "udp"])
def test_an_rtsp_stream_is_the_file_frame_by_frame(transport: str, rtsp_server: StartServer, clip: Path) -> None:
    expected, _ = read(clip)
    server = rtsp_server(speed=10 if transport == "tcp" else 5)
    frames, failure = read(server.url, rtsp_transport=transport, reconnect=False)
    sure = len(expected) if transport == "tcp" else 120  # over UDP a server's BYE may overtake its last frames
    assert [luma(f) for f in frames[:sure]] == [luma(f) for f in expected[:sure]]
    assert failure == "the server or camera ended the stream"


def test_an_rtsp_stream_has_the_times_of_the_file(rtsp_server: StartServer, clip: Path) -> None:
    server = rtsp_server()
    with open_source(SourceSettings(uri=server.url, max_frames=15), "test") as source:
        frames = [decoded(frame) for frame in frames_of(source)]
    assert [f.pts_seconds for f in frames] == [f.pts_seconds for f in read(clip, max_frames=15)[0]]
    assert (source.info.kind, source.info.is_live) == ("rtsp", True)
    assert all(a.captured_ns < b.captured_ns for a, b in itertools.pairwise(frames))


@pytest.mark.parametrize("auth", ["basic", "digest"])
def test_rtsp_passwords(auth: str, rtsp_server: StartServer) -> None:
    server = rtsp_server(user="cam", password=SECRET, auth=auth, loop=True)
    for url in (server.url, server.url_for("cam", "wr0ng"), server.url_for("other", SECRET)):
        with pytest.raises(SourceError, match="put user:password@ before the host") as raised:
            open_source(SourceSettings(uri=url), "test")
        assert SECRET not in str(raised.value)
        assert "wr0ng" not in str(raised.value)
    with open_source(SourceSettings(uri=server.url_for("cam", SECRET)), "test") as source:
        assert source.info.width == 768
        assert SECRET not in repr(source) + repr(source.info)


def test_an_rtsp_path_that_does_not_exist(rtsp_server: StartServer) -> None:
    with pytest.raises(SourceError, match="the server knows no such path"):
        open_source(SourceSettings(uri=rtsp_server(loop=True).url + "/other"), "test")


def test_a_killed_server_is_a_lost_source(rtsp_server: StartServer) -> None:
    server = rtsp_server(loop=True)
    with open_source(SourceSettings(uri=server.url, reconnect=False), "test") as source:
        frames = frames_of(source)
        next(frames)
        server.kill()
        list(frames)
    assert source.failure


def test_a_frozen_server_is_lost_after_the_read_time_out(rtsp_server: StartServer) -> None:
    server = rtsp_server(loop=True)
    with open_source(SourceSettings(uri=server.url, read_timeout_seconds=0.7, reconnect=False), "test") as source:
        frames = frames_of(source)
        next(frames)
        server.freeze()
        list(frames)
    assert source.failure == "no data for 0.7 s"


def test_what_a_frozen_server_left_in_the_demuxer_came_when_it_was_due(rtsp_server: StartServer) -> None:
    """The demuxer holds a picture until the next begins, or reading has timed out."""
    server = rtsp_server(loop=True)
    settings = SourceSettings(uri=server.url, read_timeout_seconds=1.7, reconnect=False)
    with open_source(settings, "test") as source:
        frames = frames_of(source)
        before = [decoded(next(frames)) for _ in range(5)]
        server.freeze()
        frozen_at = time.monotonic()
        rest = [decoded(frame) for frame in frames]
        given_up_at = time.monotonic()
    assert source.failure == "no data for 1.7 s"
    last, held = (before + rest)[-2:]
    assert (held.captured_ns - last.captured_ns) / 1e9 == pytest.approx(held.pts_seconds - last.pts_seconds, abs=0.5)
    assert held.captured_ns / 1e9 < frozen_at + 0.5
    # It must not count as a sign of life: then the wait would be twice as long, 3.4 s.
    assert given_up_at - frozen_at < 3


def test_a_held_back_frame_that_is_too_old_is_left_out(
    play_server: StartServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(late, "LATE_SECONDS", 1.2)
    held: list[Item] = []
    while not held:  # nothing is, where the server was stopped before it had begun the next picture
        held = held_back_by(play_server(loop=True))
    assert isinstance(held[-1], LeftOut)


def held_back_by(server: RtspServer) -> list[Item]:
    """What comes of a server that was stopped."""
    settings = SourceSettings(uri=server.url, read_timeout_seconds=1.7, reconnect=False)
    with open_source(settings, "test") as source:
        frames = frames_of(source)
        for _ in range(5):
            next(frames)
        server.freeze()
        return list(frames)


def test_a_short_silence_is_waited_for(rtsp_server: StartServer) -> None:
    server = rtsp_server(loop=True)
    with open_source(SourceSettings(uri=server.url, read_timeout_seconds=30, max_frames=25), "test") as source:
        frames = frames_of(source)
        next(frames)
        server.freeze()
        threading.Timer(1.0, server.thaw).start()
        assert len(list(frames)) == 24
    assert source.failure is None


def test_a_stop_is_seen_while_a_live_read_blocks(play_server: StartServer) -> None:
    server = play_server(loop=True)
    stop = threading.Event()
    with open_source(SourceSettings(uri=server.url, read_timeout_seconds=3000), "test") as source:
        frames = frames_of(source, stop.is_set)
        next(frames)
        server.freeze()
        threading.Timer(0.3, stop.set).start()
        list(frames)
    assert source.failure is None


def test_a_process_ends_though_a_read_still_blocks(play_server: StartServer) -> None:
    server = play_server(loop=True)
    code = """if True:
        import sys, time
        from pipeline.sources import SourceSettings, open_source
        with open_source(SourceSettings(uri=sys.argv[1], read_timeout_seconds=3000), "test") as source:
            print("open", flush=True)
            until = time.monotonic() + 1
            list(source.frames(lambda: time.monotonic() > until))
    """
    command = [sys.executable, "-c", code, server.url]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) as child:
        assert child.stdout is not None
        assert child.stdout.readline() == "open\n"
        server.freeze()
        assert child.wait(timeout=60) == 0


def test_a_late_reader_goes_on_at_a_key_frame(play_server: StartServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(late, "LATE_SECONDS", 0.2)
    server = play_server(loop=True, speed=4)
    with open_source(SourceSettings(uri=server.url, max_frames=90), "test") as source:
        frames = frames_of(source)
        early = [next(frames), next(frames)]
        time.sleep(1)
        taken = early + list(frames)
    left_out = [isinstance(frame, LeftOut) for frame in taken]
    assert len(taken) == 90 and any(left_out)
    after_gap = decoded(taken[left_out.index(True) + left_out[left_out.index(True) :].index(False)])
    assert after_gap.pts_seconds % 1 == pytest.approx(0)  # the clip has a key frame each second
    # Each frame that was left out has its place among the others.
    assert after_gap.pts_seconds * 10 == pytest.approx(taken.index(after_gap))


@pytest.fixture
def silent_port() -> Iterator[int]:
    """A server that accepts connections and never says a word."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        yield listener.getsockname()[1]


@pytest.mark.parametrize("scheme", ["rtsp", "http"])
def test_a_server_that_never_answers_is_given_up(scheme: str, silent_port: int) -> None:
    url = f"{scheme}://cam:{SECRET}@127.0.0.1:{silent_port}/a"
    with pytest.raises(SourceError, match=r"did not answer within 0\.5 s") as raised:
        open_source(SourceSettings(uri=url, open_timeout_seconds=0.5), "test")
    assert SECRET not in str(raised.value)


def test_a_stop_is_seen_while_a_server_does_not_answer(silent_port: int) -> None:
    settings = SourceSettings(uri=f"rtsp://127.0.0.1:{silent_port}/a", open_timeout_seconds=3000)
    with pytest.raises(OpeningStopped, match="when the run stopped"):
        open_source(settings, "test", stopped=lambda: True)


# ----------------------------------------------------------------------------------------------------------- HTTP

JPEG_STREAM = "multipart/x-mixed-replace;boundary=--picture"


class Handler(http.server.SimpleHTTPRequestHandler):
    """Files of a folder, and at /live three pictures, a pause, three more."""

    def do_GET(self) -> None:
        if self.path != "/live":
            super().do_GET()
            return
        self.send_response(200)
        self.send_header("Content-Type", JPEG_STREAM)
        self.end_headers()
        jpeg = (Path(self.directory) / "picture.jpg").read_bytes()
        part = b"--picture\r\nContent-Type: image/jpeg\r\nContent-Length: %d\r\n\r\n%s\r\n" % (len(jpeg), jpeg)
        for pause in (0, 0, 0, 0.8, 0, 0):
            time.sleep(pause)
            self.wfile.write(part)
            self.wfile.flush()

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def http_url(tmp_path: Path) -> Iterator[str]:
    media.write_picture(tmp_path / "picture.jpg", media.noise(1, 320, 240)[0])
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), partial(Handler, directory=str(tmp_path))) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_address[1]}"
        server.shutdown()


def test_a_file_on_a_web_server_is_the_file(http_url: str, tmp_path: Path) -> None:
    path = media.write_video(tmp_path / "a.mp4", media.noise(150, 64, 48), container_options={"movflags": "faststart"})
    expected, _ = read(path)
    frames, failure = read(f"{http_url}/a.mp4")
    assert [luma(f) for f in frames] == [luma(f) for f in expected]
    assert failure is None


def test_motion_jpeg_is_live_and_survives_a_pause(http_url: str) -> None:
    with open_source(SourceSettings(uri=f"{http_url}/live", reconnect=False), "test") as source:
        frames = [decoded(frame) for frame in frames_of(source)]
    assert source.info.is_live
    assert len(frames) == 6
    # Nobody stamped these pictures: their time is when they came.
    seconds = [(f.captured_ns - frames[0].captured_ns) / 1e9 for f in frames]
    assert [f.pts_seconds for f in frames] == pytest.approx(seconds, abs=2e-6)
    assert seconds[3] - seconds[2] > 0.5
    assert source.failure


@pytest.mark.parametrize(
    ("path", "expected"), [("none.mp4", "no such path"), ("text.mp4", "nothing that can be read as video")]
)
def test_what_a_web_server_cannot_give(path: str, expected: str, http_url: str, tmp_path: Path) -> None:
    (tmp_path / "text.mp4").write_text("hello")
    with pytest.raises(SourceError, match=expected) as raised:
        open_source(SourceSettings(uri=f"{http_url}/{path}?token={SECRET}"), "test")
    assert SECRET not in str(raised.value)
