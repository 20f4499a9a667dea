"""Connect strings: what is meant is understood, what is wrong is named."""

from __future__ import annotations

import contextlib
import ipaddress
import string

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from aioregistry._errors import InvalidArgument
from aioregistry._session.connect_string import DEFAULT_PORT, ConnectString, parse_connect_string


def _is_ipv6(text: str) -> bool:
    try:
        ipaddress.IPv6Address(text)
    except ValueError:
        return False
    return True


labels = st.text(string.ascii_letters + string.digits + "-_", min_size=1, max_size=12).filter(
    lambda label: label[0] != "-" and label[-1] != "-"
)
# A host that ends in a number is taken for an IPv4 address.
names = st.tuples(
    st.lists(labels, max_size=3), labels.filter(lambda label: not label.isdigit() and label[:2] != "0x")
).map(lambda parts: ".".join([*parts[0], parts[1]]))
addresses_v4 = st.ip_addresses(v=4).map(str)
addresses_v6 = st.ip_addresses(v=6).map(str)
ports = st.integers(1, 65535)
blanks = st.text(" \t", max_size=3)
segments = (
    st.text(
        st.characters(exclude_categories=("Cs", "Cc", "Co"), exclude_characters="/,", max_codepoint=0xFFEF),
        min_size=1,
        max_size=8,
    )
    .filter(lambda segment: segment not in (".", ".."))
    .filter(lambda segment: segment == segment.strip())
)
chroots = st.lists(segments, max_size=4).map(lambda parts: "".join(f"/{part}" for part in parts))


@st.composite
def servers(draw: st.DrawFn) -> tuple[str, tuple[str, int]]:
    """A server as it is written, and as it is meant."""
    host = draw(st.one_of(names, addresses_v4, addresses_v6))
    port = draw(st.one_of(st.none(), ports))
    if port is None:
        return (f"[{host}]" if ":" in host else host), (host, DEFAULT_PORT)
    return (f"[{host}]:{port}" if ":" in host else f"{host}:{port}"), (host, port)


class TestWhatIsMeant:
    @given(st.lists(st.tuples(servers(), blanks, blanks), min_size=1, max_size=5), chroots, st.booleans())
    def test_is_understood(
        self, written: list[tuple[tuple[str, tuple[str, int]], str, str]], chroot: str, slash: bool
    ) -> None:
        text = ",".join(before + shown + after for (shown, _), before, after in written)
        parsed = parse_connect_string(text + chroot + ("/" if slash else ""))
        assert parsed.servers == tuple(dict.fromkeys(meant for (_, meant), _, _ in written))
        assert parsed.chroot == chroot

    @given(st.lists(servers(), min_size=1, max_size=5), chroots)
    def test_prints_as_it_can_be_parsed(self, written: list[tuple[str, tuple[str, int]]], chroot: str) -> None:
        parsed = parse_connect_string(",".join(shown for shown, _ in written) + chroot)
        assert parse_connect_string(str(parsed)) == parsed

    @pytest.mark.parametrize(
        ("text", "meant"),
        [
            ("zk1", ConnectString((("zk1", 2181),), "")),
            ("zk1:2181,zk2:2182/prod", ConnectString((("zk1", 2181), ("zk2", 2182)), "/prod")),
            (" zk1 , zk2:7 ", ConnectString((("zk1", 2181), ("zk2", 7)), "")),
            ("zk1:1,zk1:1,zk1:2", ConnectString((("zk1", 1), ("zk1", 2)), "")),
            ("[::1]:2182,[fe80::1%eth0]", ConnectString((("::1", 2182), ("fe80::1%eth0", 2181)), "")),
            ("::1", ConnectString((("::1", 2181),), "")),
            ("fe80::1,2001:db8::1", ConnectString((("fe80::1", 2181), ("2001:db8::1", 2181)), "")),
            ("1:2:3:4:5:6:7:8", ConnectString((("1:2:3:4:5:6:7:8", 2181),), "")),
            ("[::1:2181],[::1]:2181", ConnectString((("::1:2181", 2181), ("::1", 2181)), "")),
            ("zk-1.svc.cluster.local.:2181", ConnectString((("zk-1.svc.cluster.local.", 2181),), "")),
            ("127.0.0.1:65535/", ConnectString((("127.0.0.1", 65535),), "")),
            ("[127.0.0.1]:2182", ConnectString((("127.0.0.1", 2182),), "")),
            ("zk1/a@b", ConnectString((("zk1", 2181),), "/a@b")),
            ("zk1.example.com.:1/a/b/ ", ConnectString((("zk1.example.com.", 1),), "/a/b")),
            ("zk_1:2181/über/ß", ConnectString((("zk_1", 2181),), "/über/ß")),
        ],
    )
    def test_examples(self, text: str, meant: ConnectString) -> None:
        assert parse_connect_string(text) == meant


class TestWhatIsWrong:
    @pytest.mark.parametrize(
        ("text", "value", "reason"),
        [
            ("", "", "names no server"),
            ("  ", "  ", "names no server"),
            ("/prod", "/prod", "names no server"),
            (",", ",", "empty part"),
            ("zk1,,zk2", "zk1,,zk2", "empty part"),
            ("zk1,", "zk1,", "empty part"),
            ("zk1:0", "zk1:0", "the port '0' is not within 1..65535"),
            ("zk1:65536", "zk1:65536", "the port '65536'"),
            ("zk1:-1", "zk1:-1", "the port '-1'"),
            ("zk1:", "zk1:", "the port ''"),
            ("zk1:http", "zk1:http", "the port 'http' is not a number"),
            ("zk1:2181x", "zk1:2181x", "the port '2181x' is not a number"),
            ("zk1:٣", "zk1:٣", "the port '٣' is not a number"),
            ("zk1: 2181", "zk1: 2181", "the port ' 2181' is not a number"),
            ("zk1:1.5", "zk1:1.5", "the port '1.5' is not a number"),
            ("[::1]:p/prod", "[::1]:p", "the port 'p' is not a number"),
            ("zk1:000002181", "zk1:000002181", "the port '000002181' is not within 1..65535"),
            ("zk1:2181?timeout=5", "zk1:2181?<hidden>", "has a query behind the '?'"),
            ("zk1?", "zk1?", "has a query behind the '?'"),
            ("zk1,zk2:2181#prod/a?b", "zk1,zk2:2181#<hidden>", "has a fragment behind the '#'"),
            ("zk1:999999999999999999999", "zk1:999999999999999999999", "the port"),
            (":2181", ":2181", "'' is neither a host name nor an address"),
            ("zk 1:2181", "zk 1:2181", "'zk 1' is neither"),
            ("-zk:2181", "-zk:2181", "'-zk' is neither"),
            ("zk..example:2181", "zk..example:2181", "is neither"),
            ("z" * 64, "z" * 64, "is neither"),
            ("[::1:2181", "[::1:2181", "[address]:port"),
            ("[::1]2181", "[::1]2181", "[address]:port"),
            ("[zk1]:2181", "[zk1]:2181", "[address]:port"),
            ("[::1]:", "[::1]:", "the port ''"),
            ("::g:2181", "::g:2181", "is neither"),
            ("::1:2181", "::1:2181", "is ambiguous: write [::1]:2181 if 2181 is the port, or [::1:2181] if"),
            ("zk1,2001:db8::1:80", "2001:db8::1:80", "is ambiguous"),
            ("fe80::1%eth0:2181", "fe80::1%eth0:2181", "an IPv6 address in brackets"),
            ("[fe80::1%a/b]:2181", "[fe80::1%a", "[address]:port"),
            ("[::1%\r\nX: y]:2181", "[::1%\r\nX: y]:2181", "[address]:port"),
            (
                "zk://zk1:2181",
                "zk://zk1:2181",
                "is a URL, and a connect string has no scheme: write 'zk1:2181' without the 'zk://'",
            ),
            ("zookeeper://zk1", "zookeeper://zk1", "without the 'zookeeper://'"),
            (" HTTP://zk1/a ", " HTTP://zk1/a ", "without the 'HTTP://'"),
            ("zk+tls://zk1", "zk+tls://zk1", "is a URL"),
            ("jdbc:zk://zk1", "jdbc:zk://zk1", "write 'zk1' without the 'jdbc:zk://'"),
            ("zk://zk1,zk://zk2", "zk://zk1,zk://zk2", "write 'zk1,zk2' without the 'zk://'"),
            ("zk1, zk://zk2", "zk1, zk://zk2", "write 'zk1,zk2' without the 'zk://'"),
            (
                "zk://zk1:2181/prod?ssl=true#top",
                "zk://zk1:2181/prod?<hidden>",
                "write 'zk1:2181/prod' without the 'zk://' and without the query behind the '?'",
            ),
            ("zk://zk1#top", "zk://zk1#<hidden>", "and without the fragment behind the '#'"),
            ("zk://zk1:p", "zk://zk1:p", "and correct the rest: 'zk1:p': the port 'p' is not a number"),
            ("zk://://zk1", "zk://://zk1", "is a URL"),
            ("//zk1:2181", "//zk1:2181", "names no server before its chroot"),
            ("://zk1", "://zk1", "is a URL"),
            ("zk://", "zk://", "write 'zk1:2181,zk2:2181/prod'"),
            ("zk1:2181:2182", "zk1:2181:2182", "write host:port"),
            ("zk:zk1:2181", "zk:zk1:2181", "write host:port"),
            ("zk1:2181;zk2:2181", "zk1:2181;zk2:2181", "separate servers by commas"),
            ("zk1 zk2", "zk1 zk2", "separate servers by commas"),
            ("2181", "2181", "is it the port? write host:2181"),
            ("1.2.3.999", "1.2.3.999", "'1.2.3.999' is not an IPv4 address"),
            ("1.2.3.4.:1", "1.2.3.4.:1", "is not an IPv4 address"),
            ("10.0.0.07", "10.0.0.07", "is not an IPv4 address"),
            ("zk.0x7f", "zk.0x7f", "is not an IPv4 address"),
            ("\N{FULLWIDTH LATIN SMALL LETTER A}.com", "\N{FULLWIDTH LATIN SMALL LETTER A}.com", "is neither"),
            (".".join(["a" * 60] * 5), ".".join(["a" * 60] * 5), "is neither"),
            ("zk1/a,zk2/a", "zk1/a,zk2/a", "write the chroot once"),
            ("zk1//a", "//a", "'' is not a path segment"),
            ("zk1/a//b", "/a//b", "'' is not a path segment"),
            ("zk1/a/../b", "/a/../b", "'..' is not a path segment"),
            ("zk1/.", "/.", "'.' is not a path segment"),
            ("zk1/a\x00", "/a\x00", "is not a path segment"),
            ("zk1/a\u200b\ue000", "/a\u200b\ue000", "is not a path segment"),
            ("zk1/\N{GRINNING FACE}", "/\N{GRINNING FACE}", "is not a path segment"),
        ],
    )
    def test_is_named(self, text: str, value: str, reason: str) -> None:
        with pytest.raises(InvalidArgument) as raised:
            parse_connect_string(text)
        assert raised.value.field == "servers"
        assert raised.value.value == value
        assert reason in raised.value.reason
        assert str(raised.value).startswith(f"servers={value[:80]!r}"[:80])

    def test_the_reason_says_no_more_than_it_is(self) -> None:
        reasons = {}
        for text in ("", "zk://", "zk://://zk1"):
            with pytest.raises(InvalidArgument) as raised:
                parse_connect_string(text)
            reasons[text] = raised.value.reason
        assert reasons[""] == "names no server"
        assert all("correct the rest" not in reason for reason in reasons.values())

    @pytest.mark.parametrize(("length", "shown"), [(80, "z" * 80), (81, "z" * 60 + "…")])
    def test_a_host_is_shown_whole_up_to_80_characters(self, length: int, shown: str) -> None:
        with pytest.raises(InvalidArgument) as raised:
            parse_connect_string("z" * length)
        assert raised.value.reason.startswith(f"'{shown}' is neither")

    @pytest.mark.parametrize(
        "text",
        [
            "zk://chat:secret@zk1",
            "chat:secret@zk1:2181",
            "zk1,secret@zk2/prod",
            "zk1:2181@secret",
            "zk1,zk://chat:secret@zk2",
        ],
    )
    def test_a_password_is_named_and_not_shown(self, text: str) -> None:
        with pytest.raises(InvalidArgument) as raised:
            parse_connect_string(text)
        assert "auth=" in raised.value.reason
        assert "secret" not in repr(raised.value).replace("auth=[(scheme, secret)]", "")

    @pytest.mark.parametrize(
        "text", ["zk1:2181?auth=digest:chat:secret", "zk://zk1?secret", "zk://zk1/secret?a#secret"]
    )
    def test_what_is_behind_a_path_is_named_and_not_shown(self, text: str) -> None:
        with pytest.raises(InvalidArgument) as raised:
            parse_connect_string(text)
        assert "secret" not in str(raised.value).replace("/secret", "")

    @pytest.mark.parametrize("text", ["zk1:2181/a?b=c", "zk1/#1"])
    def test_a_chroot_may_have_what_zookeeper_allows(self, text: str) -> None:
        assert parse_connect_string(text).chroot == text.removeprefix("zk1:2181").removeprefix("zk1")

    @pytest.mark.parametrize(
        "text", ["zk1:" + "0" * 5000 + "1", "://" * 5000, "a://," * 5000, "zk1:" + "9" * 5000, "z" * 5000, "a:b" * 5000]
    )
    def test_a_long_one_is_named_in_short(self, text: str) -> None:
        with pytest.raises(InvalidArgument) as raised:
            parse_connect_string(text)
        assert len(str(raised.value)) < 500

    @pytest.mark.parametrize("given_instead", [None, 2181, b"zk1:2181", ["zk1:2181"]], ids=repr)
    def test_no_text_at_all(self, given_instead: object) -> None:
        with pytest.raises(InvalidArgument, match="give a connect string"):
            parse_connect_string(given_instead)  # type: ignore[arg-type]

    @given(st.text(max_size=40))
    @example("[")
    @example("]")
    @example("[]:1")
    @example("/")
    @example("0:0:0")
    def test_anything_is_understood_or_named(self, text: str) -> None:
        with contextlib.suppress(InvalidArgument):
            parsed = parse_connect_string(text)
            assert parsed.servers
            assert all(host and 0 < port < 65536 for host, port in parsed.servers)
            assert parse_connect_string(str(parsed)) == parsed

    @given(addresses_v6)
    def test_an_address_without_brackets_is_that_or_ambiguous(self, address: str) -> None:
        before, _, port = address.rpartition(":")
        if _is_ipv6(before) and port.isdigit():
            with pytest.raises(InvalidArgument) as raised:
                parse_connect_string(address)
            assert f"[{before}]:{port}" in raised.value.reason
            assert f"[{address}]" in raised.value.reason
        else:
            assert parse_connect_string(address) == ConnectString(((address, DEFAULT_PORT),), "")

    @given(st.one_of(addresses_v4, addresses_v6), ports)
    def test_an_address_stays_an_address(self, address: str, port: int) -> None:
        ((host, found),) = parse_connect_string(
            f"[{address}]:{port}" if ":" in address else f"{address}:{port}"
        ).servers
        assert ipaddress.ip_address(host) == ipaddress.ip_address(address)
        assert found == port


@pytest.mark.parametrize(("server", "asked"), [("2181", True), ("123456", False), ("zk.7", False), ("2181:1", False)])
def test_only_what_may_be_a_port_is_taken_for_one(server: str, asked: bool) -> None:
    with pytest.raises(InvalidArgument) as refused:
        parse_connect_string(server)
    assert ("is it the port?" in str(refused.value)) is asked
