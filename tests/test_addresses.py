"""One grammar for addresses: what passes it is taken by the clients' URL classes, and means the same to all."""

from __future__ import annotations

import httpx
import pytest
import yarl
from hypothesis import given
from hypothesis import strategies as st

from aioregistry import InvalidArgument, ServiceInstance
from aioregistry._addresses import check_address, is_host_name, only_here, problem_of, split_authority

GOOD = ["a", "10.0.0.7", "::1", "fe80::1%eth0", "::ffff:1.2.3.4", "node-7.example.", "node_7", "mün.example"]
GOOD += ["xn--bcher-kva.example", "日本.jp", "localhost.", "a" * 63, "1a"]
GOOD += [
    "LOCALHOST",
    "1e3",
    "a.0xg",
    "a_b.c",
    "XN--BCHER-KVA",
    "1:2:3:4:5:6:7:8",
    "1:2:3:4:5:6:7::",
    "::FFFF:127.0.0.1",
]
GOOD += ["::1.2.3.4", "0000:0:0:0:0:0:0:1", "fe80::1%eth0.1"]
LONGEST = ".".join(["a" * 63] * 3 + ["a" * 61])
GOOD += [LONGEST, f"{LONGEST}."]
BAD = ["", ".", "a..b", "a b", "10.0.0.07", "1.2.3.999", "1.2.3.4.", "8080", "1.2.3", "0x7f.1", "a.1", "[::1]", "1:2"]
BAD += [
    "日本--a.jp",
    "::1%",
    "::1%]:80#",
    "::1%\r\nX: y",
    "::1%a~b",
    "fe80::1%25eth0",
    "ａ.com",
    "☃.invalid",
    "xn--n3h.invalid",
]
BAD += [
    "xn--a",
    "xn--abc-.example",  # nothing in it needs that
    "xn---5hyyn9a",  # which is written xn--5hyyn9a
    "straße.de",
    "a\u200db.com",
    "e\u0301.com",
    "日本。jp",
    "a" * 64,
    ".".join(["a" * 60] * 5),
    f"{LONGEST}a",
    "a/b",
    "a@b",
    "http://a",
    "a%41.com",
    "host%00",
    "a\0b",
    "host\\",
    "a,b",
    "a|b",
    "a{b}",
    "*.example",
    "a\u00adb",  # what is not seen
    "\ufeffa",
    "a\u200d.com",
    "\u017f.com",  # which other letters become
    "\u212a.com",
    "\u1e9e.de",
    "１.２.３.４",
    "\u0661.\u0662.\u0663.\u0664",
    "1.2.3.\u00b2",
    "a．b",
    "0",
    "0x",
    "0x0",
    "127.1",
    "127.0.0.1.",
    "0177.0.0.1",
    "2130706433",
    "256.1.1.1",
    "1.2.3.4.5",
    "a.256",
    "a.0x",
    "1.2.3.4%eth0",
    "1.2.3.4:80",
    "1::2::3",
    "02001::1",
    "::ffff:1.2.3.04",
    "::ffff:0x1",
    "[::1",
    "::1]",
    "fe80::1%%",
    "fe80::1%a/b",
    "::1%2525",
]


@pytest.mark.parametrize("address", GOOD)
def test_a_good_address_is_published(address: str) -> None:
    assert ServiceInstance("chat", address=address, port=80).address == address


@pytest.mark.parametrize("address", BAD)
def test_a_bad_address_is_refused(address: str) -> None:
    with pytest.raises(InvalidArgument) as raised:
        ServiceInstance("chat", id="a", address=address, port=80)
    assert (raised.value.field, raised.value.value) == ("address", address)


@pytest.mark.parametrize("address", [5, None, b"a", ["a"]])
def test_what_is_no_text_is_of_a_wrong_type(address: object) -> None:
    with pytest.raises(TypeError) as raised:
        check_address("address", address)
    assert isinstance(raised.value, InvalidArgument)
    assert (raised.value.field, raised.value.value) == ("address", address)


def punycode(label: str) -> str:
    return "xn--" + label.encode("punycode").decode()


BREAKS_ONE_RULE = {
    "begins with a hyphen": "-bücher",
    "ends with a hyphen": "bücher-",
    "has hyphens where xn-- has them": "bü--cher",
    "begins with a mark": "\u0301bücher",
    "begins with a mark that has a width": "\u0903\u0915",
    "has what IDNA disallows": "\u0643\u0640\u0628",
    "has an underscore": "bü_cher",
    "has another character of ASCII": "bü!cher",
    "has a sign": "\u2603a",
    "has what IDNA 2003 does not know": "\u0221",
    "is written otherwise by NFKC": "\uff41bücher",
    "has what folds to others": "\u0390",
    "is written to the right and ends to the left": "\u05d0a",
    "begins to the right": "a\u05d0",
    "goes to the right in between": "\u05d0a\u05d1",
    "has a number between letters that go to the left": "\u05d01\u05d1",
    "begins with a number": "1\u05d0",
    "ends with a mark": "\u05d0\u05b1",
}


@pytest.mark.parametrize("label", BREAKS_ONE_RULE.values(), ids=BREAKS_ONE_RULE)
def test_each_rule_of_idna_holds_in_both_spellings(label: str) -> None:
    assert problem_of(f"{label}.example") is not None
    assert problem_of(f"{punycode(label)}.example") is not None


@pytest.mark.parametrize(
    "label",
    [
        "bücher",
        "\u65e5\u672c",
        "\u05d0",
        "\u05d0\u05d1\u05d2",
        "\u0628\u064a\u062a",
        "\u05d0\u05b1\u05d1",
        "\u0915\u093f",
        "bü-cher2",
    ],
)
def test_a_label_that_breaks_none_is_taken_in_both(label: str) -> None:
    assert problem_of(f"{label}.example") is None
    assert problem_of(f"{punycode(label)}.example") is None


@given(st.text(max_size=12) | st.from_regex(r"[0-9a-fA-F:.x%\w-]{1,20}", fullmatch=True) | st.ip_addresses().map(str))
def test_what_passes_is_taken_by_the_clients(address: str) -> None:
    if problem_of(address) is None:
        assert httpx.URL("http://x/").copy_with(host=address).host
        assert yarl.URL("http://x/").with_host(address).host


@pytest.mark.parametrize(
    ("address", "servers", "expected"),
    [
        ("127.0.0.1", ["zk1"], True),
        ("127.8.0.1", ["10.0.0.1"], True),
        ("::1", ["zk1"], True),
        ("::ffff:127.0.0.1", ["zk1"], True),
        ("localhost", ["localhost", "zk1"], True),
        ("LocalHost.", ["zk1"], True),
        ("chat.localhost", ["zk1"], True),
        ("127.0.0.1", ["127.0.0.1"], False),
        ("127.0.0.1", ["localhost", "::1"], False),
        ("10.0.0.7", ["zk1"], False),
        ("chat", ["localhost"], False),
    ],
)
def test_only_on_this_machine(address: str, servers: list[str], expected: bool) -> None:
    assert only_here(address, servers) is expected


@pytest.mark.parametrize("name", ["a", "a.b.", "node-7.example", "node_7", "1a", "xn--bcher-kva.example", "a" * 63])
def test_what_is_a_host_name(name: str) -> None:
    assert is_host_name(name)


@pytest.mark.parametrize(
    "name",
    ["", ".", "a..b", "-a", "a-.b", "a b", "10.0.0.7", "::1", "a.1", "a.0x7f.", "mün.example", "a" * 64, "xn--a"],
)
def test_what_is_no_host_name(name: str) -> None:
    assert not is_host_name(name)


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("", ("", None)),
        (":80", ("", "80")),
        ("chat:80", ("chat", "80")),
        ("chat:", ("chat", "")),
        ("chat:x:y", ("chat", "x:y")),
        ("::1]:80", ("", ":1]:80")),
        ("[::1]", ("::1", None)),
        ("[fe80::1%eth0]:80", ("fe80::1%eth0", "80")),
        *((text, None) for text in ("[::1]x", "[::1]x:80", "x[::1]", "[::1", "a]:80", "[[::1]]", "[]", "[chat]:80")),
    ],
)
def test_a_host_and_its_port(text: str, parts: tuple[str, str | None] | None) -> None:
    assert split_authority(text) == parts
