"""The way in: :func:`connect` gives a registry, one session that registrations and views share."""

from __future__ import annotations

import ssl
from collections.abc import Sequence
from typing import TYPE_CHECKING, Literal, overload

from aiozk.protocol.acl import ACL

from ._arguments import check_flag
from ._discovery import Guard, WatchMode
from ._parameters import DEFAULT_ACL, DEFAULT_GUARD, DEFAULT_MAX_REQUEST, DEFAULT_SESSION_TIMEOUT, checked_parameters
from ._registry import Registry
from ._runtime import Runtime
from ._secrets import Hidden, unshown

if TYPE_CHECKING:
    # Loaded when they are used: events alone are a sixth of what an import of the package takes.
    from typing import Unpack

    from ._options import ConnectOptions
    from ._threads import ThreadRegistry
    from .events import EventCallback

__all__ = ["connect"]


@overload
def connect(servers: str, *, thread: Literal[False] = False, **options: Unpack[ConnectOptions]) -> Registry: ...
@overload
def connect(
    servers: str, *, thread: Literal[True], lag_check: bool = True, **options: Unpack[ConnectOptions]
) -> ThreadRegistry: ...
def connect(
    servers: str,
    *,
    session_timeout: float = DEFAULT_SESSION_TIMEOUT,
    connect_timeout: float | None = None,
    close_timeout: float | None = None,
    wait: bool = True,
    base_path: str = "/services",
    create_chroot: bool = True,
    auth: Sequence[tuple[str, str | bytes]] = (),
    acl: Sequence[ACL] = DEFAULT_ACL,
    tls: ssl.SSLContext | None = None,
    allow_read_only: bool = False,
    max_request: int = DEFAULT_MAX_REQUEST,
    watches: WatchMode = "auto",
    guard: Guard | None = DEFAULT_GUARD,
    on_event: EventCallback | Sequence[EventCallback] | None = None,
    runtime: Runtime | None = None,
    thread: bool = False,
    lag_check: bool = True,
) -> Registry | ThreadRegistry:
    """Return a registry on ZooKeeper, to be entered (``async with``) or awaited; nothing happens before.

    Args:
        servers: a connect string, ``host:port,host:port/chroot``; IPv6 addresses in brackets, port 2181 unless given.
        session_timeout: seconds without contact after which the ensemble ends the session; it decides within its own
            bounds (2 to 20 ticks unless configured).
        connect_timeout: seconds that entering may take until a server has accepted the session; the session timeout
            unless given.
        close_timeout: seconds that leaving may take for withdrawing and closing; a third of the session timeout unless
            given.
        wait: False enters at once and connects when there is a server, however long that takes.
        base_path: the path under which services are kept, below the chroot.
        create_chroot: a registration makes a chroot that is not there; False refuses it instead, on entering and on
            registering. A client that only reads makes nothing: a missing chroot is logged at WARNING, and is
            empty until it is made.
        auth: credentials as pairs of scheme and secret, such as ``("digest", "user:password")``, given on every
            connection before anything else; ``("sasl", "user:password")`` is a login by SASL's DIGEST-MD5.
        acl: the ACL of every node that is created; unless given, everybody may do everything.
        tls: speak TLS with this context, which also decides about host names and certificates.
        allow_read_only: accept a server that lost its quorum, for discovery, as long as there was no session before;
            ``session.read_only`` is True then.
        max_request: the servers' jute.maxbuffer in bytes; a request beyond it is refused here, because a server closes
            the connection of the sender.
        watches: "recursive" or "one-shot" forces how views watch; "auto" asks the server.
        guard: decides which removals views hold back by default; with None they believe every removal at once.
        on_event: called synchronously with a name and fields for every event worth a log line or a metric, or a
            sequence of such; it must not block, and an exception is logged. :mod:`aioregistry.events` has types.
        runtime: clocks, randomness, names and sockets, for simulations.
        thread: True runs all of it on an event loop in a daemon thread of its own, so that a program that blocks its
            own loop loses neither session nor registrations; see docs/threads.md. *on_event* and checks are called on
            that thread then.
        lag_check: with *thread*, whether every registration has a :class:`LoopLagCheck` of the caller's loop, named
            "loop": an instance whose program stands still is published as failing after some 15 s, and as enabled again
            when it goes on.

    Raises:
        InvalidArgument: an argument is wrong; at once, naming it.

    Entering raises :class:`ConnectTimeout` with the answer of each server, :class:`AuthenticationFailed`, or
    :class:`ChrootMissing`. Cancelling it leaves nothing behind.
    """
    servers, secrets = unshown(servers), Hidden(auth)
    del auth
    check_flag("thread", thread)
    check_flag("lag_check", lag_check)
    parameters = checked_parameters(
        servers,
        session_timeout=session_timeout,
        connect_timeout=connect_timeout,
        close_timeout=close_timeout,
        wait=wait,
        base_path=base_path,
        create_chroot=create_chroot,
        auth=secrets.value,
        acl=acl,
        tls=tls,
        allow_read_only=allow_read_only,
        max_request=max_request,
        watches=watches,
        guard=guard,
        on_event=on_event,
        runtime=runtime,
    )
    registry = Registry(parameters)
    if not thread:
        return registry
    from ._threads import ThreadRegistry

    return ThreadRegistry(registry, lag_check=lag_check)
