from __future__ import annotations

import pytest

from aioregistry.server._acl import (
    ADMIN,
    ALL,
    CREATE,
    DELETE,
    OPEN,
    READ,
    READ_ONLY,
    WRITE,
    Identity,
    Rule,
    digest,
    in_network,
    masked,
    permits,
    resolve,
    user_of,
)
from aioregistry.server._codes import Code, Malformed, Refused

ADA = Identity("digest", digest(b"ada:secret"))
HOST = Identity("ip", "10.1.2.3")


def test_the_digest_is_zookeepers() -> None:
    # The output of `DigestAuthenticationProvider user:password`.
    assert digest(b"user:password") == "user:tpUq/4Pn5A64fVZyQ0gOJ8ZWqkY="
    assert digest(b"\xff:password") == digest("\ufffd:password".encode()), "bytes that are no text"


def test_permissions_are_zookeepers() -> None:
    # ZooDefs.java, interface Perms.
    assert (READ, WRITE, CREATE, DELETE, ADMIN, ALL) == (1, 2, 4, 8, 16, 31)


@pytest.mark.parametrize(
    ("acl", "wanted", "identities", "allowed"),
    [
        (OPEN, WRITE, (), True),
        ((), WRITE, (), True),
        (READ_ONLY, READ, (), True),
        (READ_ONLY, WRITE, (), False),
        (READ_ONLY, READ | ADMIN, (), True),  # one of them is enough
        ((Rule(ALL, *ADA),), WRITE, (HOST, ADA), True),
        ((Rule(READ, *ADA),), WRITE, (ADA,), False),
        ((Rule(ALL, *ADA),), WRITE, (HOST,), False),
        ((Rule(ALL, "ip", "10.1.0.0/16"),), WRITE, (HOST,), True),
        ((Rule(ALL, "ip", "10.2.0.0/16"),), WRITE, (HOST,), False),
        ((Rule(ALL, "x509", "CN=ada"),), WRITE, (Identity("x509", "CN=ada"),), True),
        ((Rule(ALL, "world", "nobody"),), WRITE, (HOST,), False),
        ((Rule(ALL, "digest", "anyone"),), WRITE, (HOST, ADA), False),
        ((Rule(ALL, "x509", ADA.id),), WRITE, (ADA,), False),
        ((Rule(ALL, "ip", None),), WRITE, (HOST,), False),
        ((Rule(0, "world", "anyone"),), READ, (Identity("super", ""),), True),
    ],
)
def test_who_may(acl: tuple[Rule, ...], wanted: int, identities: tuple[Identity, ...], allowed: bool) -> None:
    assert permits(acl, wanted, identities) is allowed


class TestResolving:
    def test_auth_stands_for_who_is_authenticated(self) -> None:
        assert resolve((Rule(READ, "auth", "anything"),), (HOST, ADA), x509=False) == (Rule(READ, *ADA),)

    @pytest.mark.parametrize("id", ["10.1.2.3", "10.1.0.0/16", "0.0.0.0/0", "10.1.2.3/32", "255.255.255.255"])
    def test_addresses_and_networks_are_taken(self, id: str) -> None:
        assert resolve((Rule(READ, "ip", id),), (), x509=False) == (Rule(READ, "ip", id),)

    def test_repetitions_go(self) -> None:
        assert resolve(OPEN * 3, (), x509=False) is OPEN

    @pytest.mark.parametrize(
        "rule",
        [
            Rule(ALL, "auth", ""),
            Rule(ALL, None, "anyone"),
            Rule(ALL, "world", "somebody"),
            Rule(ALL, "sasl", "ada"),
            Rule(ALL, "digest", "ada"),
            Rule(ALL, "digest", "a:b:c"),
            Rule(ALL, "digest", "ada:"),
            Rule(ALL, "ip", "10.1.2"),
            Rule(ALL, "ip", "10.1.2.256"),
            Rule(ALL, "ip", "10.1.2.-1"),
            Rule(ALL, "ip", "10.1.2.3/33"),
            Rule(ALL, "ip", "10.1.2.3/-1"),
            Rule(ALL, "ip", "10.1.2.3/"),
            Rule(ALL, "x509", "CN=ada"),
        ],
    )
    def test_what_is_invalid(self, rule: Rule) -> None:
        with pytest.raises(Refused) as refused:
            resolve((rule,), (HOST,), x509=False)
        assert refused.value.code == Code.INVALID_ACL

    @pytest.mark.parametrize("acl", [None, ()])
    def test_none_is_invalid(self, acl: tuple[Rule, ...] | None) -> None:
        with pytest.raises(Refused):
            resolve(acl, (), x509=False)

    @pytest.mark.parametrize("scheme", ["world", "ip", "digest"])
    def test_a_null_id_is_malformed(self, scheme: str) -> None:
        with pytest.raises(Malformed):
            resolve((Rule(ALL, scheme, None),), (), x509=False)

    def test_names_of_certificates_where_there_is_tls(self) -> None:
        rule = Rule(ALL, "x509", "CN=ada,O=machines\\, analytical")
        assert resolve((rule,), (), x509=True) == (rule,)
        nobody = Rule(ALL, "x509", "")
        assert resolve((nobody,), (), x509=True) == (nobody,)
        with pytest.raises(Refused):
            resolve((Rule(ALL, "x509", "ada"),), (), x509=True)


@pytest.mark.parametrize(
    ("network", "inside"),
    [
        ("10.1.2.3", True),
        ("10.1.2.0/24", True),
        ("0.0.0.0/0", True),
        ("10.1.2.2", False),
        ("10.1.2.4", False),
        ("::1", False),
        ("10/8", False),
    ],
)
def test_networks(network: str, inside: bool) -> None:
    assert in_network("10.1.2.3", network) is inside
    assert not in_network("::1", network)


def test_digests_are_hidden_from_who_is_no_administrator() -> None:
    acl = (Rule(READ, *ADA), Rule(READ, "ip", "10.1.2.3"))
    assert masked(acl) == (Rule(READ, "digest", "ada:x"), acl[1])
    others = (Rule(READ, "ip", "::1"), Rule(READ, "x509", "CN=a:b"), Rule(READ, "digest", None))
    assert masked(others) == others
    assert [user_of(identity) for identity in (ADA, HOST)] == ["ada", "10.1.2.3"]
