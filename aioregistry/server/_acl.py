"""Access control (pure): the schemes world, auth, ip, digest and x509."""

from __future__ import annotations

import base64
import hashlib
import re
from collections.abc import Callable, Iterable
from typing import Final, NamedTuple, TypeAlias

from aioregistry.server._codes import Code, Malformed, Refused

READ, WRITE, CREATE, DELETE, ADMIN = 1, 2, 4, 8, 16
ALL: Final = 31


class Rule(NamedTuple):
    """One entry of an ACL; scheme and id are None where the client sent null."""

    permissions: int
    scheme: str | None
    id: str | None


class Identity(NamedTuple):
    """The identities that a connection has proven."""

    scheme: str
    id: str


ACL: TypeAlias = tuple[Rule, ...]

OPEN: Final[ACL] = (Rule(ALL, "world", "anyone"),)
READ_ONLY: Final[ACL] = (Rule(READ, "world", "anyone"),)


def permits(acl: ACL, wanted: int, identities: Iterable[Identity]) -> bool:
    """Whether one of *identities* has one of the *wanted* permissions (``ZooKeeperServer.checkACL``)."""
    if acl is OPEN or not acl:
        return True
    identities = tuple(identities)
    if any(identity.scheme == "super" for identity in identities):
        return True
    return any(rule.permissions & wanted and _concerns(rule, identities) for rule in acl)


def _concerns(rule: Rule, identities: tuple[Identity, ...]) -> bool:
    if rule.scheme == "world" and rule.id == "anyone":
        return True
    return any(
        identity.scheme == rule.scheme and _matches(identity.scheme, identity.id, rule.id or "")
        for identity in identities
    )


def _matches(scheme: str, identity: str, expression: str) -> bool:
    return in_network(identity, expression) if scheme == "ip" else identity == expression


def resolve(acl: Iterable[Rule] | None, identities: Iterable[Identity], *, x509: bool) -> ACL:
    """The ACL that a node gets: without repetitions, ``auth`` replaced by the asker (``fixupACL``).

    Raises:
        Refused: it is empty, names an unknown scheme or an invalid id, or says ``auth`` on a connection without
            authentication.
    """
    resolved: list[Rule] = []
    for rule in dict.fromkeys(acl or ()):
        resolved += _resolve_rule(rule, identities, x509=x509)
    if not resolved:
        raise Refused(Code.INVALID_ACL)
    return OPEN if tuple(resolved) == OPEN else tuple(resolved)


def _resolve_rule(rule: Rule, identities: Iterable[Identity], *, x509: bool) -> list[Rule]:
    if rule.scheme is None:
        raise Refused(Code.INVALID_ACL)
    if rule.scheme == "auth":
        rules = [Rule(rule.permissions, *identity) for identity in identities if identity.scheme in _AUTHENTICATED]
        if not rules:
            raise Refused(Code.INVALID_ACL)
        return rules
    valid = _VALID.get(rule.scheme)
    if valid is None or (rule.scheme == "x509" and not x509):
        raise Refused(Code.INVALID_ACL)
    if rule.id is None:
        raise Malformed
    if not valid(rule.id):
        raise Refused(Code.INVALID_ACL)
    return [rule]


def masked(acl: ACL) -> ACL:
    """As a client that is not an administrator may see it: without the digests of passwords."""
    return tuple(
        rule._replace(id=re.sub(r":.*", ":x", rule.id)) if rule.scheme == "digest" and rule.id else rule for rule in acl
    )


def digest(credentials: bytes) -> str:
    """The id of ``user:password`` in the scheme digest."""
    text = credentials.decode(errors="replace")
    raw = hashlib.sha1(text.encode(), usedforsecurity=False).digest()
    return f"{text.partition(':')[0]}:{base64.b64encode(raw).decode()}"


def user_of(identity: Identity) -> str:
    """WhoAmI's text for an identity: a digest's user without the digest."""
    return identity.id.partition(":")[0] if identity.scheme == "digest" else identity.id


# ---------------------------------------------------------------- ids

_AUTHENTICATED = {"digest", "x509"}


def _is_digest(text: str) -> bool:
    return len(text.rstrip(":").split(":")) == 2  # Java's split drops the empty parts at the end


def _is_name(text: str) -> bool:
    """A distinguished name, roughly as ``X500Principal`` reads it."""
    return not text or all(re.fullmatch(r"\s*[A-Za-z0-9.]+\s*=.*", part) for part in re.split(r"(?<!\\)[,+;]", text))


def _is_network(text: str) -> bool:
    return _parse_network(text) is not None


_VALID: dict[str, Callable[[str], bool]] = {
    "world": lambda text: text == "anyone",
    "ip": _is_network,
    "digest": _is_digest,
    "x509": _is_name,
}


def in_network(address: str, network: str) -> bool:
    """Whether an IPv4 *address* belongs to ``a.b.c.d`` or ``a.b.c.d/bits``."""
    parsed, own = _parse_network(network), _parse_address(address)
    if parsed is None or own is None:
        return False
    base, bits = parsed
    return (own ^ base) >> (32 - bits) == 0


def _parse_network(text: str) -> tuple[int, int] | None:
    address, slash, bits = text.partition("/")
    base = _parse_address(address)
    if base is None:
        return None
    if not slash:
        return base, 32
    if not re.fullmatch(r"[+-]?[0-9]+", bits) or not 0 <= int(bits) <= 32:
        return None
    return base, int(bits)


def _parse_address(text: str) -> int | None:
    parts = text.split(".")
    if len(parts) != 4 or not all(re.fullmatch(r"[+-]?[0-9]+", part) and 0 <= int(part) <= 255 for part in parts):
        return None
    return int.from_bytes(bytes(map(int, parts)))
