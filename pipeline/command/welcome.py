"""What the command says when it is given nothing: what it is, how to begin, where to go on. Imports nothing slow.

Its exit code is that of wrong usage: nothing has run, and a script whose `$CAMERA` is empty has to notice.
"""

import os
import shlex
import sys
from pathlib import Path

from pipeline.errors import UsageError

ROOT = Path(__file__).resolve().parents[2]
CLIP = ROOT / "tests" / "data" / "pets09_excerpt.mp4"

TEXT = """\
CenterStream finds and follows objects in video: cameras and files in, tracked objects out, as a video with boxes, as
JSON lines, in a window. It needs neither a GPU nor a download; give it a source, and say where the results go.

    {program} {clip} --out overlay.mp4
    {program} lavfi:testsrc2 --max-frames 100 --jsonl objects.jsonl
    {program} doctor {clip}

The first follows people in a recording, the second makes its own pictures, the third looks whether this machine and a
source are fit for it. A camera is rtsp://USER:PASSWORD@HOST/PATH in the place of the recording.

    {program} --help      all options; doctor, ctl and profile have their own
    {docs}
"""


def main() -> int:
    program = _seen_from_here(ROOT / "run_pipeline.py")
    program = program if "/" in program else f"./{program}"
    clip = _seen_from_here(CLIP) if CLIP.exists() else "street.mp4"
    docs = "README.md has more, docs/operating.md says what each state and counter means"
    print(TEXT.format(program=shlex.quote(program), clip=shlex.quote(clip), docs=docs), end="", file=sys.stderr)
    return UsageError.exit_code


def _seen_from_here(path: Path) -> str:
    """The shorter of the two ways to write it."""
    return min(os.path.relpath(path), str(path), key=len)
