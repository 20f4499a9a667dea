"""SASL's mechanism DIGEST-MD5 (RFC 2831), as ZooKeeper's servers speak it with a JAAS ``DigestLoginModule``. Pure.

The server answers an empty token with a challenge, the client proves that it knows the password, and the server proves
that it does, too. Only authentication is here (``qop=auth``): TLS protects everything after it.
"""

from __future__ import annotations

import hashlib
import re
from typing import Final, NamedTuple

from aioregistry._secrets import Secret

__all__ = ["DIGEST_URI", "BadChallenge", "DigestResponse", "answer_challenge"]

DIGEST_URI: Final = "zookeeper/zk-sasl-md5"
"""Service and host as ZooKeeper's servers call themselves, whatever they are called (``SaslServerPrincipal``)."""

_LONGEST: Final = 2048
"""Bytes of a challenge (RFC 2831, 2.1.1)."""

_DIRECTIVE: Final = re.compile(r'[\s,]*([!#-\'*+.0-9A-Z^-z|~-]+)\s*=\s*(?:"((?:[^"\\]|\\.)*)"|([^\s,"]+))\s*(?=,|$)')


class BadChallenge(Exception):
    """A challenge cannot be answered; the text says why, and shows nothing of it."""


class DigestResponse(NamedTuple):
    """The answer to a challenge, and the proof that a server which knows the password gives in return."""

    token: bytes
    proof: bytes


def answer_challenge(
    challenge: bytes, user: str, password: Secret, *, cnonce: str, digest_uri: str = DIGEST_URI
) -> DigestResponse:
    """Return what answers the server's *challenge*.

    Args:
        challenge: the server's challenge; every part of it is checked.
        user: the name, in whatever characters.
        password: UTF-8.
        cnonce: an unforeseeable text of 64 bits or more, in letters and digits.
        digest_uri: the service.

    Raises:
        BadChallenge: it is not one of DIGEST-MD5, or demands more than authentication.
    """
    said = _directives(challenge)
    (nonce,) = said.get("nonce", ()) or ("",)
    if not nonce:
        raise BadChallenge("it has no nonce")
    if said.get("algorithm") != ["md5-sess"]:
        raise BadChallenge("its algorithm is not md5-sess")
    offered = ",".join(said.get("qop", ["auth"]))
    if "auth" not in [each.strip().lower() for each in offered.split(",")]:
        raise BadChallenge("it demands a protection of the connection (qop) that ZooKeeper does not have: use TLS")
    realm = said.get("realm", [""])[0]  # of several, the first, as Java's client does
    secret = _digest(b":".join((_octets(user), _octets(realm), _octets_of_password(password))))
    key = Secret(secret + f":{nonce}:{cnonce}".encode())
    fields = {
        "username": _quoted(user),
        **({"realm": _quoted(realm)} if "realm" in said else {}),
        "nonce": _quoted(nonce),
        "nc": "00000001",
        "cnonce": _quoted(cnonce),
        "digest-uri": _quoted(digest_uri),
        "response": _response(key, nonce, cnonce, f"AUTHENTICATE:{digest_uri}"),
        "qop": "auth",
    }
    token = ",".join(("charset=utf-8", *(f"{name}={value}" for name, value in fields.items())))
    return DigestResponse(
        Secret(token.encode()), Secret(f"rspauth={_response(key, nonce, cnonce, f':{digest_uri}')}".encode())
    )


def _directives(challenge: bytes) -> dict[str, list[str]]:
    if len(challenge) > _LONGEST:
        raise BadChallenge(f"it has {len(challenge)} bytes, and may have {_LONGEST}")
    try:
        text = challenge.decode()
    except UnicodeDecodeError:
        raise BadChallenge("it is not UTF-8") from None
    found: dict[str, list[str]] = {}
    at = 0
    while rest := text[at:].strip(" \t\r\n,"):
        match = _DIRECTIVE.match(text, at)
        if match is None:
            raise BadChallenge(f"it cannot be read from character {len(text) - len(rest)} on")
        name, quoted, plain = match.groups()
        value = plain if quoted is None else re.sub(r"\\(.)", r"\1", quoted, flags=re.DOTALL)
        found.setdefault(name.lower(), []).append(value)
        at = match.end()
    for name in ("nonce", "algorithm"):
        if len(found.get(name, ())) > 1:
            raise BadChallenge(f"it has more than one {name}")
    return found


def _octets(text: str) -> bytes:
    """As they are hashed: ISO 8859-1 where that has all of them (RFC 2831, 2.1.2.1)."""
    try:
        return text.encode("latin-1")
    except UnicodeEncodeError:
        return text.encode()


def _octets_of_password(password: Secret) -> bytes:
    return Secret(_octets(password.decode()))


def _digest(octets: bytes) -> bytes:
    # The mechanism is MD5 by its definition, also where a system has it for nothing else.
    return hashlib.md5(octets, usedforsecurity=False).digest()


def _response(key: bytes, nonce: str, cnonce: str, what: str) -> str:
    halves = _digest(key).hex(), _digest(what.encode()).hex()
    return _digest(f"{halves[0]}:{nonce}:00000001:{cnonce}:auth:{halves[1]}".encode()).hex()


def _quoted(text: str) -> str:
    return '"' + re.sub(r'(["\\])', r"\\\1", text) + '"'
