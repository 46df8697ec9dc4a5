"""Zones and lines written into a file of settings: what was there stays, letter by letter."""

import os
import stat
import tempfile
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from configs import plainyaml
from pipeline.command.config import load_settings
from pipeline.control.save import save_layout
from pipeline.errors import UsageError
from pipeline.shapes import Layout, Line, Zone

YARD = Zone(((0.0, 0.0), (1.0, 0.0), (1.0, 1.0)))
PATH = Zone(((0.1, 0.2), (0.3, 0.2), (0.3, 0.4), (0.1, 0.4)), ("person", "traffic light"), 5.0, 1.0)
DOOR = Line(((0.5, 1.0), (0.5, 0.0)), ("person",))
ALL = Layout({"yard": YARD, "a path": PATH}, {"door": DOOR})

COMMENTED = """\
# what we watch
infer: {score_threshold: 0.4}   # careful

sources:
  # the camera at the gate
  gate:
    uri: rtsp://${CAM_USER}:${file:/run/secrets/cam}@192.0.2.7/1  # never its value
    zones:
      yard:  # before the house
        polygon: [[0.0, 0.0], [1.0, 0.0], [1.0, 1.0]]  # measured
        classes: [person]        # empty: all
        # nobody stays
        dwell_seconds: null
      old:
        polygon:
          - [0, 0]   # corner
          - [1, 0]
          - [1, 1]

      # the last one
      far: {polygon: [[0, 0], [0.5, 0], [0.5, 0.5]]}
    # how often
    max_rate: 5

  door:
    uri: "rtsp://192.0.2.8/1"
    zones: {yard: {polygon: [[0, 0], [1, 0], [1, 1]]}}
# the end
"""


def saved(tmp_path: Path, text: str, layout: Layout, source_id: str = "gate") -> str:
    """The file after it was saved to; read back it has the zones and lines, and all else as before."""
    path = tmp_path / "run.yaml"
    path.write_bytes(text.encode())
    assert "were saved to" in save_layout(str(path), source_id, layout)
    after = path.read_bytes().decode()
    assert list(tmp_path.iterdir()) == [path]
    before_tree, tree = plainyaml.parse(text), plainyaml.parse(after)
    source = tree["sources"][source_id]
    zones, lines = source.pop("zones", {}), source.pop("lines", {})
    (tmp_path / "zones.yaml").write_text(
        f"sources: {{x: {{uri: a, zones: {zones}, lines: {lines}}}}}".replace("None", "null")
    )
    read = load_settings(str(tmp_path / "zones.yaml"), []).sources["x"]
    assert (read.zones, read.lines) == (layout.zones, layout.lines)
    for kind in ("zones", "lines"):
        before_tree["sources"][source_id].pop(kind, None)
    assert tree == before_tree
    return after


@pytest.mark.parametrize(
    ("text", "after"),
    [
        ("sources:\n  gate:\n    uri: a.mp4\n", "sources:\n  gate:\n    uri: a.mp4\n    zones:\n      yard:\n"),
        ("sources:\n  gate:\n    uri: a.mp4", "sources:\n  gate:\n    uri: a.mp4\n    zones:\n      yard:\n"),
        ("sources: {gate: {uri: a.mp4}}\n", "sources: {gate: {uri: a.mp4, zones: {yard: {polygon"),
        ('{"sources": {"gate": {"uri": "a.mp4", }}}', '{"sources": {"gate": {"uri": "a.mp4", zones: {yard: {polygon'),
        ("sources:\r\n   gate:\r\n      uri: a.mp4\r\n", "      uri: a.mp4\r\n      zones:\r\n        yard:\r\n"),
        ("sources:\n  gate:\n    zones: {}  # none\n    uri: a.mp4\n", "gate:\n    zones:\n      yard:\n"),
        ("sources:\n  gate:\n    uri: |-\n      a.mp4\n\n  door: {uri: b}\n", "      a.mp4\n    zones:\n      yard:\n"),
    ],
    ids=["none", "no-newline", "inline", "json", "crlf", "empty", "text-block"],
)
def test_the_first_ones(tmp_path: Path, text: str, after: str) -> None:
    assert after in saved(tmp_path, text, ALL)


@pytest.mark.parametrize("text", ["sources:\n  gate:\n    uri: a.mp4\n", "sources: {gate: {uri: a.mp4}}\n", COMMENTED])
def test_there_and_back(tmp_path: Path, text: str) -> None:
    """All, then one that was moved, then none."""
    with_all = saved(tmp_path, text, ALL)
    (tmp_path / "zones.yaml").unlink()
    path = tmp_path / "run.yaml"
    assert "already" in save_layout(str(path), "gate", ALL) and path.read_text() == with_all
    moved = Layout({"yard": Zone(((0.2, 0.0), (1.0, 0.0), (1.0, 1.0)))}, {"door": Line(((0.1, 1.0), (0.5, 0.0)))})
    with_moved = saved(tmp_path, with_all, moved)
    (tmp_path / "zones.yaml").unlink()
    without = saved(tmp_path, with_moved, Layout())
    assert text == COMMENTED or without == text


NAMES = st.from_regex(r"[\w-][\w -]{0,7}", fullmatch=True) | st.sampled_from(
    ["no", "123", "1e3", "null", "- a", "2024-01-01"]
)
ZONES = st.builds(
    Zone,
    st.sampled_from([YARD.polygon, PATH.polygon]),
    st.lists(NAMES, max_size=2).map(tuple),
    st.none() | st.floats(0.1, 1e6),
    st.floats(0, 3600),
)
LINES = st.builds(Line, st.just(DOOR.points), st.lists(NAMES, max_size=2).map(tuple))
LAYOUTS = st.builds(Layout, st.dictionaries(NAMES, ZONES, max_size=2), st.dictionaries(NAMES, LINES, max_size=2))


@pytest.mark.parametrize("source_id", ["gate", "door"])
@settings(max_examples=12)
@given(layouts=st.lists(LAYOUTS, min_size=1, max_size=2))
def test_whatever_they_are_called_all_is_read_back(source_id: str, layouts: list[Layout]) -> None:
    """One after the other, beside a source that is written on lines of its own and one that is written in one."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "run.yaml")
        path.write_text(COMMENTED.replace("${CAM_USER}:${file:/run/secrets/cam}@", ""))
        other = load_settings(str(path), [])
        for layout in layouts:
            save_layout(str(path), source_id, layout)
            now = load_settings(str(path), [])
            found = now.sources[source_id]
            assert (found.zones, found.lines) == (layout.zones, layout.lines)
            back = replace(found, zones=other.sources[source_id].zones, lines=other.sources[source_id].lines)
            assert replace(now, sources=now.sources | {source_id: back}) == other
        assert path.read_text().endswith("# the end\n")


def test_comments_and_what_was_not_changed_stay(tmp_path: Path) -> None:
    yard = Zone(((0.0, 0.0), (0.9, 0.0), (1.0, 1.0)), ("person",))
    far = Zone(((0.0, 0.0), (0.5, 0.0), (0.5, 0.5)))
    after = saved(tmp_path, COMMENTED, Layout({"yard": yard, "far": far}, {"door": DOOR}))
    gone = COMMENTED[COMMENTED.index("      old:") : COMMENTED.index("\n      # the last one")]
    expected = COMMENTED.replace(gone, "").replace(
        "[1.0, 0.0], [1.0, 1.0]]  # measured", "[0.9, 0.0], [1.0, 1.0]]  # measured"
    )
    door = "    lines:\n      door:\n        points: [[0.5, 1.0], [0.5, 0.0]]\n        classes: [person]\n"
    assert after == expected.replace("    max_rate: 5\n", f"    max_rate: 5\n{door}")


def test_names_of_secrets_stay_names(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CAM_PASSWORD", "correct horse")
    text = "sources:\n  gate:\n    uri: rtsp://u:${CAM_PASSWORD}@192.0.2.7/1\nserve:\n  token: ${CAM_PASSWORD}\n"
    path = tmp_path / "run.yaml"
    path.write_text(text)
    read = load_settings(str(path), [("serve", {})])
    assert "horse" in read.sources["gate"].uri.reveal()
    after = saved(tmp_path, text, ALL)
    assert "horse" not in after and after.count("${CAM_PASSWORD}") == 2


def test_rights_and_links_stay(tmp_path: Path) -> None:
    real, link = tmp_path / "real.yaml", tmp_path / "link.yaml"
    real.write_text("sources: {gate: {uri: a.mp4}}\n")
    real.chmod(0o640)
    link.symlink_to(real)
    save_layout(str(link), "gate", ALL)
    assert link.is_symlink() and "yard" in real.read_text() and stat.S_IMODE(real.stat().st_mode) == 0o640


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("sources:\n\tgate: 1\n", "line 2: a tab; indent with spaces; nothing was saved"),
        ("sources: {gate: {uri: a.mp4}\n", "line 2: not valid YAML; nothing was saved"),
        ("", "has no sources.gate; put there below sources.gate: zones: {yard: {polygon: [[0.0"),
        (
            "sources: {door: {uri: a.mp4}}\n",
            "has no sources.gate; put there below sources.gate: zones: {yard: {polygon",
        ),
        ("one: &one {uri: a.mp4}\nsources: {gate: *one, door: *one}\n", "cannot be changed without the rest"),
        ("sources: {gate: &g {uri: a}, door: {<<: *g}}\n", "cannot be changed without the rest"),
    ],
    ids=["tab", "broken", "empty", "other-source", "alias", "merge"],
)
def test_a_file_that_cannot_be_saved_to_says_why_and_stays(tmp_path: Path, text: str, why: str) -> None:
    path = tmp_path / "run.yaml"
    path.write_text(text)
    with pytest.raises(UsageError) as refused:
        save_layout(str(path), "gate", ALL)
    assert why in str(refused.value) and "\n" not in str(refused.value)
    assert path.read_text() == text and list(tmp_path.iterdir()) == [path]


def test_without_a_file_it_is_told_what_one_would_say(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="started without --config FILE") as refused:
        save_layout(None, "gate", ALL)
    _, _, told = str(refused.value).partition("below sources.gate: ")
    zones, _, lines = told.partition(" and lines: ")
    path = tmp_path / "run.yaml"
    path.write_text(f"sources:\n  gate:\n    uri: a.mp4\n    {zones}\n    lines: {lines}\n")
    read = load_settings(str(path), []).sources["gate"]
    assert (read.zones, read.lines) == (ALL.zones, ALL.lines)


@pytest.mark.skipif(os.getuid() == 0, reason="an administrator may write anywhere")
def test_a_folder_that_cannot_be_written_is_told_of(tmp_path: Path) -> None:
    path = tmp_path / "run.yaml"
    path.write_text("sources: {gate: {uri: a.mp4}}\n")
    tmp_path.chmod(0o500)
    try:
        with pytest.raises(
            UsageError, match=r"cannot write .*: Permission denied; put there below sources.gate: zones"
        ):
            save_layout(str(path), "gate", ALL)
    finally:
        tmp_path.chmod(0o700)
    assert path.read_text() == "sources: {gate: {uri: a.mp4}}\n"
