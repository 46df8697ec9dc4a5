"""Configuration: what is right is read, what is wrong is one line that names the key and what is allowed."""

import json

import msgspec
import pytest
import yaml

from configs.reader import check
from pipeline.command.cli import parse
from pipeline.command.config import load_settings, parse_assignment
from pipeline.errors import UsageError
from pipeline.settings import Settings
from tests.kit.places import ROOT


def test_nothing_given_is_the_defaults() -> None:
    assert load_settings(None, []) == Settings()


def test_the_default_file_holds_every_key_and_its_default() -> None:

    text = (ROOT / "configs" / "default.yaml").read_text()
    assert yaml.safe_load(text) == json.loads(msgspec.json.encode(Settings()))


def test_an_empty_file_is_the_defaults(tmp_path) -> None:
    (tmp_path / "empty.yaml").write_text("")
    assert load_settings(str(tmp_path / "empty.yaml"), []) == Settings()


def test_assignments_go_on_top_of_the_file_in_order(tmp_path) -> None:
    path = tmp_path / "c.yaml"
    path.write_text("infer: {score_threshold: 0.5, threads: 3}")
    settings = load_settings(str(path), [("infer.score_threshold", 0.6), ("infer.score_threshold", 0.7)])
    assert (settings.infer.score_threshold, settings.infer.threads) == (0.7, 3)


@pytest.mark.parametrize(
    ("text", "value"), [("5e-1", 0.5), ("5E-01", 0.5), ("5.0e-1", 0.5), ("0.5", 0.5), ("1", 1), ("'5e-1'", "5e-1")]
)
def test_numbers_are_read_as_people_write_them(text: str, value: object, tmp_path) -> None:
    assert parse_assignment(f"infer.score_threshold={text}") == ("infer.score_threshold", value)
    if not isinstance(value, str):
        (tmp_path / "c.yaml").write_text(f"infer: {{score_threshold: {text}}}")
        assert load_settings(str(tmp_path / "c.yaml"), []).infer.score_threshold == value


def zone(keys: str) -> str:
    return f"sources.a={{uri: x, zones: {{yard: {{{keys}}}}}}}"


WRONG = {
    "unknown top key": ("infr.threads=1", "infr: no such key; did you mean infer?"),
    "unknown key": ("infer.thread=1", "infer.thread: no such key; did you mean threads?"),
    "unknown key of a source": ("sources.a={uri: x, url: y}", "sources.a.url: no such key; did you mean uri?"),
    "above the range": (
        "infer.score_threshold=1.5",
        "infer.score_threshold: got 1.5, allowed is a number at least 0.0 and at most 1.0",
    ),
    "below the range": ("infer.threads=0", "infer.threads: got 0, allowed is a whole number at least 1"),
    "no frame in a row": ("infer.still=0", "infer.still: got 0, allowed is a whole number at least 1"),
    "a word for frames in a row": ("infer.still=true", "infer.still: got true, allowed is a whole number"),
    "part of a frame": ("infer.still_audit=0.1", "infer.still_audit: got 0.1, allowed is a whole number at least 1"),
    "not one of": ("queue.policy=drop", "queue.policy: got 'drop', allowed is auto or block or latest"),
    "not a device": ("infer.device=tpu", "infer.device: got 'tpu', allowed is auto, cpu, cuda or cuda:N"),
    "text for a number": ("queue.capacity=many", "queue.capacity: got 'many', allowed is a whole number"),
    "a number for text": ("infer.weights=3", "infer.weights: got 3, allowed is text or null"),
    "a list of numbers": ("postprocess.classes=[1]", "postprocess.classes.0: got 1, allowed is text"),
    "a value for a section": ("infer=3", "infer: got 3, allowed is a mapping with the keys model"),
    "a key below a value": ("infer.model.x=1", "infer.model"),
    "no uri": ("sources.a={realtime: true}", "sources.a.uri: is required"),
    "a wrong video suffix": ("deliver.video=x.gif", "deliver.video: got 'x.gif', allowed is a path that ends in"),
    "an encoder that there is not": (
        "deliver.encoder.codec=h265",
        "deliver.encoder.codec: got 'h265', allowed is auto or libx264 or h264_nvenc or h264_qsv",
    ),
    "a preset that there is not": (
        "deliver.encoder.preset=warp",
        "deliver.encoder.preset: got 'warp', allowed is ultrafast or superfast",
    ),
    "a quality beyond H.264's": (
        "deliver.encoder.quality=0",
        "deliver.encoder.quality: got 0, allowed is a whole number at least 1 and at most 51",
    ),
    "a key that an encoder has not": (
        "deliver.encoder.crf=20",
        "deliver.encoder.crf: no such key; allowed here: codec, preset, quality",
    ),
    "a group of what has no one process": (
        "run.groups=[[infer, track]]",
        "run.groups.0.0: got 'infer', allowed is gather or postprocess or track or deliver",
    ),
    "a stage in two groups": ("run.groups=[[track, deliver], [gather, track]]", "groups name track twice"),
    "groups of threads": ("run={placement: threads, groups: [[track, deliver]]}", "groups are of processes"),
    "a zone of two corners": (
        zone("polygon: [[0, 0], [1, 1]]"),
        "sources.a.zones.yard.polygon: got […], allowed is a list of 3 to 64 corners, each [x, y], fractions",
    ),
    "a corner in pixels": (
        zone("polygon: [[0, 0], [640, 0], [0, 1]]"),
        "sources.a.zones.yard.polygon.1.0: got 640, allowed is a fraction of the picture, from 0 to 1",
    ),
    "a corner that is nowhere": (zone("polygon: [[0, 0], [1, .nan], [0, 1]]"), "yard.polygon.1.1: got nan, allowed is"),
    "a corner of one number": (zone("polygon: [[0, 0], [1], [0, 1]]"), "polygon.1: got […], allowed is [x, y], fract"),
    "a zone that crosses itself": (
        zone("polygon: [[0, 0], [1, 1], [1, 0], [0, 1]]"),
        "sources.a.zones.yard: polygon: its sides 1–2 and 3–4 meet; give its corners in the order of walking round",
    ),
    "a zone without an area": (zone("polygon: [[0, 0], [1, 1], [0.5, 0.5]]"), "its sides 3–1 and 1–2 meet"),
    "a zone that is closed twice": (
        zone("polygon: [[0, 0], [1, 0], [1, 1], [0, 0]]"),
        "polygon ends with the corner that it begins with; leave the last one out",
    ),
    "no time to stay": (
        zone("polygon: [[0, 0], [1, 0], [1, 1]], dwell_seconds: 0"),
        "sources.a.zones.yard.dwell_seconds: got 0, allowed is a number above 0.0",
    ),
    "a zone without a polygon": (zone("classes: [person]"), "sources.a.zones.yard.polygon: is required"),
    "an unknown key of a zone": (zone("polgon: []"), "sources.a.zones.yard.polgon: no such key; did you mean polygon?"),
    "a name of a zone that is none": (
        "sources.a={uri: x, zones: {'rtsp://u:s3cret@h/1': {polygon: [[0, 0], [1, 0], [1, 1]]}}}",
        "sources.a.zones: got the key 'rtsp://***@h/…', allowed is a name of up to 64 letters",
    ),
    "too many zones": (
        f"sources.a={{uri: x, zones: {{{', '.join(f'z{n}: {{polygon: []}}' for n in range(33))}}}}}",
        "sources.a.zones: got {…}, allowed is a mapping of up to 32 zones by name",
    ),
    "a line to where it begins": (
        "sources.a={uri: x, lines: {gate: {points: [[0.5, 0], [0.5, 0]]}}}",
        "sources.a.lines.gate: points: the two are the same; a line goes from one to another",
    ),
    "a line of three points": (
        "sources.a={uri: x, lines: {gate: {points: [[0, 0], [0, 1], [1, 1]]}}}",
        "sources.a.lines.gate.points: got […], allowed is a list of two points, each [x, y], fractions",
    ),
    "files to keep of one": ("deliver.keep_files=3", "deliver: keep_files goes with rotate_megabytes"),
    "no file at all": (
        "deliver={rotate_megabytes: 1, keep_files: 0}",
        "deliver.keep_files: got 0, allowed is a whole number at least 1",
    ),
    "an address of no kind": ("deliver.also=['gopher://host/x']", "deliver: also has 'gopher://host/…', allowed is"),
    "an option that there is not": (
        "deliver.also=['mqtt://host/x?qso=1']",
        "deliver: also has 'mqtt://host/…': what stands behind the ? is no option: give them as ?key=value",
    ),
    "no room to wait in": ("deliver.spool.megabytes=0", "deliver.spool.megabytes: got 0, allowed is a number at least"),
    "thresholds the wrong way round": ("track={low_score: 0.9}", "low_score 0.9 must not exceed"),
}


@pytest.mark.parametrize(("assignment", "message"), WRONG.values(), ids=WRONG)
def test_what_is_wrong_is_named(assignment: str, message: str) -> None:
    with pytest.raises(UsageError) as caught:
        load_settings(None, [parse_assignment(assignment)])
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("text", ["", "=", "=1", "infer.threads", "infer.threads=[1"])
def test_what_is_not_an_assignment_is_refused(text: str) -> None:
    with pytest.raises(UsageError, match="--set"):
        parse_assignment(text)


@pytest.mark.parametrize("content", [b"\xff\xfe", b"a: [", b"- 1", b"text"])
def test_what_is_not_a_configuration_file_is_refused(content: bytes, tmp_path) -> None:
    (tmp_path / "c.yaml").write_bytes(content)
    with pytest.raises(UsageError, match=r"c\.yaml"):
        load_settings(str(tmp_path / "c.yaml"), [])


def test_yaml_cannot_run_code(tmp_path) -> None:
    (tmp_path / "c.yaml").write_text("infer: !!python/object/apply:os.system ['true']")
    with pytest.raises(UsageError):
        load_settings(str(tmp_path / "c.yaml"), [])


def test_options_are_names_for_keys() -> None:
    arguments = [
        "x.mp4",
        "--score",
        "0.4",
        "--classes",
        "person,car",
        "--max-frames",
        "7",
        "--realtime",
        "--no-overlay",
        "--device",
        "cpu",
    ]
    settings = parse(arguments).settings
    assert settings == check(
        Settings,
        {
            "sources": {"x": {"uri": "x.mp4", "max_frames": 7, "realtime": True}},
            "infer": {"score_threshold": 0.4, "device": "cpu"},
            "postprocess": {"classes": ["person", "car"]},
            "deliver": {"overlay": False},
        },
    )


def test_an_option_of_the_source_needs_one() -> None:
    with pytest.raises(UsageError, match="--realtime"):
        parse(["--realtime"])


def test_a_source_gets_a_short_name_without_secrets() -> None:
    assert list(parse(["rtsp://user:s3cret@10.0.0.7:554/s3cret?k=s3cret"]).settings.sources) == ["10-0-0-7"]


@pytest.mark.parametrize("name", ["", "rtsp://user:s3cret@cam", "a.b", "x" * 65])
def test_a_name_for_a_source_that_is_none_is_refused(name: str) -> None:
    with pytest.raises(UsageError, match="allowed is a name of up to 64 letters") as refused:
        load_settings(None, [("sources", {name: {"uri": "a.mp4"}})])
    assert "s3cret" not in str(refused.value)


def test_settings_do_not_show_passwords() -> None:
    settings = parse(["rtsp://user:s3cret@10.0.0.7/1"]).settings
    assert "s3cret" not in repr(settings)
    assert settings.sources["10-0-0-7"].uri.reveal() == "rtsp://user:s3cret@10.0.0.7/1"
