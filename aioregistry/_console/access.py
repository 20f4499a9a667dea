"""Access rules: hosts, origins, sessions of browsers, and how often a client may try to log in. Pure."""

from __future__ import annotations

import hmac
import ipaddress
import re
from collections import OrderedDict, deque
from collections.abc import Collection
from typing import Final, NamedTuple

__all__ = ["HEADERS", "AttemptLimit", "Login", "Logins", "is_host_known", "is_same_origin", "is_token"]

_CONTENT: Final = "; ".join(
    (
        "default-src 'none'",
        *(f"{kind} 'self'" for kind in ("script-src", "style-src", "img-src", "connect-src", "form-action")),
        "base-uri 'none'",
        "frame-ancestors 'none'",
        "require-trusted-types-for 'script'",
        "trusted-types 'none'",
    )
)

HEADERS: Final = (
    (b"content-security-policy", _CONTENT.encode()),
    (b"x-content-type-options", b"nosniff"),
    (b"x-frame-options", b"DENY"),
    # With no-referrer, browsers send "Origin: null" with a form, and then no login succeeds.
    (b"referrer-policy", b"same-origin"),
    (b"cross-origin-opener-policy", b"same-origin"),
    (b"cross-origin-resource-policy", b"same-origin"),
    (b"permissions-policy", b"camera=(), geolocation=(), microphone=()"),
)
"""Of every answer: no code but the console's own file, no frame around it, nothing for pages of other sites."""

_HOST: Final = re.compile(r"(\[[0-9a-fA-F:.]+\]|[A-Za-z0-9._-]{1,253})(?::\d{1,5})?")

_LONGEST: Final = 12 * 3600.0
_IDLE: Final = 3600.0 * 2
_MOST_LOGINS: Final = 1000
_MOST_KEYS: Final = 10_000


def is_host_known(host: str, names: Collection[str]) -> bool:
    """Return whether a request for *host* (``Host``) means this console.

    A page of another site can have its own name lead here (DNS rebinding), and then reads what the console answers. So
    names are those that are given; an address is not a name, and leads only here.
    """
    form = _HOST.fullmatch(host)
    if form is None:
        return False
    name = form[1].lower().rstrip(".")
    try:
        ipaddress.ip_address(name.strip("[]"))
    except ValueError:
        return name == "localhost" or name.endswith(".localhost") or name in names
    return True


def is_same_origin(origin: str | None, site: str | None, host: str) -> bool:
    """Return whether a request that changes something comes from the console's own page.

    Args:
        origin: the header ``Origin``, which browsers send with every POST; None if it is missing.
        site: the header ``Sec-Fetch-Site``; None if it is missing.
        host: the header ``Host``.
    """
    if site is not None and site not in ("same-origin", "none"):
        return False
    if origin is None:
        return False
    return origin.lower() in (f"http://{host.lower()}", f"https://{host.lower()}")


class Login(NamedTuple):
    """A browser that is logged in."""

    user: str
    csrf: str
    since: float
    seen: float


class Logins:
    """The browsers that are logged in, by the value of their cookie. Those of the longest silence go first."""

    def __init__(self) -> None:
        self._logins: OrderedDict[str, Login] = OrderedDict()

    def add(self, token: str, user: str, csrf: str, now: float) -> None:
        """Let in *user*, whose cookie will say *token*."""
        self._logins[token] = Login(user, csrf, now, now)
        while len(self._logins) > _MOST_LOGINS:
            self._logins.popitem(last=False)

    def find(self, token: str, now: float, *, seen: bool = True) -> Login | None:
        """Return the user whose cookie holds *token*; None if it is unknown, or its time is over.

        Args:
            token: of the cookie.
            now: seconds.
            seen: whether this is a sign of life.
        """
        login = self._logins.get(token)
        if login is None:
            return None
        if now - login.since > _LONGEST or now - login.seen > _IDLE:
            del self._logins[token]
            return None
        if seen:
            self._logins[token] = login._replace(seen=now)
            self._logins.move_to_end(token)
        return login

    def remove(self, token: str) -> None:
        """The user has logged out."""
        self._logins.pop(token, None)


def is_token(given: str | None, expected: str) -> bool:
    """Return whether a secret that was sent is the one that is expected."""
    return given is not None and hmac.compare_digest(given.encode("utf-8", "replace"), expected.encode())


class AttemptLimit:
    """How often each may try what failed: *most* times within *period* seconds."""

    def __init__(self, most: int, period: float) -> None:
        self._most, self._period = most, period
        self._failed: OrderedDict[str, deque[float]] = OrderedDict()

    def wait(self, key: str, now: float) -> float:
        """Return how many seconds *key* has to wait before it may try again; 0 where it need not."""
        failed = self._failed.get(key)
        if failed is None:
            return 0.0
        while failed and now - failed[0] >= self._period:
            failed.popleft()
        if len(failed) < self._most:
            return 0.0
        return self._period - (now - failed[0])

    def failed(self, key: str, now: float) -> None:
        """*key* tried, and failed."""
        self._failed.setdefault(key, deque(maxlen=self._most)).append(now)
        self._failed.move_to_end(key)
        while len(self._failed) > _MOST_KEYS:
            self._failed.popitem(last=False)

    def succeeded(self, key: str) -> None:
        """*key* may try as often as ever."""
        self._failed.pop(key, None)
