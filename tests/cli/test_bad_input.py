"""Options for health, maintenance and exports that cannot be meant: one line, before ZooKeeper is asked."""

from __future__ import annotations

import io
import shlex
from pathlib import Path

import pytest

from aioregistry._cli import main

NOWHERE = ("--zookeeper", "127.0.0.1:1")
REGISTER = ("register", "chat", "--id", "a", "--address", "10.0.0.7", "--port", "7000")
TCP = ("--check-tcp", "localhost:7000")

SECONDS = ("0", "-1", "-0.5", "nan", "inf")
URLS = (
    "", "localhost:8000", "ftp://localhost/", "http://", "http:///health", "http://localhost:0/",
    "http://localhost:65536/", "http://localhost:port/", "http://224.0.0.1/", "http://255.255.255.255/",
    "http://10.0.0.07/", "http://a b/", "http://[::1/", "http://[::1]x/", "http://[::1]x:80/", "http://x[::1]:80/",
    "http://[::1]:80:90/", "http://[localhost]/", "http://::1]/", "http://localhost]:80/", "http://[::1]]/",
)  # fmt: skip
PLACES = (
    "", "localhost", "localhost:", ":80", "localhost:0", "localhost:99999", "::1:80", "a b:80", "[::1:80", "::1]:80",
    "[::1]x:80", "x[::1]:80", "[localhost]:80", "localhost]:80", "[[::1]]:80", "localhost:80:90",
)  # fmt: skip
PROGRAMS = ("", " ", "'", "nosuchprogram", "/no/such/program --flag", "true; false", "true | cat", "true > /dev/null")

REFUSED = [
    *((*TCP, f"--check-interval={value}", f"--check-interval={float(value)}") for value in SECONDS),
    *((*TCP, f"--check-timeout={value}", f"--check-timeout={float(value)}") for value in SECONDS),
    *((*TCP, f"--check-rise={value}", f"--check-rise={value}") for value in ("0", "-1")),
    *((*TCP, f"--check-fall={value}", f"--check-fall={value}") for value in ("0", "-1")),
    *((f"--check-http={value}", f"--check-http={value!r}") for value in URLS),
    *((f"--check-tcp={value}", f"--check-tcp={value!r}") for value in PLACES),
    *((f"--check-command={value}", f"--check-command={value!r}") for value in PROGRAMS),
    *((f"--check-{name}=1", f"--check-{name}=1") for name in ("interval", "timeout", "rise", "fall")),
    ("--check-initial=passing", "--check-initial='passing'"),
]


def told(arguments: tuple[str, ...], capfd: pytest.CaptureFixture[str]) -> str:
    """The one line of a command that ends with 2 and prints nothing else."""
    assert main([*arguments, *NOWHERE]) == 2
    shown = capfd.readouterr()
    assert shown.out == ""
    (line,) = shown.err.splitlines()
    assert line.startswith("aioregistry: ")
    return line


@pytest.mark.parametrize("options", REFUSED, ids=lambda options: shlex.join(options[:-1]))
def test_a_check_that_cannot_be_is_refused(options: tuple[str, ...], capfd: pytest.CaptureFixture[str]) -> None:
    assert options[-1] in told((*REGISTER, *options[:-1]), capfd)


def test_the_second_check_of_a_kind_is_refused_as_the_first(capfd: pytest.CaptureFixture[str]) -> None:
    two = ("--check-http", "http://localhost/", "--check-http", "ftp://localhost/")
    assert "--check-http='ftp://localhost/'" in told((*REGISTER, *two), capfd)


def test_a_url_with_credentials_is_refused_and_not_shown(capfd: pytest.CaptureFixture[str]) -> None:
    line = told((*REGISTER, "--check-http", "http://user:hunter2@localhost/"), capfd)
    assert "--check-http=" in line
    assert "hunter2" not in line


@pytest.mark.parametrize("option", ["--check-interval", "--check-timeout", "--check-rise", "--check-fall"])
@pytest.mark.parametrize("value", ["", "soon", "5s"])
def test_what_is_no_number_is_refused_with_the_usage(
    option: str, value: str, capfd: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as ended:
        main([*REGISTER, *TCP, f"{option}={value}", *NOWHERE])
    assert ended.value.code == 2
    last = capfd.readouterr().err.splitlines()[-1]
    assert option in last
    assert repr(value) in last


@pytest.mark.parametrize("value", ["", "PASSING", "critical"])
def test_an_unknown_first_state_is_refused(value: str, capfd: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main([*REGISTER, *TCP, f"--check-initial={value}", *NOWHERE])
    assert ended.value.code == 2
    last = capfd.readouterr().err.splitlines()[-1]
    assert "--check-initial" in last
    assert repr(value) in last


@pytest.mark.parametrize("format", ["", "consul", "JSON", "json,envoy", "prometheus "])
def test_an_unknown_format_is_refused_with_those_that_there_are(
    format: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["export", "--format", format, "--out", str(tmp_path / "out"), *NOWHERE])
    assert ended.value.code == 2
    last = capfd.readouterr().err.splitlines()[-1]
    assert "--format" in last
    assert repr(format) in last
    assert all(known in last for known in ("prometheus", "envoy", "haproxy", "nginx", "json"))
    assert [*tmp_path.iterdir()] == []


@pytest.mark.parametrize("value", ["nosuchprogram", "/no/such/program", "", "'"])
def test_a_command_after_each_change_that_is_not_there_is_refused(
    value: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    export = ("export", "--format", "json", "--out", str(tmp_path / "out"), f"--exec={value}")
    assert f"exec={value!r}" in told(export, capfd)


@pytest.mark.parametrize("value", ["nan", "-1", "inf"])
def test_a_drain_that_is_no_time_is_refused(value: str, capfd: pytest.CaptureFixture[str]) -> None:
    assert f"drain={float(value):g}" in told((*REGISTER, f"--drain={value}", "--", "true"), capfd).replace(".0", "")


@pytest.mark.parametrize("value", ["", "0", "-1h", "1y", "one hour", "1h 30m", "never", "Ever", "1e3"])
def test_what_is_no_duration_of_a_maintenance_is_refused(value: str, capfd: pytest.CaptureFixture[str]) -> None:
    line = told(("drain", "chat", "a", "--reason", "new disk", f"--for={value}"), capfd)
    assert f"for={value!r}" in line


NOT_CONNECTED = {
    ("register", "chat", "--address", "a b"): "--address='a b'",
    ("register", "chat", "--address", "10.0.0.7", "--id", "a/b"): "--id='a/b'",
    ("register", "chat", "--address", "10.0.0.7", "--port", "0"): "--port=0",
    (*REGISTER, "--connect-timeout", "0"): "--connect-timeout=0.0",
    (*REGISTER, "--drain", "1"): "--drain=1.0",
    (*REGISTER, "--acl", "everybody"): "--acl='everybody'",
    ("watch", "chat", "--where", "zone"): "--where='zone'",
    ("list", "--sort", "zone"): "--sort='zone'",
    ("drain", "chat", "a", "--reason", " "): "--reason=' '",
    ("drain", "chat", "a", "--reason", "x", "--weight", "2"): "--weight='2'",
    ("drain", "chat", "a", "--reason", "x", "--for", "soon"): "--for='soon'",
    ("export", "--format", "json", "--out", "/nosuch/file"): "--out='/nosuch/file'",
    ("export", "--format", "json", "--out", "f", "--minimum", "-1"): "--minimum=-1",
    ("export", "--format", "json", "--out", "f", "--wait", "2:1"): "--wait='2:1'",
    ("doctor", "--admin-server", "http://zk1/"): "--admin-server='http://zk1/'",
    ("doctor", "--max-request", "-1"): "--max-request=-1",
    ("console", "--warm-up", "-1"): "--warm-up=-1.0",
    ("console", "--listen", "here"): "--listen='here'",
    ("console", "--listen", "127.0.0.1:0", "--history-days", "0"): "--history-days=0.0",
    ("list", "--session-timeout", "soon"): "--session-timeout='soon'",
    ("list", "--base-path", "a"): "--base-path='a'",
    ("top", "--verbose", "--log-format", "xml"): "--log-format='xml'",
    ("demo", "--config", "/nosuch"): "--config='/nosuch'",
}
"""Arguments that are wrong, and how the one line begins."""


@pytest.mark.parametrize("arguments", NOT_CONNECTED, ids=shlex.join)
def test_a_wrong_value_is_told_by_the_option_that_was_typed(
    arguments: tuple[str, ...], capfd: pytest.CaptureFixture[str]
) -> None:
    assert told(arguments, capfd).startswith(f"aioregistry: {NOT_CONNECTED[arguments]}: ")


@pytest.mark.parametrize(
    "command", ["list", "watch chat", "register chat --port 1", "doctor", "top", "console", "demo"]
)
@pytest.mark.parametrize("servers", ["", "zk1:99999", "zk1,,zk2", "http://zk1:2181", "[::1]x:2181", "zk1/a/../b"])
def test_wrong_servers_are_told_by_their_option(command: str, servers: str, capfd: pytest.CaptureFixture[str]) -> None:
    assert main([*command.split(), "--zookeeper", servers]) == 2
    shown = capfd.readouterr()
    assert shown.out == ""
    (line,) = shown.err.splitlines()
    assert line.startswith("aioregistry: --zookeeper=")


def test_a_value_of_the_environment_is_told_by_its_variable(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("AIOREGISTRY_ADDRESS", "a b")
    assert told(("register", "chat", "--port", "1"), capfd).startswith("aioregistry: AIOREGISTRY_ADDRESS='a b': ")
    monkeypatch.setenv("AIOREGISTRY_ADDRESS", "255.255.255.255")  # refused by what is no option's
    assert told(("register", "chat", "--port", "1"), capfd).startswith("aioregistry: address='255.255.255.255': ")


def test_a_user_whom_no_line_can_have_is_told_by_the_option(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("sys.stdin", io.StringIO("correct horse\n"))
    assert told(("console", "--hash-password", "a:b"), capfd).startswith("aioregistry: --hash-password='a:b': ")
