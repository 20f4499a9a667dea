"""The grammar of an instance's address: one for publishing, reading and requesting. Pure.

An address is put into URLs (RFC 3986, section 3.2.2) and given to resolvers, and both must take it for the same:

* An IPv4 address is four numbers without leading zeros. A name whose last part is a number is not one, whatever it
  looks
  like: resolvers read 10.0.0.07, 1.2.3 and 0x7f.1 as addresses, each its own way.
* An IPv6 address may have a zone (RFC 6874) of letters, digits and ``. _ -``.
* A host name is made of parts of letters, digits, ``-`` and ``_``, 63 characters at most, 253 together; one dot may
  follow. Underscores are not part of host names (RFC 1123), but of names in containers' networks.
* A part in another alphabet is what IDNA 2003, which resolvers go by, and IDNA 2008, which clients go by, agree on:
  letters, marks and digits that neither maps to others. Names that they spell differently (``ß``) have to be written
  as ``xn--``.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterable
from typing import Final

from ._errors import InvalidArgument, InvalidType

__all__ = [
    "IPAddress",
    "check_address",
    "ends_in_number",
    "ip_address",
    "is_host_name",
    "only_here",
    "problem_of",
    "split_authority",
]

IPAddress = ipaddress.IPv4Address | ipaddress.IPv6Address

_LOCAL_NAMES: Final = ("localhost", "localhost.localdomain")
_MAX_NAME: Final = 253
_MAX_PART: Final = 63
_ASCII_PART: Final = re.compile(r"[A-Za-z0-9_-]+")
_NUMBER: Final = re.compile(r"[0-9]+|0[xX][0-9A-Fa-f]*")
_ZONE: Final = re.compile(r"[A-Za-z0-9._-]{1,63}")

_AUTHORITY: Final = re.compile(r"(?:\[([^\[\]]*:[^\[\]]*)\]|([^:\[\]]*))(?::(.*))?", re.DOTALL)

_LETTERS_MARKS_DIGITS: Final = frozenset({"Ll", "Lo", "Lm", "Mn", "Mc", "Nd"})
# RFC 5892: letters and marks that are disallowed all the same (old Hangul jamo, ignorables, signs of notation),
# and digits that are allowed in some contexts only.
_DISALLOWED: Final = re.compile(
    "[\u0640\u07fa\u0660-\u0669\u06f0-\u06f9\u034f\u1100-\u11ff\u17b4\u17b5\u180b-\u180e\u20d0-\u20ff\u302e\u302f"
    "\u3031-\u3035\u303b\ufe00-\ufe0f\U0001d100-\U0001d24f\U000e0000-\U000e0fff]"
)
_SPELLED_DIFFERENTLY: Final = frozenset("ß\u03c2")


def check_address(field: str, address: object) -> str:
    """Return *address* if requests can be sent to it; raises :class:`InvalidArgument`."""
    if not isinstance(address, str):
        raise InvalidType(field, address, f"must be str, not {type(address).__name__}")
    problem = problem_of(address)
    if problem is not None:
        raise InvalidArgument(field, address, f"must be a host name or an IP address: {problem}")
    return address


def ip_address(text: str) -> IPAddress | None:
    """Return the IP address that *text* is, an IPv4 address where it is written as an IPv6 one; None for a name."""
    try:
        address = ipaddress.ip_address(text)
    except ValueError:
        return None
    mapped = address.ipv4_mapped if isinstance(address, ipaddress.IPv6Address) else None
    return mapped or address


def split_authority(text: str) -> tuple[str, str | None] | None:
    """Return the host and the text of the port of ``HOST:PORT``, where IPv6 addresses have brackets (RFC 3986, 3.2).

    The host may be empty; the port is None if there is no colon behind the host. Neither is checked. Returns None if
    there is something else before or behind the brackets, or if only one of them is there, which urllib may ignore.
    """
    match = _AUTHORITY.fullmatch(text)
    return None if match is None else (match[1] or match[2], match[3])


def only_here(address: str, servers: Iterable[str]) -> bool:
    """Return whether *address* is this machine's own, while a server of the ensemble is on another machine.

    A name, of an address or a server, is taken for another machine's unless it is one of ``localhost`` (RFC 6761).
    """
    return _is_loopback(address) and not all(_is_loopback(server) for server in servers)


def _is_loopback(host: str) -> bool:
    address = ip_address(host)
    name = host.lower().rstrip(".")
    return address.is_loopback if address is not None else name in _LOCAL_NAMES or name.endswith(".localhost")


def problem_of(address: str) -> str | None:
    """Return why *address* is neither a host name nor an IP address; None where it is one."""
    if not address:
        return "it is empty"
    if ":" in address:
        return _ipv6_problem(address)
    name = address.removesuffix(".")
    if not name:
        return "it is a dot"
    if ends_in_number(address):
        return (
            None if name == address and _is_ipv4(name) else "its last part is a number, and it is not an IPv4 address"
        )
    if len(name) > _MAX_NAME:
        return f"it is longer than {_MAX_NAME} characters"
    return next((problem for problem in map(_part_problem, name.split(".")) if problem is not None), None)


def ends_in_number(name: str) -> bool:
    """Return whether the last part of *name* is a number, and so not a host name (URL Standard, "ends in a number").

    Resolvers take such a name for an IPv4 address, and for a wrong one where it is not.
    """
    return _NUMBER.fullmatch(name.removesuffix(".").rpartition(".")[2]) is not None


def is_host_name(text: str) -> bool:
    """Return whether *text* is a host name in ASCII of which no part begins or ends with a hyphen (RFC 1123).

    It is not an address, and may have underscores, as names in containers' networks have.
    """
    if not text.isascii() or ":" in text or ends_in_number(text) or problem_of(text) is not None:
        return False
    return not any(part.startswith("-") or part.endswith("-") for part in text.removesuffix(".").split("."))


def _is_ipv4(text: str) -> bool:
    try:
        ipaddress.IPv4Address(text)
    except ValueError:
        return False
    return text.isascii()


def _ipv6_problem(address: str) -> str | None:
    number, percent, zone = address.partition("%")
    try:
        ipaddress.IPv6Address(number)
    except ValueError:
        return "it has a colon, and is not an IPv6 address"
    if percent and not _ZONE.fullmatch(zone):
        return "an IPv6 zone is made of letters, digits, '.', '_' and '-'"
    if zone.startswith("25"):  # "%25" is how URLs spell the "%" before a zone
        return "its IPv6 zone begins with 25, which URLs take for another zone"
    return None


def _part_problem(part: str) -> str | None:
    if not part:
        return "a part between its dots is empty"
    if not part.isascii():
        return None if _is_u_label(part.lower()) else f"{part!r} is not a valid label for IDNA"
    if not _ASCII_PART.fullmatch(part):
        return f"{part!r} has characters other than letters, digits, '-' and '_'"
    if len(part) > _MAX_PART:
        return f"a part of it is longer than {_MAX_PART} characters"
    if part[:4].lower() == "xn--" and not _is_a_label(part.lower()):
        return f"{part!r} is not a label that IDNA writes"
    return None


def _is_a_label(part: str) -> bool:
    try:
        label = part[4:].encode("ascii").decode("punycode")
        if label.isascii() or "xn--" + label.encode("punycode").decode("ascii") != part:
            return False
    except ValueError:
        return False
    return _is_allowed(label)


def _is_u_label(label: str) -> bool:
    if _SPELLED_DIFFERENTLY & set(label) or not _is_allowed(label):
        return False
    try:
        return label.encode("idna") == b"xn--" + label.encode("punycode")
    except ValueError:
        return False


def _is_allowed(label: str) -> bool:
    """Whether *label*, in lower case and not all ASCII, is made of what IDNA leaves as it is."""
    import stringprep  # with its tables: not of everybody who imports aioregistry
    from unicodedata import bidirectional, category, normalize

    if label != normalize("NFKC", label.lower()) or label.startswith("-") or label.endswith("-") or label[2:4] == "--":
        return False
    others = [character for character in label if not character.isascii()]
    if (
        category(label[0]).startswith("M")
        or _DISALLOWED.search(label)
        or not _ASCII_PART.fullmatch("".join(character for character in label if character.isascii()) or "-")
    ):
        return False
    if "_" in label:
        return False
    if not all(category(each) in _LETTERS_MARKS_DIGITS and not stringprep.in_table_a1(each) for each in others):
        return False
    if any(label.casefold().count(each) < label.count(each) for each in set(others) - _SPELLED_DIFFERENTLY):
        return False  # mapped to others by one of the two
    directions = [bidirectional(character) for character in label]
    if not {"R", "AL", "AN"} & set(directions):
        return True
    # RFC 5893, without the parts that need a look at the whole name.
    return {directions[0], directions[-1]} <= {"R", "AL"} and set(directions) <= {"R", "AL", "NSM"}
