"""The file of passwords: a line for each user, with a hash by scrypt; nothing in it can be turned back.

A line is ``NAME:$scrypt$ln=15,r=8,p=1$SALT$HASH``, salt and hash in base64 without padding, as passlib writes it.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import re
from collections.abc import Iterable, Mapping
from typing import Final, NamedTuple

from aioregistry._errors import InvalidArgument

__all__ = ["DUMMY", "LONGEST_NAME", "Scrypt", "hashed", "is_password", "read_passwords"]

_COST: Final = 15
_MOST_COST: Final = 20
_MOST_MEMORY: Final = 2**30
_FORM: Final = re.compile(
    r"\$scrypt\$ln=(\d{1,2}),r=(\d{1,3}),p=(\d{1,2})\$([A-Za-z0-9+/]{11,88})\$([A-Za-z0-9+/]{22,88})"
)
LONGEST_NAME: Final = 100
_NAME: Final = re.compile(rf"[^\s:\x00-\x1f\x7f]{{1,{LONGEST_NAME}}}")


class Scrypt(NamedTuple):
    """A hash by scrypt, and what it was made with."""

    log_cost: int
    block_size: int
    parallel: int
    salt: bytes
    hash: bytes


DUMMY: Final = Scrypt(_COST, 8, 1, bytes(16), bytes(32))
"""The hash that an unknown user's password is compared with: it takes as long as for a known user."""


def read_passwords(path: str, lines: Iterable[str]) -> Mapping[str, Scrypt]:
    """Return the hashes by user that the *lines* of the file *path* say.

    Raises:
        InvalidArgument: a line says something else; names it by its number and shows nothing of it.
    """
    found: dict[str, Scrypt] = {}
    for number, line in enumerate(lines, 1):
        text = line.strip()
        if not text or text.startswith("#"):
            continue
        name, _, rest = text.partition(":")
        if not _NAME.fullmatch(name):
            raise _wrong(path, number, "has no user before a colon")
        if name in found:
            raise _wrong(path, number, f"has the user {name!r} a second time")
        hash = _read_hash(rest)
        if hash is None:
            raise _wrong(path, number, "has no hash by scrypt: make one with aioregistry console --hash-password USER")
        found[name] = hash
    if not found:
        raise InvalidArgument("password-file", path, "has no user: give at least one, or all logins fail")
    return found


def _wrong(path: str, number: int, why: str) -> InvalidArgument:
    return InvalidArgument("password-file", path, f"line {number} {why}")


def _read_hash(text: str) -> Scrypt | None:
    form = _FORM.fullmatch(text)
    if form is None:
        return None
    log_cost, block_size, parallel = (int(form[number]) for number in (1, 2, 3))
    fits = 0 < log_cost <= _MOST_COST and block_size > 0 and parallel > 0
    if not fits or _memory(log_cost, block_size, parallel) > _MOST_MEMORY:
        return None
    try:
        salt, hash = (base64.b64decode(form[number] + "=" * (-len(form[number]) % 4)) for number in (4, 5))
    except binascii.Error:
        return None
    return Scrypt(log_cost, block_size, parallel, salt, hash)


def _memory(log_cost: int, block_size: int, parallel: int) -> int:
    return 128 * block_size * ((1 << log_cost) + parallel + 2)


def hashed(password: str, salt: bytes) -> str:
    """Return what stands behind the user's name and the colon."""
    own = Scrypt(_COST, 8, 1, salt, b"")
    parts = (base64.b64encode(part).decode().rstrip("=") for part in (salt, _computed(password, own, 32)))
    return f"$scrypt$ln={own.log_cost},r={own.block_size},p={own.parallel}${'$'.join(parts)}"


def is_password(password: str, known: Scrypt) -> bool:
    """Return whether *password* is the one that was hashed; takes some 0.1 s."""
    return hmac.compare_digest(_computed(password, known, len(known.hash)), known.hash)


def _computed(password: str, known: Scrypt, length: int) -> bytes:
    return hashlib.scrypt(
        password.encode("utf-8", "surrogatepass"),
        salt=known.salt,
        n=2**known.log_cost,
        r=known.block_size,
        p=known.parallel,
        maxmem=_memory(known.log_cost, known.block_size, known.parallel) + 2**20,
        dklen=length,
    )
