"""No password, no token: whatever an address holds, and wherever it was given by mistake, nothing shows it.

Secrets here are two words that are nowhere else, with hostile letters around them; all that the command writes is
searched for them. What a library prints past Python is heard too.
"""

import json
import os
import socket
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from unittest import mock
from urllib.parse import unquote

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from configs.secrets import filled
from configs.uri import Uri
from tests.kit.control import ControlledRun, running
from tests.kit.harness import QUICK, children, finish, run, start, wait_until
from tests.kit.places import CLIP

pytestmark = pytest.mark.thorough

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


@settings(max_examples=ADDRESSES, suppress_health_check=list(HealthCheck))
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


@settings(max_examples=200, suppress_health_check=list(HealthCheck))
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
    done = run(uri, "--jsonl", tmp_path / "o.jsonl", "--verbose", *QUICK)
    assert done.returncode == code, done.stderr
    told = done.stdout + done.stderr
    assert not [secret for secret in SECRETS if secret in told] and "Traceback" not in told, told


def test_no_process_of_a_run_shows_a_password(tmp_path) -> None:
    """In its command line or environment, which others may read, once it has come to itself."""
    with socket.create_server(("127.0.0.1", 0)) as silent:
        uri = f"rtsp://{USER}:{PASSWORD}@127.0.0.1:{silent.getsockname()[1]}/{TOKEN}"
        process = start(uri, "--jsonl", tmp_path / "o.jsonl", *QUICK)
        wait_until(lambda: len(children(process.pid)) >= 5, what="five workers")
        shown = ""
        for pid in (process.pid, *children(process.pid)):
            shown += "".join(Path(f"/proc/{pid}/{what}").read_text(errors="replace") for what in ("cmdline", "environ"))
        process.terminate()
        _, errors = finish(process)
    assert "run_pipeline.py" in shown and "pipeline.run.worker" in shown
    assert not [secret for secret in SECRETS if secret in shown + errors]


def test_a_password_with_any_letter_opens_the_camera(rtsp_server, tmp_path) -> None:
    password = "a b'\"[c]\\é%$"
    server = rtsp_server(file=CLIP, user="cam", password=password, auth="digest")
    lines = tmp_path / "o.jsonl"
    done = run(server.url_for("cam", password), "--max-frames", 2, "--jsonl", lines, *QUICK)
    assert done.returncode == 0, done.stderr
    assert '"source":"127-0-0-1"' in lines.read_text() and "clip" not in lines.read_text()


# -- secrets that an address names

NAMED = ("CAM_USER", "CAM_PASSWORD", "CAM_TOKEN")
TEMPLATES = (
    "rtsp://${CAM_USER}:${CAM_PASSWORD}@127.0.0.1:1/1",
    "rtsp://${CAM_USER}:${CAM_PASSWORD}@127.0.0.1:1/live?key=${CAM_TOKEN}",
    "https://u:${CAM_PASSWORD}@127.0.0.1:1/${CAM_TOKEN}/1#${CAM_USER}",
    "rtsp://u:${file:FILE}@[::1]:1/1",
    "rtsp://${CAM_USER}:${file:FILE}@127.0.0.1:1/",
    "rtsp://${CAM_USER}@127.0.0.1:1",
)
# Where they are not meant to be: half a name, another's, no address at all
MISTAKES = (
    "${CAM_PASSWORD}",
    "${file:FILE}",
    "lavfi:${CAM_PASSWORD}",
    "/tmp/${CAM_TOKEN}.mp4",
    "rtsp://u:${CAM_PASSWORD@127.0.0.1:1/",
    "rtsp://u:${NO_SUCH_NAME}@127.0.0.1:1/${CAM_TOKEN}",
    "rtsp://u:${file:/nosuch}@127.0.0.1:1/${CAM_TOKEN}",
    "gopher://${CAM_USER}:${CAM_PASSWORD}@h/1",
    "rtsp://h:${CAM_PASSWORD}/1",
    "${CAM_USER}://${CAM_PASSWORD}@h/1",
)


@pytest.fixture(scope="module")
def secret_file(tmp_path_factory) -> Path:
    return tmp_path_factory.mktemp("run") / "cam"


@contextmanager
def named(values: tuple[str, ...]) -> Iterator[None]:
    with mock.patch.dict(os.environ, dict(zip(NAMED, values, strict=True))):
        yield


in_environment = st.tuples(words, words, words).map(
    lambda drawn: tuple(a + secret + b for (a, b), secret in zip(drawn, SECRETS, strict=True))
)


@settings(max_examples=500, suppress_health_check=list(HealthCheck))
@given(in_environment, st.sampled_from(TEMPLATES + MISTAKES), st.booleans())
def test_what_an_address_names_is_not_told(secret_file, values, template: str, in_file: bool) -> None:
    secret_file.write_text(f"{values[1].splitlines()[0] if values[1].splitlines() else ''}\nsecond line {TOKEN}")
    uri = template.replace("FILE", str(secret_file))
    config = secret_file.with_name("my.yaml")
    config.write_text(f"sources:\n  cam: {{uri: '{uri}'}}\n")
    with named(values):
        code, told = validate_here(["--config", config] if in_file else [uri])
    assert code in (2, 3), told
    assert not [secret for secret in SECRETS if secret in told], told
    assert "Traceback" not in told and "CenterStream's own" not in told
    assert len([line for line in told.splitlines() if line.startswith("error: ")]) == 1, told


@settings(max_examples=500)
@given(in_environment)
def test_any_letter_is_allowed_in_what_an_address_names(values) -> None:
    with named(values):
        network = filled(Uri("rtsp://${CAM_USER}:${CAM_PASSWORD}@127.0.0.1:1/x?key=${CAM_TOKEN}")).network
        assert not set(NAMED) & set(os.environ)
    assert network is not None and network.problem is None
    user, _, password = network.user_and_password.partition(":")
    assert (unquote(user), unquote(password)) == values[:2]
    assert (network.host, network.port, unquote(network.tail)) == ("127.0.0.1", ":1", f"/x?key={values[2]}")


def test_names_that_are_not_there_are_told_of_by_their_names() -> None:
    for uri, said in (
        ("rtsp://u:${NO_SUCH_NAME}@h/1", "sources.h.uri: the environment has no NO_SUCH_NAME"),
        ("rtsp://u:${file:/nosuch/cam}@h/1", "/nosuch/cam: no such file"),
        ("rtsp://u:${file:/tmp}@h/1", "/tmp: no such file"),
        ("rtsp://u:${lower}@h/1", "give ${NAME} (capital letters, digits and _) or ${file:PATH}"),
        ("rtsp://u:${OPEN@h/1", "give ${NAME} (capital letters, digits and _) or ${file:PATH}"),
        ("${HOME}", "no address on a network"),
        ("rtsp://${HOME}/1", "names may stand in the user, the password, the path and the query"),
        ("a/${HOME}.mp4", "names may stand in the user, the password, the path and the query"),
    ):
        code, told = validate_here([uri])
        assert code == 2 and said in told, told


def test_names_are_filled_in_nowhere_else(tmp_path) -> None:
    with named((USER, PASSWORD, TOKEN)):
        code, told = validate_here([CLIP, "--jsonl", tmp_path / "${CAM_USER}" / "x"])
    assert code == 2 and "${CAM_USER}" in told


def test_a_named_password_with_any_letter_opens_the_camera(play_server, tmp_path) -> None:
    password = "a b'\"[c]\\é%$@:/?#ü"
    server = play_server(file=CLIP, user="cam", password=password, auth="digest")
    (tmp_path / "cam").write_text(f"{password}\n")
    for name in ("${CAM_PASSWORD}", f"${{file:{tmp_path / 'cam'}}}"):
        with mock.patch.dict(os.environ, {"CAM_PASSWORD": password}):
            done = run(server.url.replace("//", f"//cam:{name}@"), "--max-frames", 1, *QUICK)
        assert done.returncode == 0, done.stderr
        assert "delivered" in done.stderr


LIVES = 1


def is_heard(started: ControlledRun, before: str) -> bool:
    return started.errors.read_text() != before or "cam9" in started.rows()


@settings(max_examples=LIVES, phases=[Phase.generate], suppress_health_check=list(HealthCheck))
@given(in_environment, st.lists(addresses(), min_size=3, max_size=3), st.sampled_from([str.upper, str.lower]))
def test_a_run_of_many_addresses_tells_of_none(values, others, case) -> None:
    """In its output, its errors, its results, the answers of ctl, what it warns of a file that it follows, and in the
    command lines and environments of all its processes."""
    with tempfile.TemporaryDirectory() as folder:
        secret_file, config = Path(folder) / "cam", Path(folder) / "my.yaml"
        secret_file.write_text(f"x{PASSWORD}@:/?#\n")
        environment = dict(zip(NAMED, values, strict=True))
        uris = [template.replace("FILE", str(secret_file)) for template in TEMPLATES]
        lines = [f"  cam{number}: {{uri: '{uri}'}}\n" for number, uri in enumerate(uris)]
        config.write_text("sources:\n" + "".join(lines))
        with running("--config", config, "--watch", "--verbose", env=environment) as started:
            told = ""
            for name in (f"cam{number}" for number in range(len(uris))):
                started.wait_for(name, "lost")
            for words in (
                ("list",),
                ("add", uris[1], "--name", "more"),
                *(("add", uri) for uri in (*others, *MISTAKES)),
                ("remove", case(uris[0])),
                ("set", "cam0", f"classes={others[0]}"),
                (others[1],),
                ("list",),
            ):
                done = started.ctl(*words, env=environment)
                assert done.returncode in (0, 2), (words, done)
                told += done.stdout + done.stderr
            for wrong in (*MISTAKES, *others):
                before = started.errors.read_text()
                config.write_text(f"sources:\n  cam9: {{uri: {json.dumps(wrong)}}}\n" + "".join(lines))
                wait_until(partial(is_heard, started, before), what="an answer to the file")
            config.write_text("sources:\n" + "".join(lines))
            pids = [started.process.pid, *children(started.process.pid)]
            for pid in pids:
                for what in ("cmdline", "environ"):
                    told += Path(f"/proc/{pid}/{what}").read_text(errors="replace")
            assert len(pids) > 6
            told += started.say("list")
            started.say("stop")
            code, errors = started.end()
            told += errors + started.told.read_text() + (started.lines.read_text() if started.lines.exists() else "")
    assert code == 0, errors
    found = [secret for secret in SECRETS if secret in told]
    assert not found, [line for line in told.splitlines() if any(secret in line for secret in found)]
    assert "Traceback" not in told
