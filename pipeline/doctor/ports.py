"""Whether the addresses can be had where a run is to listen. Knows no server; binds, and lets go at once."""

import errno
import socket
from collections.abc import Iterator

from configs.uri import Uri
from pipeline.doctor.finding import Finding, Question, ok, problem

ADVICE = {
    errno.EADDRINUSE: "another program has it, perhaps a run of yours (ctl list); end that, or give another port",
    errno.EADDRNOTAVAIL: "this machine has no such address: 127.0.0.1 is for itself alone, 0.0.0.0 for all it has",
    errno.EACCES: "ports below 1024 are for root: give a higher one",
}


def port(question: Question) -> Iterator[Finding]:
    settings = question.settings
    if settings.serve.at is not None:
        who = "only this machine can reach it" if settings.serve.is_local else "others can reach it, with the token"
        yield _looked_at(f"serve.at {settings.serve.at}", *settings.serve.host_and_port(), who)
    for kind, target in settings.deliver.outputs().values():
        network = Uri(target).network if kind == "publish" else None
        if network and network.scheme == "tcp" and network.port and not network.problem:
            where = f"deliver.also {Uri(target).shown}"
            yield _looked_at(
                where, network.host.strip("[]"), int(network.port.lstrip(":")), "whoever reaches it may listen"
            )


def _looked_at(what: str, host: str, number: int, who: str) -> Finding:
    try:
        for family, address in _places(host, number):
            with socket.socket(family, socket.SOCK_STREAM) as listener:
                listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                if family == socket.AF_INET6:
                    listener.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
                listener.bind(address)
                listener.listen()
    except socket.gaierror:
        return problem("port", f"{what}: the host's name leads nowhere", "give an address")
    except OSError as error:
        why = (error.strerror or type(error).__name__).lower()
        return problem("port", f"{what}: {why}", ADVICE.get(error.errno or 0, "give another address"))
    return ok("port", f"{what} is free; {who}")


def _places(host: str, number: int) -> list[tuple[int, tuple[str, int]]]:
    """Family and address of each that the name stands for. Raises OSError."""
    found = socket.getaddrinfo(host, number, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    return list(dict.fromkeys((family, address) for family, _, _, _, address in found))  # type: ignore[misc]
