from __future__ import annotations

import asyncio
import json
import re
import signal
import subprocess
import sys
from asyncio.subprocess import DEVNULL, PIPE
from pathlib import Path

import pytest

from aioregistry._cli import main, options
from aioregistry._settings import DEFAULTS
from tests.cli.command import Command, outcome
from tests.support import tls
from tests.support.judge import Judge
from tests.support.zookeeper import ZooKeeperServer

SECRET = "hunter2-cannot-be-shown"
ALL = ("list", "watch", "register", "demo", "server")


def test_the_defaults_are_those_of_the_settings() -> None:
    assert dict(DEFAULTS) == options._DEFAULTS
    assert set(options._OPTIONS) == set(DEFAULTS)


@pytest.mark.parametrize("command", ALL)
def test_what_all_commands_share(command: str, capfd: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main([command, "--help"])
    stdout = capfd.readouterr().out
    assert all(f" {option}" in stdout for option in ("--config", "--log-format", "-v"))
    secured = command not in ("demo", "server")
    assert all((f" {option} " in stdout) is secured for option in ("--tls-ca", "--auth-file", "--sasl"))


async def test_by_tls_from_all_sources(zookeeper: ZooKeeperServer, judge: Judge, chroot: str, tmp_path: Path) -> None:
    await judge.make(f"{chroot}/services/chat")
    authority, pair = str(tls.AUTHORITY), str(tls.KEY_AND_CERTIFICATE)
    (tmp_path / "ca.pem").write_bytes(tls.AUTHORITY.read_bytes())
    async with tls.TlsRelay((zookeeper.host, zookeeper.port)) as relay:
        servers = f"localhost:{relay.port}{chroot}"
        (tmp_path / "a.toml").write_text(f"zookeeper = {servers!r}\ntls-ca = 'ca.pem'\n")
        listed = (0, "chat\n", "")
        assert await outcome("list", "--zookeeper", servers, "--tls-ca", authority, "--tls-cert", pair) == listed
        assert await outcome("list", AIOREGISTRY_ZOOKEEPER=servers, AIOREGISTRY_TLS_CA=authority) == listed
        assert await outcome("list", "--config", str(tmp_path / "a.toml")) == listed
        assert await outcome("list", AIOREGISTRY_CONFIG=str(tmp_path / "a.toml")) == listed
        # Without the authority nobody is trusted.
        code, _, stderr = await outcome(
            "list", "--session-timeout", "1", "--zookeeper", servers, "--tls-cert", pair, SSL_CERT_FILE="/dev/null"
        )
        assert code == 1
        assert "certificate" in stderr


async def test_credentials_from_a_file(zookeeper: ZooKeeperServer, chroot: str, tmp_path: Path) -> None:
    file = tmp_path / "auth"
    file.write_text("# of the tests\ndigest:ada:lovelace\n")
    servers = ("--zookeeper", f"{zookeeper.address}{chroot}")
    code, stdout, stderr = await outcome("list", "-vv", "--auth-file", str(file), *servers)
    assert (code, stdout) == (0, "")
    assert "lovelace" not in stderr
    file.write_text(f"no-such-scheme:{SECRET}")
    code, _, stderr = await outcome("list", "--auth-file", str(file), *servers)
    assert code == 2
    file.write_text(f"nosuchscheme:{SECRET}")
    code, _, again = await outcome("list", "--auth-file", str(file), *servers)
    assert code == 1
    assert SECRET not in stderr + again


@pytest.mark.parametrize(
    ("given", "named"),
    [
        (("--tls-ca", "{folder}/nosuch.pem"), ["--tls-ca=", "nosuch.pem", "cannot be read"]),
        (("--tls-ca", "{folder}"), ["--tls-ca=", "cannot be read"]),
        (("--tls-ca", "{folder}/text"), ["--tls-ca=", "text", "has no certificate"]),
        (("--tls-cert", "{folder}/text"), ["--tls-cert=", "text", "is not a certificate"]),
        (("--tls-cert", "{folder}/cert.pem"), ["--tls-cert=", "cert.pem", "its key in the same file"]),
        (("--tls-cert", "{folder}/cert.pem", "--tls-key", "{folder}/text"), ["--tls-cert=", "text"]),
        (("--tls-key", "{folder}/text"), ["--tls-key=", "give that as tls-cert"]),
        (("--auth-file", "{folder}/nosuch"), ["--auth-file=", "nosuch", "cannot be read"]),
        (("--auth-file", "{folder}/text"), ["--auth-file=", "text", "line 1"]),
        (("--auth-file", "{folder}/bytes"), ["--auth-file=", "bytes", "is not UTF-8"]),
        (("--sasl", "{folder}/nosuch"), ["--sasl=", "nosuch", "cannot be read"]),
        (("--sasl", "{folder}/text"), ["--sasl=", "text", "line 1"]),
        (("--config", "{folder}/nosuch.toml"), ["--config=", "nosuch.toml", "cannot be read"]),
        (("--config", "{folder}/text"), ["--config=", "text", "is not TOML"]),
        (("--config", "{folder}/bytes"), ["--config=", "bytes", "is not UTF-8"]),
        (("--log-format", "xml"), ["--log-format=", "xml"]),
    ],
    ids=str,
)
def test_files_that_cannot_be_used(
    tmp_path: Path, given: tuple[str, ...], named: list[str], capfd: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "text").write_text(SECRET)
    (tmp_path / "bytes").write_bytes(b"\xff\xfe")
    (tmp_path / "cert.pem").write_bytes(tls.AUTHORITY.read_bytes())
    assert main(["list", *(each.format(folder=tmp_path) for each in given)]) == 2
    shown = capfd.readouterr()
    assert shown.out == ""
    (line,) = shown.err.splitlines()
    assert all(each in line for each in named)
    assert SECRET not in line


def test_an_encrypted_key_does_not_ask_the_terminal(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    key = tmp_path / "key.pem"
    made = ("openssl", "genrsa", "-aes128", "-passout", f"pass:{SECRET}", "-out", str(key), "1024")
    subprocess.run(made, check=True, capture_output=True)
    assert main(["list", "--tls-cert", str(tls.KEY_AND_CERTIFICATE), "--tls-key", str(key)]) == 2
    assert f"--tls-key={str(key)!r}: is encrypted" in capfd.readouterr().err


@pytest.mark.parametrize("variable", ["AIOREGISTRY_SESSION_TIMEOUT", "AIOREGISTRY_BASE_PATH", "AIOREGISTRY_ZOOKEEPER"])
def test_errors_name_the_variable(
    variable: str, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv(variable, "a/../b")
    assert main(["list"]) == 2
    assert capfd.readouterr().err.startswith(f"aioregistry: {variable}='")


async def test_the_log_on_demand(zookeeper: ZooKeeperServer, chroot: str) -> None:
    servers = ("--zookeeper", f"{zookeeper.address}{chroot}")
    code, stdout, stderr = await outcome("list", "-v", *servers)
    assert (code, stdout) == (0, "")
    assert stderr
    assert all(line.startswith("aioregistry: ") for line in stderr.splitlines())
    assert any(line.startswith("aioregistry: info: session 0x") for line in stderr.splitlines())


async def test_everything_on_stderr_is_json_on_demand(zookeeper: ZooKeeperServer, chroot: str) -> None:
    servers = ("--zookeeper", f"{zookeeper.address}{chroot}")
    register = ("register", "chat", "--address", "10.0.0.7", "--port", "7000")
    async with Command(*register, "-v", "--log-format", "json", *servers) as command:
        while (line := json.loads(await command.error_line())).get("status") != "live":
            assert {"time", "level", "logger", "message"} <= set(line)
        assert (line["service"], line["id"], line["level"]) == ("chat", "10.0.0.7:7000", "info")
        assert line["path"] == f"{chroot}/services/chat/10.0.0.7:7000"
        command.send(signal.SIGTERM)
        code, _, stderr = await command.end()
    assert code == 0
    assert all(json.loads(line)["message"] for line in stderr.splitlines())

    for format in ({"AIOREGISTRY_LOG_FORMAT": "json"}, {"AIOREGISTRY_LOG_FORMAT": "json", "AIOREGISTRY_VERBOSE": "x"}):
        code, _, stderr = await outcome("list", "nosuch", *servers, **format)
        assert code == (2 if "AIOREGISTRY_VERBOSE" in format else 1)
        (line,) = map(json.loads, stderr.splitlines())
        assert line["level"] == "error"
        assert line["error"] in ("RegistryError", "InvalidArgument")


async def test_an_outage_is_told_once(chroot: str) -> None:
    for given in ((), ("-v",), ("--log-format", "json"), ("-v", "--log-format", "json")):
        async with Command(
            *("register", "chat", "--address", "10.0.0.7", "--port", "7000", "--session-timeout", "0.6"),
            *("--zookeeper", "127.0.0.1:1", *given),
        ) as command:
            lines = await command.error_lines_until("no connection to ZooKeeper for")
            command.send(signal.SIGTERM)
            code, _, stderr = await command.end()
        assert code == 0
        # A first line without a reason is followed by one with it; what must not be is the same by two tellers.
        outage = re.compile(r'no connection to ZooKeeper for ([^;"]*)')
        told = outage.findall("\n".join([*lines, stderr]))
        assert len(told) == len(set(told)), told
        assert ('"level": "warning"' if "json" in given else "warning: ") in lines[-1]
        if given == ("--log-format", "json"):
            told_of = [json.loads(line) for line in lines if "no connection" in line]
            assert {"event", "seconds"} <= set(told_of[-1])
        elif not given:
            assert re.search(r"; since 20\d\d-\d\d-\d\d \d\d:\d\d:\d\d UTC", lines[-1])
            assert "; what to do: " in lines[-1]


async def test_a_log_that_nobody_reads_holds_up_nothing(zookeeper: ZooKeeperServer, chroot: str) -> None:
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "aioregistry", "list", "-vv", "--zookeeper", f"{zookeeper.address}{chroot}"),
        stdin=DEVNULL, stdout=PIPE, stderr=PIPE,
    )  # fmt: skip
    assert process.stderr is not None
    process._transport.get_pipe_transport(2).close()  # type: ignore[attr-defined] # the only way
    async with asyncio.timeout(20):
        assert await process.wait() == 0
