"""Views that keep their last snapshot in a file, on a session in memory."""

from __future__ import annotations

import asyncio
import contextlib
import math
import subprocess
import sys
import threading
from collections.abc import AsyncIterator, Callable, Iterable
from pathlib import Path
from typing import Any

import msgspec
import pytest

from aioregistry._discovery import Discovery, Guard, View, keeper
from aioregistry._discovery.kept import Kept, from_bytes, to_bytes
from aioregistry._discovery.view import driver_of
from aioregistry._errors import InvalidArgument, NoInstances, SessionFailed
from aioregistry._model import Added, Entry, Invalid, Removed, Resynced, Suspicion, Updated
from tests.discovery.scene import BASE, CHAT, DiscoverySession, Service, chat, refuse_twice, taken
from tests.support.checkers import OrderedConsumer
from tests.support.fake_session import FakeRuntime, quiet, until
from tests.support.model_tree import ModelTree

DEADLINE = 100.0
EPOCH = 5 << 32
KNOWN_AT = 1_763_600_000.5


@pytest.fixture
def session(tree: ModelTree) -> DiscoverySession:
    return DiscoverySession(tree)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "chat.kept"


@pytest.fixture(autouse=True)
def no_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(keeper, "PAUSE", 0.001)
    monkeypatch.setattr(keeper, "REST", 0.0)


def last_known(*ids: str, as_of: int = 7, payload: Any = None) -> Kept:
    entries = {id: Entry(chat(id, payload), 0x77, 2, 3, 1, 5.0, 6.0) for id in ids}
    return Kept("chat", BASE, KNOWN_AT, as_of, entries)


def recently(*ids: str, seconds: float = 200.0, payload: Any = None) -> Kept:
    """The state that was known so long before now, by the session's clock."""
    return last_known(*ids, payload=payload)._replace(known_at=FakeRuntime().wall() - seconds)


def write(path: Path, kept: Kept) -> bytes:
    data = to_bytes(kept)
    path.write_bytes(data)
    path.chmod(0o600)
    return data


def read(path: Path) -> Kept:
    return from_bytes(path.read_bytes(), "chat", BASE)


def kept_ids(path: Path) -> list[str] | None:
    return sorted(read(path).entries) if path.exists() else None


async def synced(view: View[Any]) -> None:
    await until(lambda: view.fresh, seconds=DEADLINE)


@contextlib.asynccontextmanager
async def recalled(found: Discovery, path: Path, *ids: str, **options: Any) -> AsyncIterator[View[Any]]:
    """A view that began with these from a file."""
    write(path, last_known(*ids))
    async with asyncio.timeout(DEADLINE):
        view = await found.view("chat", keep=path, **options)
    async with view:
        yield view


# ---------------------------------------------------------------- keeping


async def test_what_is_seen_is_kept(found: Discovery, service: Service, session: DiscoverySession, path: Path) -> None:
    service.add("a", {"zone": "eu-1"})
    session.connect()
    async with found.view("chat", keep=path) as view:
        await until(lambda: kept_ids(path) == ["a"], seconds=DEADLINE)
        service.add("b")
        await until(lambda: kept_ids(path) == ["a", "b"], seconds=DEADLINE)
        service.remove("a")
        await until(lambda: kept_ids(path) == ["b"], seconds=DEADLINE)
        service.set("b", 2)
        await until(lambda: view.snapshot["b"].payload == 2, seconds=DEADLINE)
        snapshot = view.snapshot
    assert read(path) == Kept("chat", BASE, session.runtime.wall(), snapshot.as_of, dict(snapshot.entries))


async def test_a_service_that_is_empty_is_kept_as_empty(
    found: Discovery, service: Service, session: DiscoverySession, path: Path
) -> None:
    write(path, last_known("a"))
    session.connect()
    async with found.view("chat", keep=path):
        pass
    assert kept_ids(path) == []


async def test_nothing_is_kept_before_anything_was_read(
    found: Discovery, session: DiscoverySession, path: Path
) -> None:
    data = write(path, last_known("a"))
    for _ in range(3):
        async with found.view("chat", keep=path) as view:
            assert list(view.snapshot) == ["a"]
            assert view.snapshot.stale_since == KNOWN_AT
    assert path.read_bytes() == data


async def test_what_is_kept_in_an_outage_says_since_when(
    found: Discovery, service: Service, session: DiscoverySession, path: Path
) -> None:
    service.add("a")
    session.connect()
    async with found.view("chat", keep=path) as view:
        session.disconnect()
        session.runtime.asleep += 100.0  # type: ignore[attr-defined]
        since = view.snapshot.stale_since
        assert since is not None
        assert since < session.runtime.wall()
    assert read(path).known_at == since


async def test_suspects_are_kept_as_last_known_ones(
    found: Discovery, service: Service, session: DiscoverySession, path: Path
) -> None:
    for id in "abc":
        service.add(id)
    session.connect()
    async with found.view("chat", keep=path, guard=Guard()) as view:
        session.disconnect()
        for id in "abc":
            service.remove(id)
        session.reconnect()
        await until(lambda: len(view.snapshot.suspects) == 3 and view.fresh, seconds=DEADLINE)
    assert kept_ids(path) == ["a", "b", "c"]


class Meta(msgspec.Struct, frozen=True):
    zone: str


async def test_payloads_are_kept_as_they_were_read(
    found: Discovery, service: Service, session: DiscoverySession, path: Path
) -> None:
    service.add("a", {"zone": "eu-1", "load": 3})
    service.add("b", "no zone")
    session.connect()
    async with found.view("chat", keep=path, payload_type=Meta) as view:
        assert list(view.snapshot) == ["a"]
    assert {id: entry.instance.payload for id, entry in read(path).entries.items()} == {
        "a": {"zone": "eu-1", "load": 3},
        "b": "no zone",
    }


async def test_a_view_that_cannot_be_kept_is_none_the_worse(
    found: Discovery, service: Service, session: DiscoverySession, path: Path
) -> None:
    path.with_name("chat.kept.new").mkdir()
    service.add("a")
    session.connect()
    async with found.view("chat", keep=path) as view, view.changes() as changes:
        service.add("b")
        assert isinstance(await anext(changes), Added)
        assert view.fresh
    names = [name for name, _ in session.emitted]
    assert "discovery.keep_failed" in names
    assert not path.exists()


async def test_a_view_that_is_dropped_says_so(
    found: Discovery, service: Service, session: DiscoverySession, path: Path
) -> None:
    session.connect()
    dropped: list[View[Any]] = [await found.view("chat", keep=path)]
    await until(lambda: kept_ids(path) == [], seconds=DEADLINE)
    with pytest.warns(ResourceWarning, match="never closed"):
        dropped.clear()


def test_who_keeps_nothing_does_not_import_what_it_takes() -> None:
    program = "import sys, aioregistry; aioregistry.connect; print(*sorted(sys.modules))"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, timeout=60)
    modules = set(done.stdout.split())
    assert "aioregistry._discovery.view" in modules
    assert not modules & {"aioregistry._discovery.keeper", "aioregistry._discovery.kept"}


# ---------------------------------------------------------------- beginning with it


async def test_without_a_connection_a_view_begins_with_what_was_known(
    found: Discovery, session: DiscoverySession, path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async with recalled(found, path, "a", "b") as view:
        suspicion = Suspicion("file", session.runtime.wall(), math.inf)
        assert not view.fresh
        snapshot = view.snapshot
        assert snapshot == {"a": chat("a"), "b": chat("b")}
        assert snapshot.entries["a"] == Entry(chat("a"), 0x77, 2, 3, 1, 5.0, 6.0, suspicion)
        assert snapshot.suspects == {"a": suspicion, "b": suspicion}
        assert len(snapshot.confirmed) == 0
        assert (snapshot.as_of, snapshot.stale_since) == (7, KNOWN_AT)
        assert view.snapshot is snapshot
        assert repr(view) == "<View chat: 2 instances (2 suspect), stale since 1763600000.500, as of zxid 0x7>"
        async with view.changes() as changes:
            assert changes.start == snapshot
    fields = {"service": "chat", "instances": 2, "known_at": KNOWN_AT}
    assert session.emitted == [("discovery.recalled", fields)]
    assert "chat begins with 2 instances from a file" in caplog.text


async def test_a_caller_that_fails_does_not_empty_a_view_that_knows_nothing_better(
    found: Discovery, path: Path
) -> None:
    async with recalled(found, path, "a", guard=Guard()) as view:
        assert view.report_failed("a", ConnectionRefusedError()) is False
        assert list(view.snapshot) == ["a"]


async def test_those_that_are_listed_are_confirmed_and_others_are_gone(
    found: Discovery, service: Service, session: DiscoverySession, path: Path
) -> None:
    async with recalled(found, path, "a", "b") as view, view.changes() as changes:
        consumer = OrderedConsumer(changes.start.entries)
        service.add("a", {"moved": True})
        service.add("c")
        session.connect()
        await synced(view)
        (resynced,) = taken(changes)
        assert isinstance(resynced, Resynced)
        kinds = {change.id: type(change) for change in resynced.changes}
        assert kinds == {"a": Updated, "b": Removed, "c": Added}
        consumer.apply(resynced)
        consumer.check(view.snapshot.entries)
        assert view.snapshot == {"a": chat("a", {"moved": True}), "c": chat("c")}
        assert view.snapshot.suspects == {}
        assert view.snapshot.stale_since is None
        assert view.snapshot.as_of == service.tree.zxid
        await until(lambda: kept_ids(path) == ["a", "c"], seconds=DEADLINE)
        service.add("d")
        await quiet()
        for change in taken(changes):
            consumer.apply(change)
        consumer.check(view.snapshot.entries)


async def test_what_zookeeper_says_is_shown_even_where_its_zxids_are_the_same(
    found: Discovery, service: Service, session: DiscoverySession, tree: ModelTree, path: Path
) -> None:
    service.add("a", "after the history was lost")
    node = tree.nodes[f"{CHAT}/a"]
    entry = Entry(chat("a", "before"), 0, node.czxid, node.mzxid, 0, 0.0, 0.0)
    write(path, last_known()._replace(entries={"a": entry}, as_of=tree.zxid + 100))
    async with found.view("chat", keep=path, guard=Guard()) as view:
        assert view.snapshot["a"].payload == "before"
        session.connect()
        await synced(view)
        assert view.snapshot["a"].payload == "after the history was lost"


def reasons(view: View[Any]) -> dict[str, str]:
    return {id: suspicion.reason for id, suspicion in view.snapshot.suspects.items()}


@pytest.mark.parametrize(("as_of", "reason"), [(EPOCH, "disruption"), (7, "new leader")])
async def test_removals_of_many_are_held_by_the_guard(
    as_of: int, reason: str, found: Discovery, service: Service, session: DiscoverySession, path: Path
) -> None:
    service.add("a")
    write(path, last_known("a", "b", "c", as_of=as_of))
    async with found.view("chat", keep=path, guard=Guard()) as view, view.changes() as changes:
        consumer = OrderedConsumer(changes.start.entries)
        session.connect()
        await synced(view)
        assert reasons(view) == {"b": reason, "c": reason}
        assert all(suspicion.until < math.inf for suspicion in view.snapshot.suspects.values())
        service.add("b")
        await until(lambda: reasons(view) == {"c": reason}, seconds=DEADLINE)
        assert refuse_twice(view, "c")
        assert view.snapshot == {"a": chat("a"), "b": chat("b")}
        for change in taken(changes):
            consumer.apply(change)
        consumer.check(view.snapshot.entries)


async def test_removals_of_few_are_believed(
    found: Discovery, service: Service, session: DiscoverySession, path: Path
) -> None:
    service.fill(str(number) for number in range(20))
    async with recalled(found, path, *map(str, range(21)), guard=Guard()) as view:
        session.connect()
        await synced(view)
        assert "20" not in view.snapshot
        assert reasons(view) == {}


async def test_a_withdrawal_that_is_seen_before_the_first_list_is_believed(
    found: Discovery, session: DiscoverySession, service: Service, path: Path
) -> None:
    async with recalled(found, path, "a", "b", "c", guard=Guard()) as view:
        driver_of(view).departed("a", 2)
        session.connect()
        await synced(view)
        assert list(view.snapshot) == ["b", "c"]


async def test_payloads_are_converted_and_misfits_set_aside(
    found: Discovery, service: Service, session: DiscoverySession, path: Path
) -> None:
    kept = last_known("a", "c", payload={"zone": "eu-1"})
    misfit = {id: Entry(chat(id, "none"), 1, 2, 3, 0, 0.0, 0.0) for id in ("b", "d")}
    write(path, kept._replace(entries={**kept.entries, **misfit}))
    async with found.view("chat", keep=path, payload_type=Meta) as view, view.changes() as changes:
        assert {id: instance.payload for id, instance in view.snapshot.items()} == {
            "a": Meta("eu-1"),
            "c": Meta("eu-1"),
        }
        assert set(view.snapshot.suspects) == {"a", "c"}
        assert set(view.snapshot.invalid) == {"b", "d"}
        assert isinstance(view.snapshot.invalid["b"], Invalid)
        service.add("a", {"zone": "eu-2"})
        service.add("b", {"zone": "eu-3"})
        service.add("c", 3)
        session.connect()
        await synced(view)
        assert view.snapshot == {"a": chat("a", Meta("eu-2")), "b": chat("b", Meta("eu-3"))}
        assert set(view.snapshot.invalid) == {"c"}
        (resynced,) = taken(changes)
        assert {change.id: type(change) for change in resynced.changes} == {"a": Updated, "b": Added, "c": Removed}


async def test_balancers_pick_them_and_confirmed_ones_first(
    found: Discovery, service: Service, session: DiscoverySession, path: Path
) -> None:
    service.add("a")
    async with recalled(found, path, "a", "b", "c", guard=Guard()) as view:
        balancer, strict = view.balancer(panic=0), view.balancer(suspects="never")
        assert {balancer.pick().id for _ in range(3)} == {"a", "b", "c"}
        with pytest.raises(NoInstances):
            strict.pick()
        session.connect()
        await synced(view)
        assert set(reasons(view)) == {"b", "c"}
        assert {balancer.pick().id for _ in range(3)} == {strict.pick().id} == {"a"}
        service.remove("a")
        await until(lambda: "a" not in view.snapshot.confirmed, seconds=DEADLINE)
        assert {balancer.pick().id for _ in range(6)} >= {"b", "c"}


async def entered(view: View[Any]) -> View[Any]:
    async with asyncio.timeout(DEADLINE):
        return await view


async def entering(view: View[Any]) -> asyncio.Task[View[Any]]:
    task = asyncio.create_task(entered(view))
    await quiet()
    return task


async def test_with_a_connection_a_view_is_synced_when_it_is_entered(
    found: Discovery, service: Service, session: DiscoverySession, path: Path
) -> None:
    write(path, last_known("a", "b"))
    service.add("a")
    session.connect()
    async with found.view("chat", keep=path, guard=Guard()) as view:
        assert view.fresh
        assert view.snapshot == {"a": chat("a")}
        assert view.snapshot.suspects == {}


async def test_what_went_between_two_processes_went_around_a_disruption(
    found: Discovery, service: Service, session: DiscoverySession, path: Path
) -> None:
    """All sessions expired; ZooKeeper is back, and they are about to register anew."""
    write(path, recently("a", "b", "c", "d"))
    service.add("a")
    service.add("d", data=b"no instance")
    session.connect()
    async with found.view("chat", keep=path, guard=Guard()) as view, view.changes() as changes:
        assert view.fresh
        assert reasons(view) == {"b": "disruption", "c": "disruption"}
        assert list(view.snapshot) == ["a", "b", "c"]
        assert view.held_total == 2
        assert [fields["id"] for name, fields in session.emitted if name == "discovery.held"] == ["b", "c"]
        await until(lambda: kept_ids(path) == ["a", "b", "c"], seconds=DEADLINE)
        consumer = OrderedConsumer(changes.start.entries)
        service.add("b")
        await until(lambda: reasons(view) == {"c": "disruption"}, seconds=DEADLINE)
        assert refuse_twice(view, "c")
        for change in taken(changes):
            consumer.apply(change)
        consumer.check(view.snapshot.entries)
        assert list(view.snapshot) == ["a", "b"]


async def test_such_a_hold_ends_too(found: Discovery, service: Service, session: DiscoverySession, path: Path) -> None:
    write(path, recently("a", "b"))
    session.connect()
    async with found.view("chat", keep=path, guard=Guard(hold=0.01, longest=300)) as view:
        await view.wait_for(lambda snapshot: not snapshot, timeout=DEADLINE)
        assert view.held_total == 2


@pytest.mark.parametrize("case", ["old", "unguarded", "few"])
async def test_or_it_is_believed_to_be_gone(
    case: str, found: Discovery, service: Service, session: DiscoverySession, path: Path
) -> None:
    service.fill(str(number) for number in range(10))
    missing = "ab" if case == "few" else "abc"
    write(path, recently(*service.held(), *missing, seconds=3601.0 if case == "old" else 3599.0))
    session.connect()
    async with found.view("chat", keep=path, guard=None if case == "unguarded" else Guard()) as view:
        assert sorted(view.snapshot) == sorted(service.held())
        assert view.snapshot.suspects == {}
        assert view.held_total == 0


async def test_what_is_missing_has_the_type_of_the_view_or_is_left_out(
    found: Discovery, service: Service, session: DiscoverySession, path: Path
) -> None:
    kept = recently("a", "b", payload={"zone": "eu-1"})
    write(path, kept._replace(entries={**kept.entries, **last_known("c", payload={"zone": 7}).entries}))
    session.connect()
    async with found.view("chat", keep=path, payload_type=Meta, guard=Guard()) as view:
        assert {id: instance.payload for id, instance in view.snapshot.items()} == {
            "a": Meta("eu-1"),
            "b": Meta("eu-1"),
        }
        assert set(reasons(view)) == {"a", "b"}
        assert view.snapshot.invalid == {}


async def test_the_beginning_of_an_outage_is_kept(
    found: Discovery, service: Service, session: DiscoverySession, path: Path
) -> None:
    """A process that is killed meanwhile leaves a file that is not older than the outage."""
    service.add("a")
    session.connect()
    async with found.view("chat", keep=path) as view:
        await until(path.exists, seconds=DEADLINE)
        path.unlink()
        session.disconnect()
        await until(path.exists, seconds=DEADLINE)
        assert read(path).known_at == view.snapshot.stale_since


async def test_a_connection_that_is_lost_while_it_is_entered_leaves_what_was_known(
    found: Discovery, service: Service, session: DiscoverySession, path: Path
) -> None:
    write(path, last_known("a", "b"))
    session.connect()
    session.silent = True
    task = await entering(found.view("chat", keep=path))
    await until(lambda: session.unanswered > 0, seconds=DEADLINE)
    assert not task.done()
    session.silent = False
    session.disconnect()
    async with await task as view:
        assert set(reasons(view).values()) == {"file"}


@pytest.mark.parametrize("ids", [None, ()])
async def test_where_nothing_was_known_it_waits(
    ids: Iterable[str] | None, found: Discovery, service: Service, session: DiscoverySession, path: Path
) -> None:
    if ids is not None:
        write(path, last_known(*ids))
    service.add("a")
    task = await entering(found.view("chat", keep=path))
    await until(lambda: session.observers, seconds=DEADLINE)
    assert not task.done()
    session.connect()
    async with await task as view:
        assert view.fresh
        assert list(view.snapshot) == ["a"]


async def test_a_session_that_failed_is_no_outage(found: Discovery, session: DiscoverySession, path: Path) -> None:
    write(path, last_known("a"))
    session.fail(SessionFailed("credentials"))
    with pytest.raises(SessionFailed):
        _ = await entered(found.view("chat", keep=path))


async def test_what_another_view_has_read_since_is_newer_than_the_file(
    found: Discovery, service: Service, session: DiscoverySession, path: Path
) -> None:
    write(path, last_known("a", "b"))
    service.add("c")
    session.connect()
    async with found.view("chat"):
        session.disconnect()
        async with found.view("chat", keep=path, guard=Guard()) as view:
            assert not view.fresh
            assert list(view.snapshot) == ["c"]
            assert view.snapshot.suspects == {}
        assert kept_ids(path) == ["c"]


# ---------------------------------------------------------------- bad input


@pytest.mark.parametrize(
    ("kept", "reason"),
    [
        (last_known()._replace(service="mail"), r"service='mail', not of 'chat'"),
        (last_known("a")._replace(base_path="/staging/services"), r"base_path='/staging/services', not of '/services'"),
    ],
)
@pytest.mark.parametrize("connected", [True, False])
async def test_a_file_of_another_is_refused_and_left_alone(
    kept: Kept, reason: str, connected: bool, found: Discovery, session: DiscoverySession, path: Path
) -> None:
    data = write(path, kept)
    if connected:
        session.connect()
    with pytest.raises(InvalidArgument, match=reason) as raised:
        _ = await entered(found.view("chat", keep=path))
    assert (raised.value.field, raised.value.value) == ("keep", str(path))
    assert path.read_bytes() == data
    assert found._followers == {}


async def test_two_services_are_not_kept_in_one_file(
    found: Discovery, service: Service, session: DiscoverySession, path: Path
) -> None:
    session.connect()
    path.with_name("link").symlink_to(path)
    async with found.view("chat", keep=path), found.view("chat", keep=path):
        with pytest.raises(InvalidArgument, match="where the view of 'chat' is kept") as raised:
            _ = found.view("mail", keep=path.with_name("link"))
        assert (raised.value.field, raised.value.value) == ("keep", path.with_name("link"))
    path.unlink()
    async with found.view("mail", keep=path):
        pass
    assert from_bytes(path.read_bytes(), "mail", BASE).entries == {}


async def test_a_view_of_the_root_is_kept_as_of_the_root(session: DiscoverySession, path: Path) -> None:
    write(path, last_known("a")._replace(base_path="/"))
    found = Discovery(session.as_session, "")
    async with found.view("chat", keep=path) as view:
        assert list(view.snapshot) == ["a"]
    await found.aclose()


@pytest.mark.parametrize("damage", [lambda data: data[:-9], lambda data: b"", lambda data: b"\0" * len(data)])
async def test_a_damaged_file_is_set_aside_and_the_view_begins_without(
    damage: Callable[[bytes], bytes], found: Discovery, service: Service, session: DiscoverySession, path: Path
) -> None:
    path.write_bytes(damage(to_bytes(last_known("a"))))
    service.add("b")
    session.connect()
    async with found.view("chat", keep=path) as view:
        assert list(view.snapshot) == ["b"]
    assert kept_ids(path) == ["b"]
    assert path.with_name("chat.kept.damaged").exists()


@pytest.mark.parametrize("keep", ["", 7, b"chat.kept", "/absent/chat.kept", "/dev/null"])
async def test_where_nothing_can_be_kept_is_refused_at_once(keep: Any, found: Discovery) -> None:
    with pytest.raises(InvalidArgument) as raised:
        _ = found.view("chat", keep=keep)
    assert (raised.value.field, raised.value.value) == ("keep", keep)


async def test_a_disk_that_hangs_takes_no_more_than_closing_has(
    found: Discovery, service: Service, session: DiscoverySession, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The registry's ``close_timeout`` is one bound for all that is closed."""
    go_on = threading.Event()
    monkeypatch.setattr(keeper.KeptFile, "write", lambda self, data: go_on.wait(60))
    session.connect()
    view = await found.view("chat", keep=path)
    found.close_by(asyncio.get_running_loop().time() + 0.05)
    try:
        async with asyncio.timeout(keeper.LAST_WRITE / 2):
            await view.aclose()
    finally:
        go_on.set()
    reasons = [fields["reason"] for name, fields in session.emitted if name == "discovery.keep_failed"]
    assert [str(reason).startswith("the disk did not answer within") for reason in reasons] == [True]
