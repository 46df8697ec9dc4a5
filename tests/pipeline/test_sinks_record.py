"""Recordings can be read back, begin before what they are for, and are deleted by age and size, and nothing else is."""

import json
import os
import signal
import subprocess
import time
from pathlib import Path

import av
import numpy as np
import pytest

from pipeline.errors import OutputError
from pipeline.settings import EncoderSettings, RecordSettings
from pipeline.sinks.record import RecordSink
from pipeline.sinks.shelf import Shelf, began_unix, new_path
from tests.kit.harness import run_code
from tests.kit.media import picture, readable_frames
from tests.kit.results import Row, result

PERSON: Row = ((10.0, 20.0, 50.0, 90.0), 0.9, 0, 3)
DOG: Row = ((60.0, 20.0, 90.0, 90.0), 0.9, 1, 4)
TENTATIVE: Row = ((10.0, 20.0, 50.0, 90.0), 0.9, 0, 0)
RATE = 10
KEY_SECONDS = 1.0


class Camera:
    """Ten pictures a second, whose clock begins at `start_unix`, into a sink."""

    def __init__(self, folder: Path, start_unix: float | None = None, **settings: object) -> None:
        self.folder = folder / "door"
        self.sink = RecordSink(str(self.folder), RecordSettings(**settings), RATE)  # type: ignore[arg-type]
        self.start_unix = time.time() if start_unix is None else start_unix
        self._start_ns = time.monotonic_ns() - round((time.time() - self.start_unix) * 1e9)
        self._seq = 0

    def see(self, seconds: float, *rows: Row, failure: str | None = None) -> None:
        for _ in range(round(seconds * RATE)):
            moment = self._seq / RATE
            captured_ns = self._start_ns + round(moment * 1e9)
            frame = result(
                [] if failure else list(rows), seq=self._seq, seconds=moment, captured_ns=captured_ns, failure=failure
            )
            self.sink.write(frame, picture(self._seq))
            self._seq += 1

    def files(self) -> list[Path]:
        return sorted(self.folder.iterdir())

    def began_seconds(self) -> list[float]:
        """When each file began, by the camera's clock; a name has milliseconds."""
        return [round((began_unix(path.name) or 0) - self.start_unix, 1) for path in self.files()]

    def lines(self) -> list[dict]:
        return [json.loads(line) for line in (self.folder.parent / "events.jsonl").read_text().splitlines()]


def frames_of(path: Path) -> list[float]:
    """The times of all pictures."""
    with av.open(str(path)) as container:
        return [float(frame.time) for frame in container.decode(video=0)]


def seconds_of(path: Path) -> float:
    times_seconds = frames_of(path)
    assert times_seconds == pytest.approx([n / RATE for n in range(len(times_seconds))], abs=0.0006)
    return len(times_seconds) / RATE


# --- what is recorded ------------------------------------------------------------------------------------------------


def test_nothing_is_recorded_where_nothing_was_seen(tmp_path) -> None:
    camera = Camera(tmp_path, classes=("person",))
    camera.see(3)
    camera.see(3, DOG, TENTATIVE)
    camera.sink.close()
    assert camera.files() == [] and not (tmp_path / "events.jsonl").exists()


def test_without_pictures_there_is_no_file(tmp_path) -> None:
    camera = Camera(tmp_path)
    camera.sink.write(result(), None)
    camera.sink.close()
    camera.sink.close()
    assert camera.files() == []


@pytest.mark.parametrize(
    ("quiet_seconds", "pre_seconds", "begins"),
    [(0.0, 2.0, 0.0), (1.5, 2.0, 0.0), (4.5, 2.0, 2.0), (4.5, 0.0, 4.0), (7.5, 3.3, 4.0)],
    ids=["at once", "less than asked for", "enough", "none", "in the middle"],
)
def test_a_recording_begins_so_long_before_what_it_is_for(
    quiet_seconds: float, pre_seconds: float, begins: float, tmp_path
) -> None:
    camera = Camera(tmp_path, classes=("person",), pre_seconds=pre_seconds, post_seconds=0.0)
    camera.see(quiet_seconds)
    camera.see(1, PERSON)
    camera.see(4)
    camera.sink.close()
    (path,) = camera.files()
    assert camera.began_seconds() == [begins]
    assert begins <= max(0.0, quiet_seconds - pre_seconds) < begins + KEY_SECONDS + 2 / RATE
    assert seconds_of(path) == pytest.approx(quiet_seconds + 1 - begins, abs=2 / RATE)


def test_a_recording_goes_on_so_long_after_the_last_object(tmp_path) -> None:
    camera = Camera(tmp_path, classes=("person",), pre_seconds=0.0, post_seconds=2.0)
    camera.see(1, PERSON)
    camera.see(1.9)  # not yet over
    camera.see(1, PERSON, DOG)
    camera.see(5, DOG)
    camera.sink.close()
    (path,) = camera.files()
    assert seconds_of(path) == pytest.approx(1 + 1.9 + 1 + 2, abs=2 / RATE)


def test_each_event_has_its_file_and_its_line(tmp_path) -> None:
    camera = Camera(tmp_path, classes=("person",), pre_seconds=1.0, post_seconds=1.0)
    camera.see(5)
    camera.see(1, PERSON)
    camera.see(0.5, PERSON, PERSON, DOG)
    camera.see(6)
    camera.see(1, PERSON)
    camera.sink.close()
    first, second = camera.lines()
    assert list(first) == ["schema", "source", "start_unix", "end_unix", "classes", "file"]
    assert (first["schema"], first["source"], first["classes"]) == (1, "door", {"dog": 1, "person": 2})
    assert second["classes"] == {"person": 1}
    told = [round(line[key] - camera.start_unix, 2) for line in (first, second) for key in ("start_unix", "end_unix")]
    assert told == pytest.approx([5.0, 6.4, 12.5, 13.4], abs=0.02)
    assert [tmp_path / line["file"] for line in (first, second)] == camera.files()


def test_a_frame_without_result_is_not_one_without_objects(tmp_path) -> None:
    camera = Camera(tmp_path, classes=("person",), pre_seconds=0.0, post_seconds=1.0)
    camera.see(1, PERSON)
    camera.see(5, failure="no answer")
    camera.see(4)
    camera.see(5, failure="no answer")
    camera.sink.close()
    (path,) = camera.files()
    assert seconds_of(path) == pytest.approx(1 + 5 + 1, abs=2 / RATE)


def test_without_classes_all_is_recorded_in_files_of_that_length(tmp_path) -> None:
    camera = Camera(tmp_path, segment_minutes=0.05)
    camera.see(4)
    camera.see(3.5, PERSON)
    camera.sink.close()
    assert camera.began_seconds() == [0.0, 3.0, 6.0]
    assert sum(len(frames_of(path)) for path in camera.files()) == 75
    first, second, third = camera.lines()
    assert first["classes"] == {} and second["classes"] == third["classes"] == {"person": 1}
    assert first["end_unix"] - first["start_unix"] == pytest.approx(2.9, abs=0.01)  # of its pictures
    assert second["start_unix"] - camera.start_unix == pytest.approx(4.0, abs=0.02)  # of what was seen
    assert camera.sink.way == "in 3 files, by libx264"


def test_a_lost_signal_ends_a_recording(tmp_path) -> None:
    camera = Camera(tmp_path, classes=("person",), pre_seconds=0.0, post_seconds=2.0)
    camera.see(1, PERSON)
    for second in range(8):
        camera.sink.still("door", 2.0 + second, picture(0))
    camera.sink.close()
    (path,) = camera.files()
    assert frames_of(path)[-1] == pytest.approx(3.0, abs=1.1)


def test_pictures_that_wait_are_packets_of_the_last_seconds(tmp_path) -> None:
    camera = Camera(tmp_path, classes=("person",), pre_seconds=2.0)
    camera.see(30)
    waiting = camera.sink._last.pieces()
    assert 2 * RATE <= len(waiting) <= 3 * RATE + 2 and waiting[0].packet.is_keyframe
    camera.sink.close()


def test_who_comes_after_another_takes_the_next_file(tmp_path) -> None:
    start_unix = time.time()
    for _ in range(2):
        camera = Camera(tmp_path, start_unix)
        camera.see(1)
        camera.sink.close()
    first, second = camera.files()
    assert (began_unix(second.name) or 0) - (began_unix(first.name) or 0) == pytest.approx(0.001, abs=1e-6)
    assert len(camera.lines()) == 2


def test_a_recorder_that_is_killed_leaves_a_file_that_can_be_read(tmp_path) -> None:
    code = """
import os, signal, sys
from pipeline.settings import RecordSettings
from pipeline.sinks.record import RecordSink
from tests.kit.media import picture
from tests.kit.results import result
sink = RecordSink(sys.argv[1], RecordSettings(), 25)
for n in range(60):
    sink.write(result(seq=n, seconds=n / 25), picture(n))
os.kill(os.getpid(), signal.SIGKILL)
"""
    assert run_code(code, str(tmp_path / "door")).returncode == -signal.SIGKILL
    (path,) = (tmp_path / "door").iterdir()
    assert len(frames_of(path)) >= 58 and not (tmp_path / "events.jsonl").exists()


def test_a_full_disk_is_one_clear_line_and_what_fitted_can_be_read(tiny_disk: Path) -> None:
    sink = RecordSink(str(tiny_disk / "door"), RecordSettings(), 25, EncoderSettings())
    noise = np.random.default_rng(0)
    with pytest.raises(OutputError, match=r"^cannot write video to .*Z\.mp4: No space left on device$"):
        for n in range(60):
            sink.write(result(seq=n, seconds=n / 25), noise.integers(0, 255, (96, 128, 3), np.uint8))
    with pytest.raises(OutputError, match="No space left on device"):
        sink.close()
    sink.close()
    (path,) = (tiny_disk / "door").iterdir()
    assert readable_frames(path) >= 3


def test_a_folder_that_cannot_be_made_is_told_at_once(tmp_path) -> None:
    (tmp_path / "taken").touch()
    with pytest.raises(OutputError, match=r"^cannot make .*taken/door: Not a directory$"):
        RecordSink(str(tmp_path / "taken" / "door"), RecordSettings())


# --- what is kept ----------------------------------------------------------------------------------------------------

DAY = 86_400.0
MEGABYTE = 10**6
NOT_OURS = ["holiday.mp4", "2026-01-01.mp4", "2026-01-01T00-00-00.000Z.mp4.part", "2026-02-31T00-00-00.000Z.mp4"]


def put(
    folder: Path, source_id: str, days_ago: float, megabytes: float = 1.0, changed_ago: float | None = None
) -> Path:
    """A recording that began so long ago, and was last written to a minute later or `changed_ago` seconds ago."""
    began = time.time() - days_ago * DAY
    (folder / source_id).mkdir(exist_ok=True)
    path = new_path(folder / source_id, began)
    path.write_bytes(bytes(round(megabytes * MEGABYTE)))
    changed = began + 60 if changed_ago is None else time.time() - changed_ago
    os.utime(path, (changed, changed))
    return path


def tidied(folder: Path, **settings: object) -> list[str]:
    """What was warned of."""
    warnings: list[str] = []
    Shelf(folder, RecordSettings(**settings), warnings.append).tidy()  # type: ignore[arg-type]
    return warnings


@pytest.mark.parametrize(
    ("settings", "kept"),
    [
        ({}, [0, 1, 2, 3]),
        ({"keep_days": 10.0}, [0, 1, 2, 3]),
        ({"keep_days": 2.5}, [2, 3]),
        ({"keep_gigabytes": 0.0041}, [0, 1, 2, 3]),
        ({"keep_gigabytes": 0.0039}, [1, 2, 3]),
        ({"keep_gigabytes": 0.0021}, [2, 3]),
        ({"keep_days": 3.5, "keep_gigabytes": 0.0011}, [3]),
        ({"keep_gigabytes": 0.0001}, []),
    ],
)
def test_the_oldest_of_all_sources_go_first(settings: dict, kept: list[int], tmp_path) -> None:
    files = [put(tmp_path, source, days) for source, days in (("yard", 4), ("door", 3), ("yard", 2), ("door", 1))]
    assert tidied(tmp_path, **settings) == []
    assert [number for number, path in enumerate(files) if path.exists()] == kept


def test_an_empty_or_missing_folder_has_nothing_to_go(tmp_path) -> None:
    assert tidied(tmp_path, keep_days=1.0) == []
    assert tidied(tmp_path / "missing", keep_days=1.0) == [
        f"cannot look for old recordings in {tmp_path / 'missing'}: No such file or directory"
    ]


def test_what_is_not_ours_or_is_being_written_stays(tmp_path) -> None:
    busy = put(tmp_path, "door", days_ago=9, changed_ago=5)
    old = put(tmp_path, "door", days_ago=8)
    others = [tmp_path / "door" / name for name in NOT_OURS]
    elsewhere = [tmp_path / old.name, tmp_path / "door" / "kept" / old.name]
    elsewhere[1].parent.mkdir()
    for path in others + elsewhere:
        path.write_bytes(bytes(MEGABYTE))
        os.utime(path, (0, 0))
    (tmp_path / "outside").mkdir()
    target = put(tmp_path / "outside", "film", days_ago=7)
    (tmp_path / "door" / "2020-01-01T00-00-00.000Z.mp4").symlink_to(target)
    (tmp_path / "linked").symlink_to(target.parent)
    tidied(tmp_path, keep_days=1.0, keep_gigabytes=0.0001)
    assert not old.exists()
    assert all(path.exists() for path in [busy, target, *others, *elsewhere])
    assert (tmp_path / "door" / "2020-01-01T00-00-00.000Z.mp4").is_symlink()


def test_what_cannot_be_deleted_is_told_once_and_the_rest_goes(tmp_path) -> None:
    stuck, old = put(tmp_path, "door", days_ago=9), put(tmp_path, "door", days_ago=8)
    if os.geteuid() != 0 or subprocess.run(["chattr", "+i", str(stuck)], capture_output=True).returncode:
        pytest.skip("needs a file system and the right to make a file immutable")
    try:
        warnings = tidied(tmp_path, keep_days=1.0)
    finally:
        subprocess.run(["chattr", "-i", str(stuck)], check=True)
    assert warnings == [f"cannot delete old recordings in {tmp_path}: Operation not permitted"]
    assert stuck.exists() and not old.exists()


def test_a_recorder_keeps_to_the_limits_by_itself(tmp_path) -> None:
    old = put(tmp_path, "yard", days_ago=3)
    camera = Camera(tmp_path, keep_days=2.0)
    camera.see(1)
    camera.sink.close()
    assert not old.exists() and len(camera.files()) == 1
