"""Options for health, maintenance and exports that cannot be meant: one line, before ZooKeeper is asked."""

from __future__ import annotations

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
    "http://10.0.0.07/", "http://a b/", "http://[::1/",
)  # fmt: skip
PLACES = ("", "localhost", "localhost:", ":80", "localhost:0", "localhost:99999", "::1:80", "a b:80")
PROGRAMS = ("", " ", "'", "nosuchprogram", "/no/such/program --flag", "true; false", "true | cat", "true > /dev/null")

REFUSED = [
    *((*TCP, f"--check-interval={value}", f"check_interval={float(value)}") for value in SECONDS),
    *((*TCP, f"--check-timeout={value}", f"check_timeout={float(value)}") for value in SECONDS),
    *((*TCP, f"--check-rise={value}", f"check_rise={value}") for value in ("0", "-1")),
    *((*TCP, f"--check-fall={value}", f"check_fall={value}") for value in ("0", "-1")),
    *((f"--check-http={value}", f"check_http={value!r}") for value in URLS),
    *((f"--check-tcp={value}", f"check_tcp={value!r}") for value in PLACES),
    *((f"--check-command={value}", f"check_command={value!r}") for value in PROGRAMS),
    *((f"--check-{name}=1", f"check_{name}=1") for name in ("interval", "timeout", "rise", "fall")),
    ("--check-initial=passing", "check_initial='passing'"),
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
    assert "check_http='ftp://localhost/'" in told((*REGISTER, *two), capfd)


def test_a_url_with_credentials_is_refused_and_not_shown(capfd: pytest.CaptureFixture[str]) -> None:
    line = told((*REGISTER, "--check-http", "http://user:hunter2@localhost/"), capfd)
    assert "check_http" in line
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
