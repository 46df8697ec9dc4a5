"""No password, no token: whatever an address holds, and wherever it was given by mistake, nothing shows it.

Secrets here are two words that are nowhere else, with hostile letters around them; all that the command writes is
searched for them. What a library prints past Python is heard too.
"""

import os
import socket
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from unittest import mock

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.kit.harness import children, finish, run, start, wait_until
from tests.kit.places import CLIP

USER, PASSWORD, TOKEN = "uQ7zuser", "pQ7zpass", "tQ7ztoken"
SECRETS = (USER, PASSWORD, TOKEN)
ADDRESSES = 2000

hostile = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=5) | st.text(
    " /'\"[]{}()<>\n\r\t\\@:?#&%=;$`|,-", max_size=5
)
words = st.tuples(hostile, hostile)


@st.composite
def addresses(draw: st.DrawFn) -> str:
    scheme = draw(st.sampled_from(["rtsp", "rtsps", "http", "https", "RTSP", "rtmp", "ftp", "srt", "file"]))
    user, password, token = (
        a + secret + b for (a, b), secret in zip(draw(st.tuples(words, words, words)), SECRETS, strict=False)
    )
    host = draw(st.sampled_from(["127.0.0.1:1", "127.0.0.1:1", "[::1]:1", "127.0.0.1:99999", ""]))
    who = draw(st.sampled_from([f"{user}:{password}@", f"u:{password}@", f":{password}@", f"u:{PASSWORD} ", ""]))
    tail = draw(
        st.sampled_from(["", "/", f"/{token}", f"/live/{token}/1", f"/1?key={token}", f"?{token}", f"/1#{token}"])
    )
    form = draw(st.sampled_from(["{0}://{1}{2}{3}", "{0}://{1}{2}{3}", "{0}:/{1}{2}{3}", "{0}:{1}{2}{3}"]))
    # Without :// it is a path, and only what has the form user:password@ or ?key=token in it looks like a secret.
    if "//" not in form:
        who, tail = f"{user}:{password}@", ""
    return form.format(scheme, who, host, tail)


# Ways to give an address: as it is meant, and by mistake
PLACES = {
    "the source": lambda uri: [uri],
    "a second source": lambda uri: [CLIP, uri],
    "a second source that is": lambda uri: [uri, uri],
    "a source by --set": lambda uri: ["--set", f"sources={{cam: {{uri: {uri!r}}}}}"],
    "a value": lambda uri: [CLIP, "--set", f"infer.model={uri}"],
    "a number": lambda uri: [CLIP, "--set", f"infer.threads={uri}"],
    "a section": lambda uri: [CLIP, "--set", f"infer={uri}"],
    "a key": lambda uri: [CLIP, "--set", f"{uri}=1"],
    "no key": lambda uri: [CLIP, "--set", uri],
    "a file of settings": lambda uri: [CLIP, "--config", uri],
    "a video": lambda uri: [CLIP, "--out", f"{uri}.mp4"],
    "lines": lambda uri: [CLIP, "--jsonl", f"{uri}/x"],
    "weights": lambda uri: [CLIP, "--weights", uri],
    "a model": lambda uri: [CLIP, "--model", uri],
    "classes": lambda uri: [CLIP, "--classes", uri],
    "a score": lambda uri: [CLIP, "--score", uri],
    "a flag": lambda uri: [CLIP, f"--show={uri}"],
    "an option": lambda uri: [CLIP, f"--{uri}"],
    "a device": lambda uri: [CLIP, "--device", uri],
    "an input": lambda uri: [CLIP, "--input", uri],
}


@contextmanager
def heard() -> Iterator[Path]:
    """All that this process writes to its standard output and error, by whatever way."""
    with tempfile.NamedTemporaryFile() as file:
        kept = [os.dup(1), os.dup(2)]
        try:
            for number in (1, 2):
                os.dup2(file.fileno(), number)
            with (
                open(1, "w", closefd=False) as out,
                open(2, "w", closefd=False) as errors,
                mock.patch.object(sys, "stdout", out),
                mock.patch.object(sys, "stderr", errors),
            ):
                yield Path(file.name)
        finally:
            for number, copy in enumerate(kept, start=1):
                os.dup2(copy, number)
                os.close(copy)


def validate_here(arguments: list[object]) -> tuple[int, str]:
    """`run_pipeline.py … --validate` in this process: the whole way from the command line to the open source."""
    from run_pipeline import main

    line = ["run_pipeline.py", *map(str, arguments), "--validate", "--verbose"]
    with heard() as told, mock.patch.object(sys, "argv", line), mock.patch("setproctitle.setproctitle") as title:
        try:
            code = main()
        except SystemExit as ending:
            code = int(ending.code or 0)
        sys.stdout.flush()
        sys.stderr.flush()
        return code, told.read_text(errors="replace") + str(title.call_args_list)


@settings(max_examples=ADDRESSES, deadline=None, suppress_health_check=list(HealthCheck))
@given(addresses(), st.sampled_from([*PLACES, *["the source"] * 10]))
def test_nothing_secret_is_told_and_there_is_no_traceback(uri: str, place: str) -> None:
    code, told = validate_here(PLACES[place](uri))
    assert code in (0, 2, 3), told  # 0: rtsp:a:b@c.mp4 is a name that a new file may have
    assert not [secret for secret in SECRETS if secret in told], told
    assert "Traceback" not in told and "CenterStream's own" not in told
    errors = [line for line in told.splitlines() if line.startswith("error: ")]
    assert len(errors) == (1 if code else 0), told


YAMLS = {
    "a source": "sources: {{cam: {{uri: {0}}}}}",
    "a name": "sources: {{{0}: {{uri: x.mp4}}}}",
    "a key": "{0}: 1",
    "a key of a source": "sources: {{cam: {{uri: x.mp4, {0}: 1}}}}",
    "a number": "infer: {{threads: {0}}}",
    "a key twice": "{0}: 1\n{0}: 2",
    "not YAML": "a: [{0}\n",
}


@settings(max_examples=200, deadline=None, suppress_health_check=list(HealthCheck))
@given(addresses(), st.sampled_from(list(YAMLS)))
def test_nothing_secret_in_a_file_is_told(uri: str, place: str) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "c.yaml"
        path.write_text(YAMLS[place].format("'" + uri.replace("'", "''") + "'"), encoding="utf-8", newline="")
        code, told = validate_here(["--config", path])
    assert code in (2, 3), told
    assert not [secret for secret in SECRETS if secret in told], told
    assert "Traceback" not in told and "CenterStream's own" not in told


HARD = {
    f"rtsp://{USER}:{PASSWORD}@127.0.0.1:1/{TOKEN}?{TOKEN}": 3,
    f"rtsp://{USER}:a {PASSWORD}'\"[b]@127.0.0.1:1/{TOKEN}": 3,
    f"http://{USER}:{PASSWORD}%2F@127.0.0.1:1/{TOKEN}": 3,
    f"rtsp://{USER}:{PASSWORD}/x@127.0.0.1:1/1": 3,
    f"rtsp://{USER}:{PASSWORD}\n@127.0.0.1:1/{TOKEN}": 2,
}


@pytest.mark.parametrize(("uri", "code"), HARD.items(), ids=range(len(HARD)))
def test_a_real_run_tells_nothing_secret(uri: str, code: int, tmp_path) -> None:
    """Its stages are processes of their own, and libraries write past Python."""
    done = run(uri, "--jsonl", tmp_path / "o.jsonl", "--verbose", "--set", "infer.engine=eager")
    assert done.returncode == code, done.stderr
    told = done.stdout + done.stderr
    assert not [secret for secret in SECRETS if secret in told] and "Traceback" not in told, told


def test_no_process_of_a_run_shows_a_password(tmp_path) -> None:
    """In its command line or environment, which others may read, once it has come to itself."""
    with socket.create_server(("127.0.0.1", 0)) as silent:
        uri = f"rtsp://{USER}:{PASSWORD}@127.0.0.1:{silent.getsockname()[1]}/{TOKEN}"
        process = start(uri, "--jsonl", tmp_path / "o.jsonl", "--set", "infer.engine=eager")
        wait_until(lambda: len(children(process.pid)) >= 5, what="five workers")
        shown = ""
        for pid in (process.pid, *children(process.pid)):
            shown += "".join(Path(f"/proc/{pid}/{what}").read_text(errors="replace") for what in ("cmdline", "environ"))
        process.terminate()
        _, errors = finish(process)
    assert "run_pipeline.py" in shown and "pipeline.worker" in shown
    assert not [secret for secret in SECRETS if secret in shown + errors]


def test_a_password_with_any_letter_opens_the_camera(rtsp_server, tmp_path) -> None:
    password = "a b'\"[c]\\é%$"
    server = rtsp_server(file=CLIP, user="cam", password=password, auth="digest")
    lines = tmp_path / "o.jsonl"
    done = run(server.url_for("cam", password), "--max-frames", 2, "--jsonl", lines, "--set", "infer.engine=eager")
    assert done.returncode == 0, done.stderr
    assert '"source":"127-0-0-1"' in lines.read_text() and "clip" not in lines.read_text()
