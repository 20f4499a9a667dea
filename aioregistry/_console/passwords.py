"""The file of passwords: a line for each user, with a hash by scrypt or argon2; nothing in it can be turned back.

A line is ``NAME:$scrypt$ln=15,r=8,p=1$SALT$HASH`` or ``NAME:$argon2id$v=19$m=65536,t=3,p=4$SALT$HASH``, salt and hash
in base64 without padding, as passlib and the reference implementation of argon2 write them.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import importlib.util
import re
import zlib
from collections.abc import Iterable, Mapping
from typing import Final, NamedTuple, TypeAlias

from aioregistry._errors import InvalidArgument
from aioregistry._extras import needs

__all__ = [
    "LONGEST_NAME",
    "SCHEMES",
    "Argon2",
    "Hash",
    "Scrypt",
    "hashed",
    "is_password",
    "read_passwords",
    "stand_in",
    "without_argon2",
]

_COST: Final = 15
_MOST_COST: Final = 20
_MOST_MEMORY: Final = 2**30
_MOST_WORK: Final = 2**32
"""Bytes that argon2 goes over, all its passes together: some seconds."""

_KIB: Final = 1024
_B64: Final = "[A-Za-z0-9+/]"
_SCRYPT: Final = re.compile(
    rf"\$scrypt\$ln=(\d{{1,2}}),r=(\d{{1,3}}),p=(\d{{1,2}})\$({_B64}{{11,88}})\$({_B64}{{22,88}})"
)
_ARGON2: Final = re.compile(
    rf"\$argon2(id|i|d)\$v=19\$m=(\d{{1,7}}),t=(\d{{1,3}}),p=(\d{{1,3}})\$({_B64}{{11,88}})\$({_B64}{{22,88}})"
)
LONGEST_NAME: Final = 100
_NAME: Final = re.compile(rf"[^\s:\x00-\x1f\x7f]{{1,{LONGEST_NAME}}}")


class Scrypt(NamedTuple):
    """A hash by scrypt (RFC 7914), and what it was made with."""

    log_cost: int
    block_size: int
    parallel: int
    salt: bytes
    hash: bytes


class Argon2(NamedTuple):
    """A hash by argon2 (RFC 9106), and what it was made with; the memory is in KiB."""

    kind: str
    memory: int
    passes: int
    lanes: int
    salt: bytes
    hash: bytes


Hash: TypeAlias = Scrypt | Argon2

_SCRYPT_NOW: Final = Scrypt(_COST, 8, 1, bytes(16), bytes(32))
_ARGON2_NOW: Final = Argon2("id", 65_536, 3, 4, bytes(16), bytes(32))
"""RFC 9106 recommends this where 2 GiB are too much, and so do argon2-cffi's defaults."""

SCHEMES: Final[Mapping[str, Hash]] = {"scrypt": _SCRYPT_NOW, "argon2": _ARGON2_NOW}
"""The costs of new hashes, by the name that a user gives."""


def stand_in(passwords: Mapping[str, Hash], user: str) -> Hash:
    """Return a hash that the password of an unknown *user* is compared with: it takes as long as for a known one.

    Where the hashes of users take different times, a name always gets that of the same user.
    """
    known = list(passwords.values())
    like = known[zlib.crc32(user.encode("utf-8", "surrogatepass")) % len(known)] if known else _SCRYPT_NOW
    return like._replace(salt=bytes(len(like.salt)), hash=bytes(len(like.hash)))


def read_passwords(path: str, lines: Iterable[str]) -> Mapping[str, Hash]:
    """Return the hashes by user that the *lines* of the file *path* say.

    Raises:
        InvalidArgument: a line says something else, or needs a package that is missing; names it by its number and
            shows nothing of it.
    """
    found: dict[str, Hash] = {}
    for number, line in enumerate(lines, 1):
        text = line.strip()
        if not text or text.startswith("#"):
            continue
        name, _, rest = text.partition(":")
        if not _NAME.fullmatch(name):
            raise _wrong(path, number, "has no user before a colon")
        if name in found:
            raise _wrong(path, number, f"has the user {name!r} a second time")
        hash = _read_scrypt(rest) or _read_argon2(rest)
        if hash is None:
            why = "has no hash by scrypt or argon2: make one with aioregistry console --hash-password USER"
            raise _wrong(path, number, why)
        if isinstance(hash, Argon2) and (missing := without_argon2(f"line {number}")) is not None:
            raise InvalidArgument("password-file", path, missing)
        found[name] = hash
    if not found:
        raise InvalidArgument("password-file", path, "has no user: give at least one, or all logins fail")
    return found


def without_argon2(what: str) -> str | None:
    """Return that *what* needs the package that computes argon2; None where it is there."""
    return None if importlib.util.find_spec("argon2") is not None else needs(what, "argon2-cffi", "console")


def _wrong(path: str, number: int, why: str) -> InvalidArgument:
    return InvalidArgument("password-file", path, f"line {number} {why}")


def _read_scrypt(text: str) -> Scrypt | None:
    form = _SCRYPT.fullmatch(text)
    if form is None:
        return None
    log_cost, block_size, parallel = (int(form[number]) for number in (1, 2, 3))
    fits = 0 < log_cost <= _MOST_COST and block_size > 0 and parallel > 0
    if not fits or _memory(log_cost, block_size, parallel) > _MOST_MEMORY:
        return None
    decoded = _decoded(form[4], form[5])
    return None if decoded is None else Scrypt(log_cost, block_size, parallel, *decoded)


def _read_argon2(text: str) -> Argon2 | None:
    form = _ARGON2.fullmatch(text)
    if form is None:
        return None
    memory, passes, lanes = (int(form[number]) for number in (2, 3, 4))
    # The reference implementation refuses less memory than eight blocks a lane.
    fits = passes > 0 and 0 < 8 * lanes <= memory <= _MOST_MEMORY // _KIB
    if not fits or memory * passes * _KIB > _MOST_WORK:
        return None
    decoded = _decoded(form[5], form[6])
    return None if decoded is None else Argon2(form[1], memory, passes, lanes, *decoded)


def _decoded(salt: str, hash: str) -> tuple[bytes, bytes] | None:
    try:
        return base64.b64decode(salt + "=" * (-len(salt) % 4)), base64.b64decode(hash + "=" * (-len(hash) % 4))
    except binascii.Error:
        return None


def _memory(log_cost: int, block_size: int, parallel: int) -> int:
    return 128 * block_size * ((1 << log_cost) + parallel + 2)


def hashed(password: str, salt: bytes, scheme: str = "scrypt") -> str:
    """Return what stands behind the user's name and the colon, by one of :data:`SCHEMES`."""
    own = SCHEMES[scheme]._replace(salt=salt)
    parts = "$".join(base64.b64encode(part).decode().rstrip("=") for part in (salt, _computed(password, own)))
    if isinstance(own, Scrypt):
        return f"$scrypt$ln={own.log_cost},r={own.block_size},p={own.parallel}${parts}"
    return f"$argon2{own.kind}$v=19$m={own.memory},t={own.passes},p={own.lanes}${parts}"


def is_password(password: str, known: Hash) -> bool:
    """Return whether *password* is the one that was hashed; takes some 0.1 s."""
    return hmac.compare_digest(_computed(password, known), known.hash)


def _computed(password: str, known: Hash) -> bytes:
    secret = password.encode("utf-8", "surrogatepass")
    if isinstance(known, Argon2):
        from argon2.low_level import Type, hash_secret_raw

        kind = {"id": Type.ID, "i": Type.I, "d": Type.D}[known.kind]
        return hash_secret_raw(
            secret, known.salt, known.passes, known.memory, known.lanes, len(known.hash), kind, version=19
        )
    return hashlib.scrypt(
        secret,
        salt=known.salt,
        n=2**known.log_cost,
        r=known.block_size,
        p=known.parallel,
        maxmem=_memory(known.log_cost, known.block_size, known.parallel) + 2**20,
        dklen=len(known.hash),
    )
