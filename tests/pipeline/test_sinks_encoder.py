"""Each encoder setting gives a video that can be read; hardware that does not work is no reason to have none."""

from dataclasses import replace
from pathlib import Path
from typing import get_args, get_type_hints

import av
import numpy as np
import pytest

from pipeline.errors import UsageError
from pipeline.settings import EncoderSettings
from pipeline.sinks import encoder
from pipeline.sinks.encoder import Encoder, check, choose
from pipeline.sinks.video import VideoSink
from tests.kit.harness import run_here
from tests.kit.media import count_pictures
from tests.kit.places import CLIP
from tests.kit.results import result

PRESETS = get_args(get_type_hints(EncoderSettings)["preset"])
SIDES = 64, 48
# Stands in for a device: it takes another pixel format, and options of its own.
LIKE_HARDWARE = Encoder(
    "libx264", "nv12", {"preset": "fast", "bf": "0", "tune": "zerolatency", "forced-idr": "1"}, "by a device"
)
LATE = replace(LIKE_HARDWARE, options={"preset": "medium", "forced-idr": "1"})
WITHOUT_KEY_FRAMES = replace(LIKE_HARDWARE, name="ffv1", pixel_format="yuv420p", options={"g": "300"})


def noisy_pictures(count: int = 12) -> list[np.ndarray]:
    """One that moves, under noise: it has something to lose to an encoder."""
    noise = np.random.default_rng(0).integers(0, 30, (count, SIDES[1], SIDES[0], 3), np.uint8)
    for number, picture in enumerate(noise):
        picture[10:20, 2 * number : 2 * number + 12] = (40, 90, 220)
    return list(noise)


def recorded(path: Path, settings: EncoderSettings) -> tuple[VideoSink, list[np.ndarray]]:
    """The sink, and what can be read of its file."""
    sink = VideoSink(str(path), 10.0, encoder_settings=settings)
    for seq, picture in enumerate(noisy_pictures()):
        sink.write(result(seq=seq, seconds=seq / 10), picture)
    sink.close()
    with av.open(str(path)) as container:
        return sink, [frame.to_ndarray(format="bgr24") for frame in container.decode(video=0)]


def with_hardware(monkeypatch: pytest.MonkeyPatch, *found: Encoder) -> None:
    monkeypatch.setattr(encoder, "_hardware", lambda settings: list(found))


def difference(shown: list[np.ndarray]) -> float:
    return float(np.mean([np.abs(a.astype(int) - b) for a, b in zip(noisy_pictures(), shown, strict=True)]))


@pytest.mark.parametrize("preset", PRESETS)
def test_every_preset_gives_a_video_of_the_pictures(preset: str, tmp_path) -> None:
    sink, shown = recorded(tmp_path / "o.mp4", EncoderSettings(codec="libx264", preset=preset))
    assert sink.way == "by libx264"
    for number, image in enumerate(shown):
        assert np.abs(image[15, 2 * number + 6].astype(int) - (40, 90, 220)).max() <= 40
    assert difference(shown) < 10


def test_a_better_quality_is_nearer_and_larger(tmp_path) -> None:
    files = [tmp_path / f"{quality}.mp4" for quality in (5, 23, 45)]
    near = [difference(recorded(f, EncoderSettings(codec="libx264", quality=int(f.stem)))[1]) for f in files]
    assert near == sorted(near) and near[0] < near[2]
    sizes = [file.stat().st_size for file in files]
    assert sizes[0] > 1.5 * sizes[1] > 1.5 * sizes[2]


def test_hardware_that_works_is_taken_and_told(tmp_path, monkeypatch) -> None:
    with_hardware(monkeypatch, LATE, LIKE_HARDWARE)
    sink, shown = recorded(tmp_path / "o.mp4", EncoderSettings(codec="auto"))
    assert sink.way == "by a device" and difference(shown) < 10


@pytest.mark.parametrize(
    "found",
    [[], [LATE], [WITHOUT_KEY_FRAMES], [replace(LIKE_HARDWARE, name="h264_none")], [replace(LATE, pixel_format="x")]],
    ids=["none", "late", "without key frames", "unknown to FFmpeg", "unknown pixels"],
)
def test_auto_falls_back_to_software_and_says_so(found: list[Encoder], tmp_path, monkeypatch) -> None:
    with_hardware(monkeypatch, *found)
    sink, shown = recorded(tmp_path / "o.mp4", EncoderSettings(codec="auto"))
    assert sink.way == "by libx264 (no hardware encoder works here)" and difference(shown) < 10


def test_a_size_that_the_hardware_does_not_take_falls_back(monkeypatch) -> None:
    """As a device has a least size; this stand-in takes a few sizes alone."""
    with_hardware(monkeypatch, Encoder("h263", "yuv420p", {}, "by a device"))
    chosen = [choose(EncoderSettings(codec="auto"), width, height).name for width, height in ((352, 288), (320, 240))]
    assert chosen == ["h263", "libx264"]


@pytest.mark.parametrize("name", ["h264_nvenc", "h264_qsv"])
def test_what_is_asked_for_by_name_and_does_not_work_is_one_line(name: str, tmp_path) -> None:
    settings = EncoderSettings(codec=name)  # type: ignore[arg-type]
    try:
        check(settings)
    except UsageError as error:
        said = str(error)
    else:
        assert difference(recorded(tmp_path / "o.mp4", settings)[1]) < 10
        return
    assert f"deliver.encoder.codec: {name} does not work here (" in said and "take auto, or libx264" in said
    done = run_here(CLIP, "--out", tmp_path / "o.mp4", "--set", f"deliver.encoder.codec={name}")
    assert done.returncode == 2 and said in done.stderr and "Traceback" not in done.stderr
    assert not (tmp_path / "o.mp4").exists()


def test_a_run_writes_with_what_was_set(tmp_path) -> None:
    sizes = []
    for quality in (20, 40):
        path = tmp_path / f"{quality}.mp4"
        encoder_set = f"deliver.encoder={{codec: libx264, preset: veryfast, quality: {quality}}}"
        done = run_here(
            CLIP, "--engine", "eager", "--input", "128x128", "--max-frames", "12", "--out", path, "--set", encoder_set
        )
        assert done.returncode == 0 and f"wrote {path}: 12 frames, by libx264\n" in done.stderr, done.stderr
        assert count_pictures(path) == 12
        sizes.append(path.stat().st_size)
    assert sizes[0] > 2 * sizes[1]
