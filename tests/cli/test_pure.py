"""The commands' pure parts: checks from options, rows of `top`, lines of the doctor and of the demo, completions."""

from __future__ import annotations

import json
import math
from argparse import ArgumentParser, Namespace
from dataclasses import asdict
from typing import Any

import pytest

from aioregistry import CommandCheck, Entry, HttpCheck, Invalid, InvalidArgument, Snapshot, Suspicion, TcpCheck
from aioregistry._cli import doctor
from aioregistry._cli.checking import checks_of
from aioregistry._cli.completion import SHELLS, Choice, Command, commands_of
from aioregistry._cli.overview import INSTANCE_HEAD, SERVICE_HEAD, InstanceRow, ServiceRow, instance_rows, service_row
from aioregistry._cli.selection import COLUMNS, Condition, Selection, condition
from aioregistry._cli.stage import DemoResult, Happening
from aioregistry._cli.telling import JsonTeller, TextTeller, kept, sentence
from aioregistry._doctor.findings import Finding, Unknown
from aioregistry._doctor.picture import Picture, Server
from aioregistry._document import decode
from aioregistry._words import described, document, place, shortened, state_of, to_json, why_unavailable

# ---------------------------------------------------------------- checks


def options(**given: Any) -> Namespace:
    """The options of checks, as they are where they are not given."""
    some: dict[str, Any] = {f"check_{name}": [] for name in ("http", "tcp", "command")}
    others = {f"check_{name}": None for name in ("interval", "timeout", "rise", "fall", "initial")}
    return Namespace(**(some | others | given))


def test_checks_are_named_by_kind_and_numbered_from_the_second_on() -> None:
    checks = checks_of(
        options(
            check_http=["http://localhost:1/", "http://localhost:2/", "http://localhost:3/"],
            check_tcp=["localhost:1"],
            check_command=["true", "false"],
        )
    )
    assert [*checks] == ["http", "http-2", "http-3", "tcp", "command", "command-2"]
    types = [HttpCheck, HttpCheck, HttpCheck, TcpCheck, CommandCheck, CommandCheck]
    assert [type(check) for check in checks.values()] == types
    assert "localhost:2/" in repr(checks["http-2"])


def test_a_check_has_what_is_given_and_else_its_own_defaults() -> None:
    given = options(
        check_tcp=["localhost:1"],
        check_interval=7.0,
        check_timeout=2.0,
        check_rise=3,
        check_fall=4,
        check_initial="passing",
    )
    (check,) = checks_of(given).values()
    assert (check.interval, check.timeout, check.rise, check.fall) == (7.0, 2.0, 3, 4)
    assert check.initial == "passing"
    (other,) = checks_of(options(check_tcp=["localhost:1"], check_fall=4)).values()
    usual = TcpCheck("localhost", 1)
    assert (other.interval, other.timeout, other.rise, other.fall) == (usual.interval, usual.timeout, usual.rise, 4)


def test_nothing_given_is_no_check() -> None:
    assert checks_of(options()) == {}


@pytest.mark.parametrize("name", ["interval", "timeout", "rise", "fall", "initial"])
def test_an_option_of_checks_without_a_check_is_refused(name: str) -> None:
    with pytest.raises(InvalidArgument) as refused:
        checks_of(options(**{f"check_{name}": 0}))
    assert (refused.value.field, refused.value.value) == (f"check_{name}", 0)


@pytest.mark.parametrize(
    ("given", "field", "value"),
    [
        ({"check_http": ["ftp://x/"]}, "check_http", "ftp://x/"),
        ({"check_tcp": ["localhost"]}, "check_tcp", "localhost"),
        ({"check_command": ["/no/such/program"]}, "check_command", "/no/such/program"),
        ({"check_tcp": ["localhost:1"], "check_rise": 0}, "check_rise", 0),
        ({"check_http": ["http://x/"], "check_timeout": -1.0}, "check_timeout", -1.0),
    ],
)
def test_what_a_check_refuses_is_named_by_its_option(given: dict[str, Any], field: str, value: object) -> None:
    with pytest.raises(InvalidArgument) as refused:
        checks_of(options(**given))
    assert (refused.value.field, refused.value.value) == (field, value)


# ---------------------------------------------------------------- rows


def entry(id: str, suspicion: Suspicion | None = None, **fields: Any) -> Entry[Any]:
    """An instance of chat that was created at 1000 s."""
    document = {"name": "chat", "id": id, "address": "10.0.0.7", "port": 7000, "payload": None, **fields}
    made = decode(json.dumps(document).encode(), name="chat", id=id)
    return Entry(made, 0x17, 1, 1, 0, 1000.0, 1000.0, suspicion=suspicion)


def snapshot(stale_since: float | None = None) -> Snapshot[Any]:
    """One of each state, and two of two."""
    entries = [
        *(entry("a"), entry("b", payload={"zone": "eu"}), entry("c", enabled=False, status="failing")),
        *(entry("d", enabled=False), entry("e", enabled=False), entry("f", enabled=False, status="maintenance")),
        entry("s", suspicion=Suspicion("mass removal", 1000.0, 1060.0)),
    ]
    invalid = {"y": Invalid("y", "oops", 0x17, 1), "z": Invalid("z", "bad\x1b", 0, 1)}
    return Snapshot("chat", {each.instance.id: each for each in entries}, invalid, as_of=1, stale_since=stale_since)


def test_a_service_at_a_glance() -> None:
    row = service_row("ch\x1bat", snapshot(), 1100.0)
    assert row == ServiceRow("ch\\x1bat", 7, 2, 1, 2, 1, 1, 2, "now")
    assert service_row("chat", snapshot(stale_since=1000.0), 1090.0).known == "1m ago"


def test_the_instances_of_a_service() -> None:
    rows = {row.id: row for row in instance_rows(snapshot(), 1100.0)}
    assert [*rows] == ["a", "b", "c", "d", "e", "f", "s", "y", "z"]
    assert rows["b"] == InstanceRow("b", "10.0.0.7:7000", "enabled", "0x17", "1m", '{"zone": "eu"}')
    assert rows["c"].state == "failing"
    assert (rows["s"].state, rows["s"].detail) == ("suspect", "mass removal; null")
    assert rows["y"] == InstanceRow("y", "-", "invalid", "0x17", "-", "oops")
    assert rows["z"].detail == "bad\\x1b"


def test_the_heads_are_as_wide_as_the_rows() -> None:
    assert SERVICE_HEAD[:3] == ("NAME", "INSTANCES", "ENABLED")
    assert (len(SERVICE_HEAD), len(INSTANCE_HEAD)) == (len(ServiceRow._fields), len(InstanceRow._fields))


# ---------------------------------------------------------------- words


@pytest.mark.parametrize(
    ("fields", "where"),
    [
        ({}, "10.0.0.7:7000"),
        ({"address": "fe80::1"}, "[fe80::1]:7000"),
        ({"address": None}, "?:7000"),
        ({"port": None}, "10.0.0.7"),
        ({"port": None, "sslPort": 443}, "10.0.0.7:443"),
        ({"sslPort": 443}, "10.0.0.7:7000"),
    ],
)
def test_the_place_of_an_instance(fields: dict[str, Any], where: str) -> None:
    assert place(entry("a", **fields).instance) == where


def test_an_instance_as_a_line() -> None:
    assert described(entry("a").instance) == "a  10.0.0.7:7000"
    other = entry("a\x1b", enabled=False, status="failing", payload={"städte": "\x1b"}).instance
    assert described(other) == 'a\\x1b  10.0.0.7:7000  failing  {"städte": "\\u001b"}'


def test_why_an_instance_is_not_called() -> None:
    spring = {"@class": "org.springframework.cloud.zookeeper.discovery.ZookeeperInstance", "id": "x", "name": "chat"}
    spring["metadata"] = {"instance_status": "DOWN"}  # type: ignore[assignment]
    entries = [entry("a"), entry("a", enabled=False), entry("a", enabled=False, status="failing")]
    entries += [entry("a", payload=spring), entry("a", suspicion=Suspicion("file", 0.0, 1.0), enabled=False)]
    whys = [None, "draining", "failing", "out of service", "draining"]
    assert [why_unavailable(each.instance) for each in entries] == whys
    assert [state_of(each) for each in entries] == ["enabled", "draining", "failing", "draining", "suspect"]


@pytest.mark.parametrize("enabled", [True, False])
def test_a_document_says_whether_it_is_enabled(enabled: bool) -> None:
    assert document(entry("a", enabled=enabled).instance)["enabled"] is enabled


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(-1, "0s"), (0.9, "0s"), (1, "1s"), (60, "1m"), (3599, "59m"), (3600, "1h"), (86399, "23h"), (86400, "1d")],
)
def test_a_time_in_its_largest_unit(seconds: float, text: str) -> None:
    assert shortened(seconds) == text


def test_an_absurd_time_has_five_digits() -> None:
    assert (shortened(99_999 * 86400.0), shortened(100_000 * 86400.0)) == ("99999d", "99999d")
    assert (shortened(math.inf), shortened(-math.inf), shortened(math.nan)) == ("99999d", "0s", "?")


def test_numbers_without_a_form_in_json_are_text_in_every_depth() -> None:
    value = {"a": [math.inf, {"b": (-math.inf)}], "c": math.nan, "d": 1.5, "e": "\x7f\x1b", "f": (1,)}
    assert json.loads(to_json(value)) == {
        "a": ["Infinity", {"b": "-Infinity"}],
        "c": "NaN",
        "d": 1.5,
        "e": "\x7f\x1b",
        "f": [1],
    }
    assert "\x7f" not in to_json(value)
    assert to_json([1], indent=2) == "[\n  1\n]"
    assert to_json([1]) == "[1]"


class Row(dict[str, Any]):
    """A row that is its columns."""


def test_a_condition_is_read_around_its_first_sign() -> None:
    assert condition(" zone != a=b ") == Condition("zone", "a=b", False)
    assert condition("zone=!") == Condition("zone", "!", True)


@pytest.mark.parametrize("text", ["", "zone", "=a", "!=a", " =a", "zone!"])
def test_what_is_no_condition_is_refused(text: str) -> None:
    with pytest.raises(InvalidArgument) as refused:
        condition(text)
    assert (refused.value.field, refused.value.value) == ("where", text)


@pytest.mark.parametrize("column", COLUMNS)
def test_a_column_comes_before_a_field_of_the_payload(column: str) -> None:
    rows = [Row({column: "one", "payload": {column: "two"}})]
    assert Selection([Condition(column, "one", True)]).of(rows) == rows
    assert Selection([Condition(f"payload.{column}", "two", True)]).of(rows) == rows
    assert Selection([Condition(column, "two", True)]).of(rows) == []


def test_without_a_key_only_the_order_may_turn() -> None:
    rows = [Row(id=each) for each in "bca"]
    assert Selection().of(rows) == rows
    assert Selection(reverse=True).of(rows) == rows[::-1]


def test_values_are_compared_as_json_writes_them() -> None:
    values = {"a": True, "b": False, "c": 1, "d": 1.0, "e": "1", "f": None, "g": "true"}
    rows = [Row(id=id, payload={"v": value}) for id, value in values.items()]
    expected = {"true": "ag", "false": "b", "1": "ce", "1.0": "d", "None": "", "True": ""}
    found = {text: Selection([Condition("v", text, True)]).of(rows) for text in expected}
    assert {text: "".join(row["id"] for row in some) for text, some in found.items()} == expected
    assert "".join(row["id"] for row in Selection([Condition("v", "1", False)]).of(rows)) == "abdfg"


# ---------------------------------------------------------------- the doctor's lines


def finding(anchor: str, severity: str, place: str) -> Finding:
    """One."""
    return Finding(anchor, severity, place, "is wrong", f"do something about {anchor}")


PICTURE = Picture([Server("zk1:2181")], services={"chat": {}})


def test_findings_of_a_kind_share_their_advice() -> None:
    findings = [finding("b", "critical", "/x\x1b"), finding("b", "critical", "/y"), finding("a", "notice", "/")]
    assert [*doctor.text_lines(PICTURE, findings, [Unknown("c", "not allowed")])] == [
        "critical  /x\\x1b: is wrong",
        "critical  /y: is wrong",
        "          do something about b (docs/doctor.md#b)",
        "notice    /: is wrong",
        "          do something about a (docs/doctor.md#a)",
        "unknown   c: not allowed",
        "1 service, 0 instances, 1 server: 2 critical",
    ]


def test_ten_of_a_kind_are_shown_and_more_are_counted() -> None:
    many = [finding("b", "warning", f"/{number}") for number in range(12)]
    shown = [*doctor.text_lines(PICTURE, many, [])]
    assert len(shown) == 10 + 3
    assert shown[9:11] == ["warning   /9: is wrong", "warning   and 2 more"]
    assert len([*doctor.text_lines(PICTURE, many[:10], [])]) == 10 + 2
    assert len([*doctor.text_lines(PICTURE, many[:11], [])]) == 11 + 2


@pytest.mark.parametrize(("severity", "healthy"), [("critical", False), ("warning", False), ("notice", True)])
def test_a_notice_is_nothing_wrong(severity: str, healthy: bool) -> None:
    (text,) = doctor.json_lines([finding("b", severity, "/x")], [Unknown("c", "not allowed")])
    told = json.loads(text)
    assert told["healthy"] is healthy
    assert told["findings"][0]["page"] == "docs/doctor.md#b"
    assert told["findings"][0]["severity"] == severity
    assert told["unknown"] == [{"anchor": "c", "reason": "not allowed"}]
    assert len(text.splitlines()) > 1


def test_a_registry_without_faults() -> None:
    assert [*doctor.text_lines(PICTURE, [], [])] == ["1 service, 0 instances, 1 server: nothing is wrong"]


@pytest.mark.parametrize(("severity", "code"), [("critical", 1), ("notice", 0)])
@pytest.mark.parametrize("as_json", [True, False])
async def test_the_exit_code_says_whether_something_is_wrong(
    severity: str, code: int, as_json: bool, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    async def gather(place: object, *, max_request: int, admin: object) -> Picture:
        assert (place, max_request, admin) == ("there", 7, None)
        return PICTURE

    monkeypatch.setattr(doctor, "gather", gather)
    monkeypatch.setattr(doctor, "connection", lambda _: "there")
    monkeypatch.setattr(doctor, "examine", lambda _: [finding("b", severity, "/x")])
    monkeypatch.setattr(doctor, "unknown", lambda _: [])
    given = Namespace(admin_server="off", max_request=7, json=as_json)
    assert await doctor.doctor(given) == code
    shown = capfd.readouterr().out
    assert shown.endswith("\n")
    assert shown.startswith("{" if as_json else severity)


# ---------------------------------------------------------------- the demo's lines

BEGUN = Happening(1.5, "demo", "act", None, "a fault")
KEPT = DemoResult("cut", (), None, 0.0521, "it was live again", True)
BROKEN = DemoResult("expired", ("removed", "added"), 1.5, 0.25, "listed again", False)
END = Happening(20.4, "demo", "ended", None, "curtain")


def test_programs_read_objects() -> None:
    assert json.loads(JsonTeller().happening(BEGUN)) == asdict(BEGUN)
    told = json.loads(JsonTeller().summary([KEPT, BROKEN], END))
    faults = [json.loads(json.dumps(asdict(each))) for each in (KEPT, BROKEN)]
    assert told == {"at": 20.4, "who": "demo", "event": "summary", "promised": False, "faults": faults}
    assert json.loads(JsonTeller().summary([KEPT], END))["promised"]


@pytest.mark.parametrize(
    ("who", "event", "begin"),
    [
        ("demo", "act", "\n  1.50 s  \x1b[1mdemo     x\x1b[0m"),
        ("demo", "closing", "\n  1.50 s  \x1b[1mdemo     x\x1b[0m"),
        ("fault", "cut", "  1.50 s  \x1b[1;31mfault    x\x1b[0m"),
        ("gateway", "removed", "  1.50 s  \x1b[36mgateway  x\x1b[0m"),
        ("chat-1", "live", "  1.50 s  \x1b[32mchat-1   x\x1b[0m"),
        ("chat-1", "standby", "  1.50 s  chat-1   x"),
    ],
)
def test_people_see_acts_apart_and_in_colours(who: str, event: str, begin: str) -> None:
    assert TextTeller(in_colour=True).happening(Happening(1.5, who, event, None, "x")) == begin


def test_a_heading_is_bold_in_colours() -> None:
    lines = TextTeller(in_colour=True).summary([KEPT], END).splitlines()
    assert lines[1].startswith("\x1b[1mfault")
    assert "\x1b" not in "".join(lines[2:])


def test_an_act_ends_with_a_sentence() -> None:
    assert sentence(KEPT) == "the gateway saw nothing; it was live again after 0.052 s"
    assert sentence(BROKEN) == "the gateway saw removed, added, gone for 1.500 s; listed again after 0.250 s"
    assert (kept([]), kept([KEPT]), kept([KEPT, BROKEN])) == (True, True, False)


# ---------------------------------------------------------------- completions


def small() -> ArgumentParser:
    """A parser with options of all kinds."""
    parser = ArgumentParser(prog="aioregistry", add_help=False)
    commands = parser.add_subparsers()
    watch = commands.add_parser("watch", help="it's [all]", add_help=False)
    watch.add_argument("name", help="the service")
    watch.add_argument("-v", "--verbose", action="count", help="more (twice: all); and so on")
    watch.add_argument("--config", metavar="FILE", help="a\\b file; TOML")
    watch.add_argument("--listen", metavar="HOST:PORT", help="there")
    watch.add_argument("--level", choices=["high", "low"])
    commands.add_parser("completion", help="a script", add_help=False).add_argument("shell", choices=["bash", "fish"])
    return parser


def test_a_parser_is_read_whole() -> None:
    assert commands_of(small()) == {
        "": Command("", (), ()),
        "watch": Command(
            "it's [all]",
            (
                Choice(("-v", "--verbose"), "more", None, ()),
                Choice(("--config",), "a\\b file", "FILE", ()),
                Choice(("--listen",), "there", "HOST:PORT", ()),
                Choice(("--level",), "", "LEVEL", ("high", "low")),
            ),
            (),
        ),
        "completion": Command("a script", (), ("bash", "fish")),
    }


def test_the_script_of_fish() -> None:
    assert SHELLS["fish"](commands_of(small())).splitlines() == [
        "complete -c aioregistry -f",
        "complete -c aioregistry -n __fish_use_subcommand -a watch -d 'it\\'s [all]'",
        "complete -c aioregistry -n '__fish_seen_subcommand_from watch' -s v -l verbose -d 'more'",
        "complete -c aioregistry -n '__fish_seen_subcommand_from watch' -l config -r -F -d 'a\\\\b file'",
        "complete -c aioregistry -n '__fish_seen_subcommand_from watch' -l listen -r -d 'there'",
        "complete -c aioregistry -n '__fish_seen_subcommand_from watch' -l level -r -a 'high low' -d ''",
        "complete -c aioregistry -n __fish_use_subcommand -a completion -d 'a script'",
        "complete -c aioregistry -n '__fish_seen_subcommand_from completion' -a 'bash fish'",
    ]


def test_the_script_of_zsh() -> None:
    assert SHELLS["zsh"](commands_of(small())).splitlines() == [
        "#compdef aioregistry",
        "_aioregistry() {",
        "    if (( CURRENT == 2 )); then",
        "        local -a commands=('watch:it'\"'\"'s [all]' 'completion:a script')",
        "        _describe -t commands command commands",
        "        _arguments '*: :_default'",
        "        return",
        "    fi",
        "    local name=$words[2]",
        "    shift words; (( CURRENT-- ))",
        "    case $name in",
        (
            "        watch) _arguments '-v[more]' '--verbose[more]' '--config[a\\\\b file]:FILE:_files' "
            "'--listen[there]:HOST PORT:' '--level[]:LEVEL:(high low)' '*: :_default' ;;"
        ),
        "        completion) _arguments '*: :(bash fish)' ;;",
        "    esac",
        "}",
        'if [[ "$funcstack[1]" == _aioregistry ]]; then _aioregistry "$@"; else compdef _aioregistry aioregistry; fi',
    ]


def test_bash_completes_paths_where_any_value_may_be() -> None:
    script = SHELLS["bash"](commands_of(small()))
    assert script.endswith("\n")
    assert "        'watch --config') COMPREPLY=(); return ;;\n" in script
    assert """        'watch --level') COMPREPLY=($(compgen -W 'high low' -- "$word")); return ;;\n""" in script
    assert "'watch --verbose')" not in script
    assert "        watch) words='-v --verbose --config --listen --level' ;;\n" in script
    assert "        '') words='watch completion' ;;\n" in script


def test_the_command_prints_the_script_of_the_shell_that_is_named(capfd: pytest.CaptureFixture[str]) -> None:
    import asyncio

    from aioregistry._cli.completion import completion

    assert asyncio.run(completion(Namespace(shell="fish", parser=small()))) == 0
    assert capfd.readouterr().out == SHELLS["fish"](commands_of(small()))
