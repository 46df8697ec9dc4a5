"""A live source's own packets, of a real RTSP server: what an onlooker gets decodes by itself, to the same frames."""

import re
from itertools import pairwise
from pathlib import Path

import av
from av.video.frame import VideoFrame

from pipeline.settings import SourceSettings
from pipeline.source_address import parse_address
from pipeline.sources import CapturedFrame, CodedPacket, open_source
from pipeline.sources.coded import CodedPackets, codec_of
from pipeline.sources.video import FileReader
from tests.kit import media
from tests.kit.reading import never
from tests.kit.servers import StartServer

SETS = re.compile(rb"\x00?\x00\x00\x01[\x67\x68].*?(?=\x00\x00\x00?\x01)", re.DOTALL)
DELIMITER = b"\0\0\0\1\x09\xf0"
# A message of display orientation (H.264, D.1.27): a quarter turn anticlockwise, for this picture and those after it.
QUARTER_TURN = b"\0\0\0\1\x06\x2f\x04\x08\x00\x09\x00\x80"


class Onlooker:
    """Looks while `is_there`."""

    def __init__(self, is_there: bool = True) -> None:
        self.is_there = is_there
        self.packets: list[CodedPacket] = []

    def looks(self) -> bool:
        return self.is_there

    def take(self, packet: CodedPacket) -> None:
        self.packets.append(packet)


def watched(url: str, onlooker: Onlooker, frames: int) -> list[CapturedFrame]:
    settings = SourceSettings(uri=url, max_frames=frames)
    with open_source(settings, "test", onlooker=onlooker) as source:
        return [item for item in source.frames(never) if isinstance(item, CapturedFrame)]


def brightness(frame: VideoFrame) -> float:
    return round(float(frame.to_ndarray(format="gray").mean()), 3)


def decoded(packets: list[CodedPacket]) -> dict[int, float]:
    """Of the pictures, by when they were captured, as a decoder makes them that knows nothing else."""
    decoder = av.CodecContext.create("h264", "r")
    decoder.thread_type = "SLICE"
    pictures = {}
    for packet in packets:
        for frame in decoder.decode(av.Packet(packet.data)):
            pictures[packet.captured_ns] = brightness(frame)
    return pictures


def test_packets_decode_by_themselves_to_the_same_frames(rtsp_server: StartServer) -> None:
    onlooker = Onlooker()
    frames = watched(rtsp_server(speed=5, loop=True).url, onlooker, 40)
    first = onlooker.packets[0]
    assert first.is_key and first.codec == "avc1.640028"
    assert sum(packet.is_key for packet in onlooker.packets) == 3
    assert all(after.follows_ns == before.captured_ns for before, after in pairwise(onlooker.packets))
    known = {frame.captured_ns: brightness(frame.video_frame) for frame in frames}
    pictures = decoded(onlooker.packets)
    assert len(pictures) > 25 and pictures.items() <= known.items()


def test_who_does_not_look_gets_nothing_and_who_comes_gets_a_key_frame_first(rtsp_server: StartServer) -> None:
    onlooker = Onlooker(is_there=False)
    with open_source(SourceSettings(uri=rtsp_server(speed=5, loop=True).url), "test", onlooker=onlooker) as source:
        frames = (item for item in source.frames(never) if isinstance(item, CapturedFrame))
        for _ in range(25):
            next(frames)
        assert onlooker.packets == []
        onlooker.is_there = True
        for _ in range(20):
            next(frames)
        onlooker.is_there = False
        count = len(onlooker.packets)
        for _ in range(15):
            next(frames)
        assert len(onlooker.packets) == count > 5
        onlooker.is_there = True
        while len(onlooker.packets) == count:
            next(frames)
    assert onlooker.packets[0].is_key and onlooker.packets[count].is_key


def packets_of(path: Path, onlooker: Onlooker) -> list[CodedPacket]:
    """Of a file; those with start codes without the parameter sets that are among them."""
    settings = SourceSettings(uri=str(path))
    reader = FileReader(parse_address(settings.uri), settings)
    coded = CodedPackets(reader.stream, onlooker)
    for packet in reader.packets(never):
        bare = av.Packet(SETS.sub(b"", bytes(packet)) if path.suffix == ".h264" else bytes(packet))
        bare.opaque = packet.opaque
        coded.offer(bare)
    reader.close()
    return onlooker.packets


def test_parameter_sets_that_only_the_container_has_are_put_before_key_frames(tmp_path: Path) -> None:
    """As in FLV, which knows no start codes either, or in the description of an RTSP stream."""
    options = {"preset": "ultrafast", "bf": "0", "g": "5"}
    for name in ("lengths.flv", "codes.h264"):
        path = media.write_video(tmp_path / name, media.noise(20, 64, 48), options=options)
        packets = packets_of(path, Onlooker())
        assert len(packets) == 20 and sum(packet.is_key for packet in packets) == 4
        assert all((codec_of(packet.data) == packet.codec) == packet.is_key for packet in packets)
        assert len(decoded(packets)) == 20


def test_a_missing_packet_shows_in_the_next(tmp_path: Path) -> None:
    path = media.write_video(tmp_path / "clip.mp4", media.noise(6, 64, 48), options={"bf": "0"})
    settings, onlooker = SourceSettings(uri=str(path)), Onlooker()
    reader = FileReader(parse_address(settings.uri), settings)
    coded = CodedPackets(reader.stream, onlooker)
    first, second, _, fourth, *_ = reader.packets(never)
    coded.offer(first)
    coded.offer(second)
    coded.miss()
    coded.offer(fourth)
    reader.close()
    one, two, four = onlooker.packets
    assert (one.follows_ns, two.follows_ns, four.follows_ns) == (None, one.captured_ns, None)


def test_pictures_that_come_in_another_order_are_not_shown_so(play_server: StartServer, tmp_path: Path) -> None:
    path = media.write_video(tmp_path / "b.mp4", media.noise(30, 64, 48), options={"bf": "2", "g": "10"})
    onlooker = Onlooker()
    assert len(watched(play_server(file=path, speed=2, loop=True).url, onlooker, 40)) == 40
    assert onlooker.packets == []


def test_a_picture_that_must_be_turned_is_not_shown_so(play_server: StartServer, tmp_path: Path) -> None:
    upright = media.write_video(tmp_path / "upright.ts", media.noise(20, 64, 48), options={"bf": "0", "g": "5"})
    turned = tmp_path / "turned.ts"
    with av.open(str(upright)) as read, av.open(str(turned), "w") as written:
        stream = written.add_stream_from_template(read.streams.video[0])
        for packet in (packet for packet in read.demux(video=0) if packet.size):
            told = av.Packet(DELIMITER + QUARTER_TURN + bytes(packet).removeprefix(DELIMITER))
            told.pts, told.dts, told.time_base, told.stream = packet.pts, packet.dts, packet.time_base, stream
            written.mux(told)
    onlooker = Onlooker()
    frames = watched(play_server(file=turned, loop=True).url, onlooker, 15)
    assert {frame.rotation_degrees for frame in frames} == {270}
    assert onlooker.packets == []
