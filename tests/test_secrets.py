"""No traceback with its variables shows credentials or a session's password, whatever goes wrong on the way."""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import logging
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import aioregistry
from aioregistry import RegistryError, blocking
from aioregistry._cli import options
from aioregistry._protocol import Auth, Connect, ConnectReply
from aioregistry._secrets import Hidden, Secret
from aioregistry._session import connection, driver, incoming
from aioregistry._settings import resolve
from aioregistry.integrations.membership import Membership
from aioregistry.server import ZooKeeperServer
from tests.session.simulation import World, simulated
from tests.session.test_session import CONNECTED, RECONNECTED, client_of
from tests.support.inside import driver_of, password_of

WORD = "S3CRET"
DIGEST = [("digest", f"user:{WORD}")]

Registry = Any


def shown(error: BaseException) -> str:
    """The traceback of *error*, and of whatever led to it, with all variables that are ours."""
    frames = traceback.TracebackException.from_exception(error, capture_locals=True)
    ours: list[str] = []
    pending = [frames]
    while pending:
        one = pending.pop()
        pending += [each for each in (one.__cause__, one.__context__, *(one.exceptions or ())) if each is not None]
        ours.append(str(one))
        for frame in one.stack:
            if "/tests/" not in frame.filename:
                ours += (frame.locals or {}).values()
    return "\n".join(ours)


def test_what_is_hidden() -> None:
    secret = Secret(b"a:S3CRET")
    assert secret == b"a:S3CRET"
    assert WORD not in f"{secret!r} {secret} {[secret]} {(secret,)}"
    assert Hidden(Hidden(5)).value == 5
    assert "5" not in repr(Hidden(5))


def test_the_messages_that_carry_secrets() -> None:
    for message in (Auth("digest", Secret(b"a:S3CRET")), Connect(0, 1000, 1, Secret(b"S3CRETS3CRETS3CR"))):
        assert WORD not in repr([message, message.serialize(1), message.encode()])
        assert WORD.encode() in message.serialize(1)
    reply = b"\0\0\0\0" + b"\0\0\0\x01" + bytes(8) + b"\0\0\0\x10S3CRETS3CRETS3CR" + b"\0"
    decoded = Connect(0, 1000).decode(reply)
    assert decoded == ConnectReply(0, 1, 0, b"S3CRETS3CRETS3CR", False)
    assert WORD not in repr(decoded)


# ---------------------------------------------------------------- refused at once


WRONG: list[dict[str, Any]] = [
    {"session_timeout": "x"},
    {"connect_timeout": -1},
    {"close_timeout": 0},
    {"wait": 5},
    {"base_path": "services"},
    {"create_chroot": None},
    {"acl": ()},
    {"tls": 5},
    {"allow_read_only": "no"},
    {"max_request": 0},
    {"watches": "x"},
    {"guard": 5},
    {"on_event": 5},
    {"runtime": 5},
    {"thread": 5},
    {"lag_check": 5},
    {"nonesuch": 5},
    {"servers": "a:b:c:d"},
    {"servers": f"digest:user:{WORD}@127.0.0.1:1"},
    {"servers": f"zk://user:{WORD}@127.0.0.1:1/chroot"},
    {"auth": f"digest:user:{WORD}"},
    {"auth": {"digest": f"user:{WORD}"}.items() | {("", WORD)}},
    {"auth": [("digest", f"user:{WORD}\ud800")]},
    {"auth": [("digest", f"user:{WORD}"), WORD]},
    {"auth": [("sasl", WORD)]},
    {"auth": [("sasl", f":{WORD}")]},
    {"auth": [("sasl", f"{WORD}:")]},
    {"auth": [("sasl", f"user:{WORD}\xff".encode("latin-1"))]},
    {"auth": [("sasl", f"user:{WORD}"), ("sasl", f"other:{WORD}")]},
]


@pytest.mark.parametrize("connect", [aioregistry.connect, blocking.connect])
@pytest.mark.parametrize("wrong", WRONG, ids=lambda wrong: next(iter(wrong)))
def test_a_refused_argument(wrong: dict[str, Any], connect: Callable[..., Registry]) -> None:
    arguments = {"servers": "127.0.0.1:1", "auth": DIGEST} | wrong
    with pytest.raises((RegistryError, TypeError)) as raised:
        connect(**arguments)
    assert WORD not in shown(raised.value)


@pytest.mark.parametrize("wrong", WRONG, ids=lambda wrong: next(iter(wrong)))
def test_an_argument_that_a_membership_refuses(wrong: dict[str, Any]) -> None:
    arguments: dict[str, Any] = {"servers": "127.0.0.1:1", "auth": DIGEST, "port": 1} | wrong
    with pytest.raises((RegistryError, TypeError)) as raised:
        Membership(service="chat", **arguments)
    assert WORD not in shown(raised.value)


@pytest.mark.parametrize("option", ["auth_file", "sasl"])
@pytest.mark.parametrize(
    "text", [WORD, f"digest:user:{WORD}\n{WORD}", f"{WORD}\udcff", f"sasl:u:{WORD}\nsasl:v:{WORD}"]
)
def test_a_file_of_credentials_that_is_refused(option: str, text: str, tmp_path: Path) -> None:
    file = tmp_path / "file"
    _ = file.write_bytes(text.encode(errors="surrogateescape"))
    settings = resolve({option: str(file), "zookeeper": "127.0.0.1:1"}, {})
    arguments = argparse.Namespace(settings=settings, **settings.values)
    with pytest.raises(aioregistry.InvalidArgument) as raised:
        aioregistry.connect(**options.connection(arguments))
    assert WORD not in shown(raised.value)


@pytest.mark.parametrize(("option", "text"), [("auth_file", f"digest:user:{WORD}"), ("sasl", f"user:{WORD}")])
async def test_nobody_answers_who_has_a_file_of_credentials(option: str, text: str, tmp_path: Path) -> None:
    file = tmp_path / "file"
    _ = file.write_text(text)
    settings = resolve({option: str(file), "zookeeper": "127.0.0.1:1"}, {})
    arguments = argparse.Namespace(settings=settings, **settings.values)

    async def command() -> None:
        async with aioregistry.connect(**options.connection(arguments), connect_timeout=0.05):
            raise AssertionError

    with pytest.raises(aioregistry.ConnectTimeout) as raised:
        await command()
    assert WORD not in shown(raised.value)


def test_two_logins_of_two_files_are_refused(tmp_path: Path) -> None:
    (tmp_path / "auth").write_text("sasl:a:b")
    (tmp_path / "login").write_text("a:b")
    given = {"auth_file": str(tmp_path / "auth"), "sasl": str(tmp_path / "login")}
    settings = resolve(given, {})
    with pytest.raises(aioregistry.InvalidArgument, match="second login"):
        options.connection(argparse.Namespace(settings=settings, **settings.values))


# ---------------------------------------------------------------- failures later


@pytest.mark.parametrize("thread", [False, True])
async def test_nobody_answers(thread: bool) -> None:
    options: dict[str, Any] = {"thread": thread}
    with pytest.raises(aioregistry.ConnectTimeout) as raised:
        _ = await aioregistry.connect("127.0.0.1:1", auth=DIGEST, connect_timeout=0.05, **options)
    assert WORD not in shown(raised.value)


def test_nobody_answers_a_thread() -> None:
    with (
        pytest.raises(aioregistry.ConnectTimeout) as raised,
        blocking.connect("127.0.0.1:1", auth=DIGEST, connect_timeout=0.05),
    ):
        raise AssertionError
    assert WORD not in shown(raised.value)


@pytest.mark.parametrize("thread", [False, True])
async def test_credentials_are_refused(thread: bool) -> None:
    options: dict[str, Any] = {"thread": thread}
    async with ZooKeeperServer() as server:
        with pytest.raises(aioregistry.AuthenticationFailed) as raised:
            _ = await aioregistry.connect(server.address, auth=[("nonesuch", WORD)], **options)
    assert WORD not in shown(raised.value)


@contextlib.contextmanager
def records(name: str) -> Iterator[list[logging.LogRecord]]:
    kept: list[logging.LogRecord] = []

    class Keeping(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            kept.append(record)

    handler = Keeping()
    logging.getLogger(name).addHandler(handler)
    try:
        yield kept
    finally:
        logging.getLogger(name).removeHandler(handler)


DEFECTS = [
    (driver, "step"),
    (connection, "join_frames"),
    (connection, "is_evidence"),
    (incoming, "granted"),
    (Connect, "decode"),
    (Connect, "encode"),
]


@pytest.mark.parametrize(("where", "name"), DEFECTS, ids=lambda each: getattr(each, "__name__", each))
@simulated
async def test_a_defect_somewhere_on_the_way(where: Any, name: str, world: World) -> None:
    """The input of error reporters: raised exceptions, and those that were logged."""
    ended: list[BaseException] = []
    world.loop.set_exception_handler(lambda _, context: ended.append(context.get("exception")))  # type: ignore[arg-type]
    client = client_of(world, auth=[("digest", Secret(f"user:{WORD}".encode()))])
    await client.connected()
    password = repr(bytes(password_of(client.session)))[2:-1]
    with records("aioregistry.session") as logged, pytest.MonkeyPatch.context() as patch:

        def defect(*_: Any, **__: Any) -> Any:
            raise LookupError("a defect")

        patch.setattr(where, name, defect)
        client.servers[0].close_all()
        await asyncio.sleep(1)
    errors = [*ended, client.session.failure, *(record.exc_info[1] for record in logged if record.exc_info)]
    texts = [shown(error) for error in errors if error is not None]
    assert texts
    assert not [text for text in texts if WORD in text or password in text]
    world.loop.set_exception_handler(None)
    await client.session.close(1)


@simulated
async def test_the_password_of_a_session(world: World) -> None:
    client = await client_of(world).connected()
    password = repr(bytes(password_of(client.session)))[2:-1]
    client.servers[0].close_all()
    await client.until(RECONNECTED)
    assert client.names[0] is CONNECTED
    assert password not in repr([driver_of(client.session).machine, *client.told])
    await client.end()
