"""A network of its own for a site of cameras, whose wire can be cut without a word or lose packets.

A namespace, a pair of virtual cards and the kernel's firewall; needs root, `ip` and `nft`. Knows no product.
"""

import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import pytest

OURS, THEIRS, BITS = "10.213.77.1", "10.213.77.2", 30


@dataclass(frozen=True)
class Network:
    """`host` is where the cameras are; `before` runs a command among them."""

    name: str
    host: str = THEIRS

    @property
    def before(self) -> list[str]:
        return ["ip", "netns", "exec", self.name]

    def cut(self) -> None:
        """Nothing passes any more, and nobody is told."""
        self._filter("drop")

    def lose_udp(self, percent: int) -> None:
        """On the way from the cameras."""
        self._filter(f"meta l4proto udp numgen random mod 100 < {percent} drop")

    def heal(self) -> None:
        run(*self.before, "nft", "flush", "ruleset")

    def _filter(self, rule: str) -> None:
        self.heal()
        rules = f"table inet wire {{ chain out {{ type filter hook output priority 0; {rule}; }}; }};"
        run(*self.before, "nft", rules)


@contextmanager
def own_network() -> Iterator[Network]:
    """Skips where the machine cannot have one."""
    name = f"cs{os.getpid()}"
    near, far = f"{name}a", f"{name}b"
    if os.geteuid() != 0 or not all(map(shutil.which, ("ip", "nft"))):
        pytest.skip("a network of its own needs root, ip and nft (apt-get install iproute2 nftables)")
    try:
        run("ip", "netns", "add", name)
        run("ip", "link", "add", near, "type", "veth", "peer", "name", far, "netns", name)
        run("ip", "address", "add", f"{OURS}/{BITS}", "dev", near)
        run("ip", "link", "set", near, "up")
        for words in (["address", "add", f"{THEIRS}/{BITS}", "dev", far], ["link", "set", far, "up"]):
            run("ip", "-netns", name, *words)
        network = Network(name)
        network.heal()
    except RuntimeError as error:
        _remove(name)
        pytest.skip(f"no network of its own here: {error}")
    try:
        yield network
    finally:
        _remove(name)


def _remove(name: str) -> None:
    # The card goes at once, the namespace when its last process has gone.
    subprocess.run(["ip", "link", "delete", f"{name}a"], capture_output=True)
    subprocess.run(["ip", "netns", "delete", name], capture_output=True)


def run(*words: str) -> None:
    """Raises RuntimeError with what the command said."""
    done = subprocess.run(words, capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(f"{' '.join(words)}: {done.stderr.strip()}")
