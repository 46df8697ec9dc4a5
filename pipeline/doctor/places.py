"""Where a run keeps what it keeps: shared memory, the temporary folder with its sockets, the cache. Each is really
used, and left as it was. Knows no stage.
"""

import os
import shutil
import socket
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

from configs.folders import cache_dir, usual_cache_dir
from configs.uri import shown_text
from pipeline.control.words import FOLDER_PREFIX, LONGEST_FOLDER_BYTES, SOCKET, folder_for_runs
from pipeline.doctor.finding import Finding, Question, note, ok, problem
from pipeline.errors import UsageError
from pipeline.flow.sharedmem import Pool, create_pool
from pipeline.run.plan import Plan

# Written into each pool: 64 inputs of 512×512 with their pictures of 720p are less.
TRIED_BYTES = 64 << 20
SMALL_TMP_BYTES = 64 << 20
# An exported network has up to 800 MB, and it is written beside the one before.
SMALL_CACHE_BYTES = 2 << 30


def shared_memory(question: Question) -> Iterator[Finding]:
    """Reserves the pools of the run as the run would, and writes into them."""
    try:
        with ExitStack() as stack:
            specs = [create_pool(name, slots, slot_bytes) for name, slots, slot_bytes in Plan(question.settings).pools]
            for spec in specs:
                stack.callback(os.close, spec.fd)
            for spec in specs:
                _write_into(Pool(spec))
    except (OSError, UsageError) as error:
        why = getattr(error, "strerror", None) or str(error)
        yield problem(
            "shared memory", f"it cannot be had: {why}", "raise the limit: ulimit -v, or the container's memory"
        )
        return
    addresses = sum(spec.size_bytes for spec in specs) >> 30
    how = "memfd: /dev/shm is not used, whatever its size" if hasattr(os, "memfd_create") else "a file without a name"
    told = f"{addresses} GiB of addresses were reserved, and {len(specs) * TRIED_BYTES >> 20} MiB of them written"
    yield ok("shared memory", f"{told} ({how})")


def _write_into(pool: Pool) -> None:
    """Where there is no memory for it the process is ended, as a run's would be."""
    slots = -(-TRIED_BYTES // pool.spec.slot_bytes)
    for slot in range(slots):
        pool.array(slot, 0, "u1", (TRIED_BYTES // slots,))[:] = 1


def temporary_folder(question: Question) -> Iterator[Finding]:
    try:
        folder, place = Path(tempfile.gettempdir()), Path(folder_for_runs())
        free = shutil.disk_usage(place).free
    except OSError as error:
        yield problem(
            "temporary folder", f"none can be written: {error.strerror}", "set TMPDIR to a folder that can be"
        )
        return
    told = f"{shown_text(str(folder))}, {_size(free)} free"
    if place != folder:
        length = len(os.fsencode(folder))
        text = f"{told}: its path has {length} bytes, too many for sockets, which lie in {place} instead"
        yield note("temporary folder", text, f"set TMPDIR to a folder of less than {LONGEST_FOLDER_BYTES} bytes")
    if why := _no_socket(place):
        yield problem(
            "temporary folder", f"{told}: no socket can be made in {place} ({why})", "set TMPDIR to another folder"
        )
    elif free < SMALL_TMP_BYTES:
        yield note("temporary folder", told, "make room, or set TMPDIR to another folder")
    elif place == folder:
        yield ok("temporary folder", f"{told}; sockets can be made there")


def _no_socket(place: Path) -> str | None:
    """Why a run could not make its folder of sockets there."""
    try:
        with (
            tempfile.TemporaryDirectory(prefix=f".{FOLDER_PREFIX}", dir=place) as folder,
            socket.socket(socket.AF_UNIX) as listener,
        ):
            listener.bind(str(Path(folder) / SOCKET))
            listener.listen()
    except OSError as error:
        return error.strerror or type(error).__name__
    return None


def cache(question: Question) -> Iterator[Finding]:
    usual = usual_cache_dir()
    try:
        folder = cache_dir()
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder) as file:
            file.write(bytes(4096))
            file.flush()
    except OSError as error:
        how = "set CENTERSTREAM_CACHE to a folder that can be written; without one each start measures anew"
        yield problem("cache", f"nothing can be kept: {error.strerror}", how)
        return
    free = shutil.disk_usage(folder).free
    told = f"{shown_text(str(folder))}, {_size(free)} free"
    if usual is None or folder != usual.absolute():
        meant = shown_text(str(usual)) if usual else "a folder in your home"
        how = "set CENTERSTREAM_CACHE to a folder that can be written and stays"
        yield note("cache", f"{told}, for {meant} cannot be written; it may be gone after the next boot", how)
    elif free < SMALL_CACHE_BYTES:
        yield note("cache", f"{told}: little for exported networks, of up to 800 MB each", "make room there")
    else:
        yield ok("cache", told)


def _size(count: int) -> str:
    return f"{count / 2**30:.1f} GiB" if count >= 1 << 30 else f"{count >> 20} MiB"
