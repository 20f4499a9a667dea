"""The command line as it is understood: what each option is, what it means, and which command is run with it."""

from __future__ import annotations

import sys
from argparse import Action, ArgumentParser, Namespace
from collections.abc import Sequence
from types import ModuleType
from typing import Any

import pytest

from aioregistry._cli import MAX_PORT, _parser, main
from aioregistry._cli.completion import commands_of
from aioregistry._cli.options import CONNECTION, LOGGING, PLACE, WRITING

CHECKS = {f"check_{name}": None for name in ("interval", "timeout", "rise", "fall", "initial")}
REGISTER: dict[str, Any] = {
    "name": "chat",
    "id": None,
    "address": None,
    "port": None,
    "payload": None,
    "on_displaced": "standby",
    "connect_timeout": None,
    "drain": None,
    "check_http": [],
    "check_tcp": [],
    "check_command": [],
    **CHECKS,
}
LIST: dict[str, Any] = {"name": None, "json": False, "where": [], "sort": None, "reverse": False, "watch": False}
WATCH: dict[str, Any] = {"name": "chat", "json": False, "guard": False, "where": [], "sort": None, "reverse": False}
EXPORT: dict[str, Any] = {"names": [], "format": "envoy", "out": "eds", "exec": None, "minimum": 0, "wait": "1:10"}
DRAIN = {
    "name": "chat",
    "id": "a",
    "reason": "disk",
    "weight": None,
    "duration": "1h",
    "any_incarnation": False,
}
CONSOLE = {
    "listen": "127.0.0.1:8765",
    "allow_host": [],
    "allow_drain": False,
    "warm_up": 30.0,
    "history": None,
    "history_days": 30.0,
    "history_size": 256,
    "password_file": None,
    "hash_password": None,
    "hash": "scrypt",
    "user_header": None,
    "proxy": [],
    "https_cert": None,
    "https_key": None,
}
DOCTOR = {"json": False, "max_request": 0xFFFFF, "admin_server": "http://:8080/commands"}

# The least that a command is given, what it means, and the shared options.
LEAST: dict[tuple[str, ...], tuple[dict[str, Any], Sequence[str]]] = {
    ("register", "chat"): (REGISTER, WRITING),
    ("watch", "chat"): (WATCH, CONNECTION),
    ("list",): (LIST, CONNECTION),
    ("export", "--format", "envoy", "--out", "eds"): (EXPORT, CONNECTION),
    ("drain", "chat", "a", "--reason", "disk"): (DRAIN, WRITING),
    ("enable", "chat", "a"): ({"name": "chat", "id": "a"}, CONNECTION),
    ("maintenance",): ({"name": None, "json": False}, CONNECTION),
    ("demo",): ({"json": False}, (*PLACE, *LOGGING)),
    ("server",): ({"host": "127.0.0.1", "port": 2181, "version": "3.8"}, LOGGING),
    ("doctor",): (DOCTOR, CONNECTION),
    ("top",): ({"name": None}, CONNECTION),
    ("console",): (CONSOLE, WRITING),
    ("completion", "fish"): ({"shell": "fish"}, ()),
}

# More words for these, and what is other with them.
MORE: dict[tuple[str, ...], list[tuple[tuple[str, ...], dict[str, Any]]]] = {
    ("register", "chat"): [
        (("--id", "a", "--address", "b"), {"id": "a", "address": "b"}),
        (("--port", "65535"), {"port": 65535}),
        (("--payload", '{"zone": [1.5, null]}'), {"payload": {"zone": [1.5, None]}}),
        (("--on-displaced", "stop"), {"on_displaced": "stop"}),
        (("--on-displaced", "standby"), {}),
        (("--connect-timeout", "2.5", "--drain", "0.5"), {"connect_timeout": 2.5, "drain": 0.5}),
        (("--check-http", "a", "--check-http", "b"), {"check_http": ["a", "b"]}),
        (("--check-tcp", "a", "--check-tcp", "b"), {"check_tcp": ["a", "b"]}),
        (("--check-command", "a", "--check-command", "b"), {"check_command": ["a", "b"]}),
        (("--check-interval", "1.5", "--check-timeout", "0.5"), {"check_interval": 1.5, "check_timeout": 0.5}),
        (("--check-rise", "2", "--check-fall", "4"), {"check_rise": 2, "check_fall": 4}),
        (("--check-initial", "passing"), {"check_initial": "passing"}),
        (("--check-initial", "failing"), {"check_initial": "failing"}),
    ],
    ("watch", "chat"): [(("--json",), {"json": True}), (("--guard",), {"guard": True})],
    ("list",): [
        (("chat",), {"name": "chat"}),
        (("--json", "--reverse", "--watch"), {"json": True, "reverse": True, "watch": True}),
        (("--where", "a=b", "--where", "c=d"), {"where": ["a=b", "c=d"]}),
        (("--sort", "zone"), {"sort": "zone"}),
    ],
    ("export", "--format", "envoy", "--out", "eds"): [
        (("chat", "mail"), {"names": ["chat", "mail"]}),
        (("--exec", "true", "--minimum", "2", "--wait", "0:5"), {"exec": "true", "minimum": 2, "wait": "0:5"}),
        *((("--format", name), {"format": name}) for name in ("prometheus", "envoy", "haproxy", "nginx", "json")),
    ],
    ("drain", "chat", "a", "--reason", "disk"): [
        (("--weight", "0.5", "--for", "2d"), {"weight": "0.5", "duration": "2d"}),
        (("--any-incarnation",), {"any_incarnation": True}),
    ],
    ("maintenance",): [(("chat", "--json"), {"name": "chat", "json": True})],
    ("demo",): [(("--json",), {"json": True})],
    ("server",): [
        (("--host", "::1", "--port", "0"), {"host": "::1", "port": 0}),
        (("--port", "65535"), {"port": 65535}),
        *((("--version", name), {"version": name}) for name in ("3.5", "3.8", "3.9", "3.9.5")),
    ],
    ("doctor",): [(("--json", "--max-request", "1", "--admin-server", "off"),
                   {"json": True, "max_request": 1, "admin_server": "off"})],
    ("top",): [(("chat",), {"name": "chat"})],
    ("console",): [
        (("--listen", "[::1]:80", "--allow-host", "a", "--allow-host", "b"),
         {"listen": "[::1]:80", "allow_host": ["a", "b"]}),
        (("--allow-drain", "--warm-up", "2.5"), {"allow_drain": True, "warm_up": 2.5}),
        (("--history", "f", "--history-days", "0.5", "--history-size", "1"),
         {"history": "f", "history_days": 0.5, "history_size": 1}),
        (("--password-file", "f", "--hash-password", "me"), {"password_file": "f", "hash_password": "me"}),
        (("--hash", "argon2"), {"hash": "argon2"}),
        (("--user-header", "X-User", "--proxy", "a", "--proxy", "b"), {"user_header": "X-User", "proxy": ["a", "b"]}),
        (("--https-cert", "c", "--https-key", "k"), {"https_cert": "c", "https_key": "k"}),
    ],
    ("completion", "fish"): [],
}  # fmt: skip

GIVEN = [(least, more, other) for least, mores in MORE.items() for more, other in mores]


def parsed(words: Sequence[str]) -> dict[str, Any]:
    """The command's own values."""
    arguments = vars(_parser().parse_args(words))
    return {name: arguments[name] for name in arguments.keys() - {*CONNECTION, *WRITING} - OF_THE_PARSER}


OF_THE_PARSER = {"command", "config", "parser", "shared", "subcommand"}


@pytest.mark.parametrize("words", LEAST, ids=" ".join)
def test_what_is_not_given_has_its_default(words: tuple[str, ...]) -> None:
    own, shared = LEAST[words]
    assert parsed(words) == own
    assert set(vars(_parser().parse_args(words)).get("shared", ())) == set(shared)


def test_a_demo_has_a_server_and_a_session_timeout_of_its_own() -> None:
    shared = _parser().parse_args(["demo"]).shared
    assert (shared["zookeeper"], shared["session_timeout"]) == (None, 4.0)


@pytest.mark.parametrize(("least", "more", "other"), GIVEN, ids=" ".join)
def test_an_option_means_what_it_says(least: tuple[str, ...], more: tuple[str, ...], other: dict[str, Any]) -> None:
    assert parsed([*least, *more]) == LEAST[least][0] | other


@pytest.mark.parametrize(
    ("words", "named"),
    [
        ((), "COMMAND"),
        (("register",), "NAME"),
        (("watch",), "NAME"),
        (("export", "--out", "eds"), "--format"),
        (("export", "--format", "envoy"), "--out"),
        (("drain", "--reason", "disk"), "NAME, ID"),
        (("drain", "chat", "a"), "--reason"),
        (("enable",), "NAME, ID"),
        (("completion",), "shell"),
        (("completion", "csh"), "csh"),
        (("register", "chat", "--on-displaced", "fight"), "fight"),
        (("register", "chat", "--check-initial", "unknown"), "unknown"),
        (("export", "--format", "consul", "--out", "eds"), "consul"),
        (("server", "--version", "3.4"), "3.4"),
        (("console", "--hash", "md5"), "md5"),
        (("server", "--port", "65536"), "0..65535"),
        (("server", "--port=-1"), "0..65535"),
        (("server", "--port", "\u00b2"), "0..65535"),
        (("server", "--port", "\u0663"), "0..65535"),
        (("server", "--port", ""), "0..65535"),
        (("register", "chat", "--payload", "{zone"), "'{zone' is not JSON from character 2 on"),
        (("register", "chat", "--payload", "[" * 200_000), f"'{'[' * 80}' is nested too deep"),
        (("register", "chat", "--payload", "7" * 5000), f"'{'7' * 80}' has a number that is too long"),
        (("register", "chat", "--"), "after -- comes a command"),
        (("watch", "a\x1b[31mb", "\x1b[31mred"), "\\x1b[31mred"),
    ],
    ids=lambda each: " ".join(each)[:60] if isinstance(each, tuple) else "",
)  # fmt: skip
def test_what_is_refused(
    words: tuple[str, ...], named: str, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    runs = Runs(monkeypatch)
    with pytest.raises(SystemExit) as ended:
        main(words)
    assert (ended.value.code, runs.commands) == (2, [])
    shown = capfd.readouterr()
    assert shown.out == ""
    assert named in shown.err.splitlines()[-1]
    assert "\x1b" not in shown.err


def test_the_largest_port_is_a_number_of_two_bytes() -> None:
    assert MAX_PORT == 0xFFFF


# ---------------------------------------------------------------- what is shown of it

# How the values of options are called, which completions are made of, and what they may be.
VALUES: dict[str, dict[str, str | tuple[str, ...]]] = {
    "": {},
    "register": {
        "--id": "ID",
        "--address": "ADDRESS",
        "--port": "PORT",
        "--payload": "JSON",
        "--on-displaced": ("standby", "stop"),
        "--connect-timeout": "SECONDS",
        "--drain": "SECONDS",
        "--check-http": "URL",
        "--check-tcp": "HOST:PORT",
        "--check-command": "CMD",
        "--check-interval": "SECONDS",
        "--check-timeout": "SECONDS",
        "--check-rise": "N",
        "--check-fall": "N",
        "--check-initial": ("failing", "passing"),
    },
    "watch": {"--where": "KEY=VALUE", "--sort": "KEY"},
    "list": {"--where": "KEY=VALUE", "--sort": "KEY"},
    "export": {
        "--format": ("prometheus", "envoy", "haproxy", "nginx", "json"),
        "--out": "FILE",
        "--exec": "CMD",
        "--minimum": "N",
        "--wait": "MIN:MAX",
    },
    "drain": {"--reason": "REASON", "--weight": "PART", "--for": "DURATION"},
    "enable": {},
    "maintenance": {},
    "demo": {},
    "server": {"--host": "HOST", "--port": "PORT", "--version": ("3.5", "3.8", "3.9", "3.9.5")},
    "doctor": {"--max-request": "BYTES", "--admin-server": "URL"},
    "top": {},
    "console": {
        "--listen": "HOST:PORT",
        "--allow-host": "NAME",
        "--warm-up": "SECONDS",
        "--history": "FILE",
        "--history-days": "DAYS",
        "--history-size": "MIB",
        "--password-file": "FILE",
        "--hash-password": "USER",
        "--hash": ("scrypt", "argon2"),
        "--user-header": "NAME",
        "--proxy": "ADDRESS",
        "--https-cert": "FILE",
        "--https-key": "FILE",
    },
    "completion": {},
}
SHARED = {f"--{name.replace('_', '-')}" for name in (*CONNECTION, *WRITING)} | {"--config"}

POSITIONALS = {
    "": ["COMMAND"],
    "register": ["NAME"],
    "watch": ["NAME"],
    "list": ["NAME"],
    "export": ["NAME"],
    "drain": ["NAME", "ID"],
    "enable": ["NAME", "ID"],
    "maintenance": ["NAME"],
    "demo": [],
    "server": [],
    "doctor": [],
    "top": ["NAME"],
    "console": [],
    "completion": [None],
}

# The values without which a reader of the help does not know what is not given; where a text says it, not the number.
DEFAULTS = {
    "register": ["(default: standby)"],
    "export": ["(default: 0)", "(default: 1:10)"],
    "drain": ["(default: 1h)"],
    "server": ["(default: 127.0.0.1)", "(default: 2181)", "(3.8)"],
    "doctor": ["(1048575)", "(default: http://:8080/commands)"],
    "console": ["(default: 127.0.0.1:8765)", "(default: 30)", "(default: 256)", "(scrypt)"],
    "demo": ["(default: a server in memory)", "(default: 4;"],
}


def actions_of(parser: ArgumentParser) -> list[Action]:
    return parser._actions  # argparse has no public way to its arguments


def parsers() -> dict[str, ArgumentParser]:
    """The parser of each command."""
    whole = _parser()
    (choices,) = (action.choices for action in actions_of(whole) if action.dest == "subcommand" and action.choices)
    return {"": whole, **dict(choices)}


@pytest.mark.parametrize("name", VALUES)
def test_a_value_is_called_what_it_is(name: str) -> None:
    found = {option.flags[-1]: option.values or option.value for option in commands_of(_parser())[name].options}
    assert {flag: value for flag, value in found.items() if value and flag not in SHARED} == VALUES[name]
    positionals = [action.metavar for action in actions_of(parsers()[name]) if not action.option_strings]
    assert positionals == POSITIONALS[name]


@pytest.mark.parametrize("name", VALUES)
def test_everything_is_explained(name: str) -> None:
    parser = parsers()[name]
    assert parser.description
    assert [action.dest for action in actions_of(parser) if not action.help and action.metavar != "COMMAND"] == []
    assert commands_of(_parser())[name].help or not name
    text = " ".join(parser.format_help().split())
    assert [default for default in DEFAULTS.get(name, ()) if default not in text] == []


def test_every_command_is_here() -> None:
    assert set(commands_of(_parser())) == set(VALUES) == {"", *(words[0] for words in LEAST)} == {"", *RUN}


def test_the_help_names_the_program_and_its_parts() -> None:
    assert _parser().prog == "aioregistry"
    text = _parser().format_help()
    assert "\ncommands:\n" in text
    usage = " ".join(parsers()["register"].format_usage().split())
    assert usage.endswith("aioregistry register NAME --port PORT [options] [-- COMMAND ...]")


# ---------------------------------------------------------------- what is run

RUN = {
    "register": ("register", "register"),
    "watch": ("watch", "watch"),
    "list": ("list_", "list_"),
    "export": ("export", "export"),
    "drain": ("maintenance", "drain"),
    "enable": ("maintenance", "enable"),
    "maintenance": ("maintenance", "maintenance"),
    "demo": ("demo", "demo"),
    "server": ("server", "server"),
    "doctor": ("doctor", "doctor"),
    "top": ("top", "top"),
    "console": ("console", "console"),
    "completion": ("completion", "completion"),
}


class Runs:
    """Takes the place of what runs a command.

    Args:
        patch: of the test.
    """

    def __init__(self, patch: pytest.MonkeyPatch) -> None:
        self.commands: list[Any] = []
        self.arguments = Namespace()
        self.heeds_signals: bool | None = None
        patch.setattr("aioregistry._cli.process.run", self._run)

    def _run(self, command: Any, arguments: Namespace, *, heeds_signals: bool = False) -> int:
        self.commands.append(command)
        self.arguments, self.heeds_signals = arguments, heeds_signals
        return 42


@pytest.mark.parametrize("words", LEAST, ids=" ".join)
async def test_a_command_runs_what_is_called_like_it(words: tuple[str, ...], monkeypatch: pytest.MonkeyPatch) -> None:
    runs = Runs(monkeypatch)
    assert main(words) == 42
    (command,) = runs.commands
    assert runs.heeds_signals is False

    async def work(arguments: Namespace) -> int:
        assert arguments is runs.arguments
        return 43

    module, function = RUN[words[0]]
    fake = ModuleType(f"aioregistry._cli.{module}")
    setattr(fake, function, work)
    monkeypatch.setitem(sys.modules, fake.__name__, fake)
    assert await command(runs.arguments) == 43


def test_a_program_behind_two_dashes_is_run_with_its_own_options(monkeypatch: pytest.MonkeyPatch) -> None:
    from aioregistry._cli.sidecar import sidecar

    runs = Runs(monkeypatch)
    assert main(["register", "chat", "--port", "1", "--", "serve", "--port", "2", "--", "x"]) == 42
    assert (runs.commands, runs.heeds_signals) == ([sidecar], True)
    assert (runs.arguments.port, runs.arguments.program) == (1, ["serve", "--port", "2", "--", "x"])


def test_the_first_process_of_a_container_runs_it_in_a_child(monkeypatch: pytest.MonkeyPatch) -> None:
    from aioregistry._cli.sidecar import sidecar

    runs = Runs(monkeypatch)
    monkeypatch.setattr("os.getpid", lambda: 1)
    monkeypatch.setattr("aioregistry._cli.init.as_init", lambda work: work() + 100)
    assert main(["register", "chat", "--", "serve"]) == 142
    assert (runs.commands, runs.heeds_signals, runs.arguments.program) == ([sidecar], True, ["serve"])
    assert main(["register", "chat"]) == 42


def test_two_dashes_are_argparses_own_where_no_program_can_be(monkeypatch: pytest.MonkeyPatch) -> None:
    runs = Runs(monkeypatch)
    assert main(["list", "--", "--json"]) == 42
    assert (runs.arguments.name, runs.arguments.json) == ("--json", False)


def test_without_arguments_those_of_the_process_are_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    runs = Runs(monkeypatch)
    monkeypatch.setattr("sys.argv", ["aioregistry", "list", "mail"])
    assert main() == 42
    assert runs.arguments.name == "mail"


def test_a_command_has_all_standard_streams(monkeypatch: pytest.MonkeyPatch) -> None:
    Runs(monkeypatch)
    for name in ("stdin", "stdout", "stderr"):
        with monkeypatch.context() as patch:
            patch.setattr(sys, name, None)
            main(["list"])
            stream = getattr(sys, name)
            assert stream is not None
            assert (stream.readable(), stream.writable()) == (name == "stdin", name != "stdin")
