"""A client with the credentials that a server was started with may do everything."""

from __future__ import annotations

from tests.server.differential.conftest import PATIENT, comparison, player_on, real_server
from tests.server.differential.language import (
    Acl,
    Ask,
    Auth,
    Create,
    Delete,
    GetACL,
    GetChildren,
    GetData,
    History,
    Multi,
    SetACL,
    SetData,
    WhoAmI,
)

SUPER_DIGEST = "super:lK75jTNcA+U9vtVEw5vB51mj/w4="  # base64 of the SHA-1 of "super:secret"
NOBODYS = (Acl(31, "digest", "nobody:knows"),)

HISTORY: History = (
    *(Ask(1, request) for request in (Create("/a", acl=NOBODYS), GetData("/a"), Auth("digest", b"super:wrong"))),
    *(Ask(1, request) for request in (GetData("/a"), SetData("/a", b"x"), GetACL("/a"))),
    *(Ask(0, request) for request in (GetData("/a"), Auth("digest", b"super:secret"), GetData("/a"), GetACL("/a"))),
    *(Ask(0, request) for request in (SetData("/a", b"y"), GetChildren("/a"), Create("/a/b"), SetACL("/a", NOBODYS))),
    Ask(0, Multi((SetData("/a", b"z"), Create("/a/c"), Delete("/a/b")))),
    *(Ask(0, Create(f"/{scheme}", acl=(Acl(31, scheme, ""),))) for scheme in ("auth", "super")),
    *(Ask(0, request) for request in (GetACL("/auth"), WhoAmI(), GetData("/a"))),
    *(Ask(1, request) for request in (GetData("/auth"), GetData("/a"), Delete("/a/c"))),
)


def test_it_says_what_zookeeper_says(release: str) -> None:
    with real_server(PATIENT, **{"zookeeper.DigestAuthenticationProvider.superDigest": SUPER_DIGEST}) as real:
        on_real = player_on(real.host, real.port, release)
        assert "lK75" in repr(on_real(HISTORY))  # it was let in
        with comparison(on_real, PATIENT, release, super_digest=SUPER_DIGEST) as compare:
            difference = compare(HISTORY)
            assert difference is None, difference
