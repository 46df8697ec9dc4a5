"""The answer to a server that asks for a password: basic or digest (RFC 7617 and 7616, which RTSP uses, too). Knows no
connection.
"""

import base64
import hashlib
import re
import secrets
from collections.abc import Iterable

_HASHES = {"MD5": hashlib.md5, "SHA-256": hashlib.sha256}


def choose(challenges: Iterable[str]) -> str:
    """The challenge whose answer shows least of the password; "" for none that is known."""
    challenges = list(challenges)
    for scheme in ("digest", "basic"):
        for challenge in challenges:
            if challenge.lower().startswith(scheme) and _algorithm(_fields(challenge)) in _HASHES:
                return challenge
    return ""


def answer(challenge: str, method: str, url: str, user: str, password: str, number: int) -> str:
    """The value of the header `Authorization`; `number` is another one for each request."""
    if challenge.lower().startswith("basic"):
        return f"Basic {base64.b64encode(f'{user}:{password}'.encode()).decode()}"
    asked = _fields(challenge)
    realm, nonce = asked.get("realm", ""), asked.get("nonce", "")
    quoted = {"username": user, "realm": realm, "nonce": nonce, "uri": url}
    bare = {name: asked[name] for name in ("algorithm",) if name in asked}
    parts = [_hash(asked, f"{user}:{realm}:{password}"), nonce]
    if "auth" in re.split(r"[\s,]+", asked.get("qop", "")):
        quoted["cnonce"] = secrets.token_hex(8)
        bare |= {"nc": f"{number:08x}", "qop": "auth"}
        parts += [bare["nc"], quoted["cnonce"], bare["qop"]]
    quoted["response"] = _hash(asked, ":".join([*parts, _hash(asked, f"{method}:{url}")]))
    quoted |= {name: asked[name] for name in ("opaque",) if name in asked}
    fields = [f'{name}="{value}"' for name, value in quoted.items()]
    return "Digest " + ", ".join(fields + [f"{name}={value}" for name, value in bare.items()])


def _fields(challenge: str) -> dict[str, str]:
    found = re.findall(r'(\w+)=(?:"([^"]*)"|([^\s,"]+))', challenge)
    return {name.lower(): quoted or bare for name, quoted, bare in found}


def _algorithm(asked: dict[str, str]) -> str:
    return asked.get("algorithm", "MD5").upper()


def _hash(asked: dict[str, str], text: str) -> str:
    return _HASHES[_algorithm(asked)](text.encode(), usedforsecurity=False).hexdigest()
