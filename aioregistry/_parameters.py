"""The arguments of :func:`aioregistry.connect`, checked, without a registry that is made of it."""

from __future__ import annotations

import ssl
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Final, NamedTuple

from aiozk.protocol.acl import ACL

from ._arguments import check_choice, check_count, check_flag, check_optional, check_seconds
from ._discovery import Guard, WatchMode
from ._errors import InvalidArgument, InvalidType
from ._paths import check_path
from ._protocol import OPEN_ACL, SASL
from ._runtime import Runtime
from ._secrets import Hidden, Secret, unshown
from ._session import ConnectString, parse_connect_string

if TYPE_CHECKING:
    from .events import EventCallback

__all__ = [
    "DEFAULT_ACL",
    "DEFAULT_GUARD",
    "DEFAULT_MAX_REQUEST",
    "DEFAULT_SESSION_TIMEOUT",
    "Parameters",
    "checked_parameters",
]

DEFAULT_ACL: Final[Sequence[ACL]] = OPEN_ACL
"""Everybody may do everything."""

DEFAULT_GUARD: Final = Guard()

DEFAULT_SESSION_TIMEOUT = 15.0
"""Seconds; half as much again as a leader without followers may go on for in ZooKeeper's example configuration (10 s,
see ``_bounds.SYNC_LIMIT``), and within what a server with the usual tick of 2 s grants (4 to 40 s)."""

DEFAULT_MAX_REQUEST = 0xFFFFF
"""Bytes; jute.maxbuffer as servers have it unless set (``BinaryInputArchive.maxBuffer``)."""

_LONGEST_SESSION = (2**31 - 1) / 1000
"""Seconds; the protocol counts milliseconds in 32 bits."""

_HIDDEN = "<hidden>"
"""Shown in place of a value that is, or may hold, a secret."""


class Parameters(NamedTuple):
    """Of a registry, checked; each is what :func:`aioregistry.connect` says, but for these.

    ``base_path`` is absolute, the chroot included. ``marked``: there is a place for markers and overrides beside it.
    """

    connect_string: ConnectString
    session_timeout: float
    connect_timeout: float
    close_timeout: float
    wait: bool
    base_path: str
    marked: bool
    create_chroot: bool
    auth: Sequence[tuple[str, bytes]]
    acl: tuple[ACL, ...]
    tls: ssl.SSLContext | None
    allow_read_only: bool
    max_request: int
    watches: WatchMode
    guard: Guard | None
    hooks: tuple[EventCallback, ...]
    runtime: Runtime | None


def checked_parameters(
    servers: str,
    *,
    session_timeout: float,
    connect_timeout: float | None,
    close_timeout: float | None,
    wait: bool,
    base_path: str,
    create_chroot: bool,
    auth: Sequence[tuple[str, str | bytes]],
    acl: Sequence[ACL],
    tls: ssl.SSLContext | None,
    allow_read_only: bool,
    max_request: int,
    watches: WatchMode,
    guard: Guard | None,
    on_event: EventCallback | Sequence[EventCallback] | None,
    runtime: Runtime | None,
) -> Parameters:
    """Return the arguments of :func:`aioregistry.connect`, checked; raises InvalidArgument that names the wrong one."""
    servers, secrets = unshown(servers), Hidden(auth)
    del auth
    credentials = _checked_credentials(secrets)
    connect_string = parse_connect_string(servers)
    check_seconds("session_timeout", session_timeout, at_most=_LONGEST_SESSION)
    for field, seconds in (("connect_timeout", connect_timeout), ("close_timeout", close_timeout)):
        if seconds is not None:
            check_seconds(field, seconds)
    check_count("max_request", max_request)
    check_choice("watches", watches, ("auto", "recursive", "one-shot"))
    for field, flag in (("wait", wait), ("create_chroot", create_chroot), ("allow_read_only", allow_read_only)):
        check_flag(field, flag)
    check_optional("tls", tls, ssl.SSLContext)
    check_optional("guard", guard, Guard)
    check_optional("runtime", runtime, Runtime)
    hooks = _checked_hooks(on_event)
    base = check_path("base_path", base_path)
    return Parameters(
        connect_string,
        session_timeout,
        connect_timeout=session_timeout if connect_timeout is None else connect_timeout,
        close_timeout=session_timeout / 3 if close_timeout is None else close_timeout,
        wait=wait,
        base_path=connect_string.chroot + ("" if base == "/" else base),
        marked=base != "/",  # other programs own the paths beside the chroot
        create_chroot=create_chroot,
        auth=credentials,
        acl=_checked_acl(acl),
        tls=tls,
        allow_read_only=allow_read_only,
        max_request=max_request,
        watches=watches,
        guard=guard,
        hooks=hooks,
        runtime=runtime,
    )


def _checked_hooks(on_event: object) -> tuple[EventCallback, ...]:
    if on_event is None:
        return ()
    if callable(on_event):
        return (on_event,)
    if not isinstance(on_event, Sequence) or isinstance(on_event, str | bytes):
        raise InvalidType("on_event", on_event, "give something that can be called, a sequence of such, or None")
    for index, each in enumerate(on_event):
        if not callable(each):
            raise InvalidType(f"on_event[{index}]", each, "give something that can be called")
    return tuple(on_event)


def _checked_credentials(given: Hidden) -> list[tuple[str, Secret]]:
    # Frames of a traceback keep their variables: they must not keep a secret that was refused.
    checked: list[tuple[str, Secret]] = []
    auth = each = None
    try:
        auth = given.value
        if isinstance(auth, (str, bytes)) or not isinstance(auth, Iterable):
            raise InvalidType("auth", _HIDDEN, "give a sequence of pairs of scheme and secret")
        for index, each in enumerate(auth):
            credential = _credential(each)
            if credential is None:
                why = "give a pair of scheme and secret, each a str (the secret may be bytes)"
                checked.clear()
                wrong = InvalidArgument if _is_pair(each) else InvalidType
                raise wrong(f"auth[{index}]", _HIDDEN, why)
            if credential[0] == SASL and (reason := _wrong_login(credential[1], checked)):
                credential = None
                checked.clear()
                raise InvalidArgument(f"auth[{index}]", _HIDDEN, reason)
            checked.append(credential)
        return checked
    finally:
        credential = auth = each = None


def _wrong_login(login: Secret, before: Iterable[tuple[str, Secret]]) -> str:
    """Return the fault of a login by SASL; an empty text if it can be tried."""
    user, colon, password = login.partition(b":")
    if not (user and colon and password):
        return 'a secret of scheme "sasl" is a user, a colon and a password'
    try:
        _ = login.decode()
    except UnicodeDecodeError:
        return 'a secret of scheme "sasl" is UTF-8'
    if any(scheme == SASL for scheme, _ in before):
        return "a connection has one login by SASL: give one"
    return ""


def _is_pair(given: object) -> bool:
    match given:
        case (str(), str() | bytes()):
            return True
    return False


def _credential(given: object) -> tuple[str, Secret] | None:
    match given:
        case (str(scheme), str(secret)) if scheme and _is_text(scheme) and _is_text(secret):
            return scheme, Secret(secret.encode())
        case (str(scheme), bytes(secret)) if scheme and _is_text(scheme):
            return scheme, Secret(secret)
    return None


def _is_text(text: str) -> bool:
    # Checked before it is encoded: an encoder's error shows its argument.
    return not any("\ud800" <= character <= "\udfff" for character in text)


def _checked_acl(acl: object) -> tuple[ACL, ...]:
    entries = tuple(acl) if isinstance(acl, Iterable) else None
    if entries is None or not all(isinstance(each, ACL) for each in entries):
        raise InvalidType("acl", acl, "give a sequence of aiozk.ACL, at least one")
    if not entries:
        raise InvalidArgument("acl", acl, "give a sequence of aiozk.ACL, at least one")
    return entries
