"""aiohttp's cookies: no service of the registry gets another's."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from http.cookies import Morsel
from typing import Any, Final

from ._extras import extra
from ._hosts import is_registry_host

with extra("aiohttp"):
    import aiohttp
    from aiohttp.abc import AbstractCookieJar
    from aiohttp.typedefs import LooseCookies
    from yarl import URL

__all__ = ["RegistryCookieJar"]

_NOWHERE: Final = URL()


class RegistryCookieJar(aiohttp.CookieJar):
    """A cookie jar in which no service of the registry gets another's cookies.

    aiohttp's own takes a cookie of ``chat.registry`` with ``Domain=registry``, and sends it to ``pay.registry``: it
    does not know of domains that unrelated hosts share (RFC 6265, section 5.3). Here a cookie of a host that ends with
    ``.registry`` goes back to that host only: one for a domain above it is refused, and one for its own domain does not
    go to hosts below. Cookies of other hosts are kept as usual.
    """

    def update_cookies(self, cookies: LooseCookies, response_url: URL = _NOWHERE) -> None:
        """Take *cookies* of *response_url*."""
        if response_url.raw_host is not None and is_registry_host(response_url.raw_host):
            cookies = _of_host(cookies, response_url.raw_host)
        super().update_cookies(cookies, response_url)

    def update_cookies_from_headers(self, headers: Sequence[str], response_url: URL) -> None:
        """Take the cookies of a response of *response_url*."""
        # aiohttp's jar stores what it parses; the base parses for `update_cookies`.
        AbstractCookieJar.update_cookies_from_headers(self, headers, response_url)


def _of_host(cookies: LooseCookies, host: str) -> list[tuple[str, Any]]:
    kept: list[tuple[str, Any]] = []
    for name, cookie in cookies.items() if isinstance(cookies, Mapping) else cookies:
        if isinstance(cookie, Morsel) and cookie["domain"]:
            if cookie["domain"].lstrip(".").lower() != host.lower():
                continue
            cookie = cookie.copy()  # noqa: PLW2901 - the response's own stays as it came
            cookie["domain"] = ""
        kept.append((name, cookie))
    return kept
