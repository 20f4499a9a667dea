"""The registry for programs without asyncio."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import os
import signal
import socket
import subprocess
import sys
import textwrap
import threading
import time
import warnings
from collections.abc import Iterator, Mapping

import pytest

from aioregistry import (
    Added,
    Check,
    CheckState,
    ConnectTimeout,
    HandleClosed,
    InvalidArgument,
    NoInstances,
    RegistrationDisplaced,
    Removed,
    RequestTimeout,
    Resynced,
    ServiceInstance,
    SessionState,
    Status,
    UsageError,
    WarmUp,
    blocking,
)
from aioregistry.balancing import Ring
from aioregistry.testing import ZooKeeper
from tests.support.checkers import OrderedConsumer, check_beating
from tests.support.forks import outcomes_of, told_by_child
from tests.support.judge import Judge
from tests.support.zookeeper import ZooKeeperServer
from tests.threads.flood import SIZE, WAVES, Flood

DEADLINE = 100.0
T = 60.0


def instance_of(id: str = "a", payload: object = None) -> ServiceInstance[object]:
    return ServiceInstance("chat", id=id, address="10.0.0.7", port=7000, payload=payload)


@pytest.fixture
def servers(zookeeper: ZooKeeperServer, request: pytest.FixtureRequest) -> str:
    return f"{zookeeper.address}/blocking-{os.getpid()}-{abs(hash(request.node.name))}"


@pytest.fixture
def registry(servers: str) -> Iterator[blocking.Registry]:
    with blocking.connect(servers, session_timeout=T) as registry:
        yield registry


def test_it_registers_discovers_and_withdraws(registry: blocking.Registry) -> None:
    with registry.discover("chat") as chat:
        changes = chat.changes(timeout=DEADLINE)
        assert changes.start.entries == {}
        with registry.register(instance_of(payload=1)) as registration:
            assert registration.status is Status.LIVE
            assert isinstance(next(changes), Added)
            assert chat.wait_for(lambda snapshot: "a" in snapshot, DEADLINE)["a"].payload == 1
            registration.update(payload=2, timeout=DEADLINE)
            assert chat.sync(DEADLINE)["a"].payload == 2
            assert registry.services(DEADLINE) == ["chat"]
            assert registry.session.state is SessionState.CONNECTED
        assert registration.withdrawn
        assert isinstance(next(change for change in changes if isinstance(change, Removed)), Removed)
        with pytest.raises(RequestTimeout):
            chat.wait_for(lambda snapshot: "a" in snapshot, 0.01)
        changes.close()


def test_operators_may_override(registry: blocking.Registry) -> None:
    with registry.register(instance_of()) as registration, registry.discover("chat") as chat:
        override = registry.overrides.drain("chat", "a", reason="canary", weight=0.5, timeout=DEADLINE)
        assert (override.enabled, override.weight) == (None, 0.5)
        assert registry.overrides.list("chat", timeout=DEADLINE) == [override]
        chat.wait_for(lambda snapshot: snapshot.entries["a"].weight == 0.5, DEADLINE)
        assert registration.override == override
        registry.overrides.enable("chat", "a", timeout=DEADLINE)
        assert registry.overrides.list() == []
        with pytest.raises(InvalidArgument, match="timeout="):
            registry.overrides.list(timeout=-1)
        for service in ("chat", "absent"):
            with pytest.raises(InvalidArgument) as raised:
                registry.overrides.drain(service, "absent", reason="x", timeout=DEADLINE)
            assert (raised.value.field, raised.value.value) == ("id", "absent")
            with pytest.raises(InvalidArgument) as raised:
                registry.overrides.enable(service, "absent", timeout=DEADLINE)
            assert (raised.value.field, raised.value.value) == ("id", "absent")
        with pytest.raises(InvalidArgument, match="seconds="):
            registry.overrides.drain("chat", "a", reason="x", seconds=-1, timeout=DEADLINE)
    with pytest.raises(UsageError, match="asyncio"):
        _ = registry.client


def test_a_check_that_blocks_a_thread_of_its_own_decides_whether_an_instance_is_enabled(
    registry: blocking.Registry,
) -> None:
    well = threading.Event()

    async def check() -> bool:
        return await asyncio.to_thread(well.is_set)

    checks = {"db": Check(check, interval=0.05, timeout=DEADLINE, fall=1)}
    with registry.discover("chat") as chat, registry.register(instance_of(), checks=checks) as registration:
        chat.wait_for(lambda seen: "a" in seen and seen["a"].status == "failing", DEADLINE)
        for state, change in ((CheckState.PASSING, well.set), (CheckState.FAILING, well.clear)):
            change()
            enabled = state is CheckState.PASSING
            chat.wait_for(lambda seen, enabled=enabled: seen["a"].enabled is enabled, DEADLINE)  # type: ignore[misc]
            assert registration.checks["db"].state is state


def test_what_operators_said_is_removed_when_it_is_listed_and_over(registry: blocking.Registry, servers: str) -> None:
    address, _, chroot = servers.partition("/")
    path = f"/{chroot}/services-overrides/chat/a"

    async def made() -> None:
        async with Judge(address) as judge:
            await judge.make(path, b'{"enabled":false,"seconds":0.001}')

    async def is_there() -> bool:
        async with Judge(address) as judge:
            return await judge.node(path) is not None

    asyncio.run(made())
    assert registry.overrides.list(timeout=DEADLINE) == []
    assert not asyncio.run(is_there())


def test_the_end_of_a_registration_is_waited_for(registry: blocking.Registry, servers: str) -> None:
    with registry.register(instance_of(), on_displaced="stop") as first:
        with pytest.raises(RequestTimeout):
            first.wait_closed(timeout=0.01)
        assert first.status is Status.LIVE
        with blocking.connect(servers, session_timeout=T) as another, another.register(instance_of()):
            cause = first.wait_closed(timeout=DEADLINE)
    assert isinstance(cause, RegistrationDisplaced)


def test_a_handle_is_opened_by_its_first_use(servers: str) -> None:
    registry = blocking.connect(servers, session_timeout=T)
    chat = registry.discover("chat")
    assert threading.active_count() == 1 or "aioregistry" not in {each.name for each in threading.enumerate()}
    assert chat.snapshot.entries == {}
    registry.close()
    with pytest.raises(HandleClosed):
        _ = chat.snapshot
    with pytest.raises(HandleClosed):
        registry.services()


def test_what_was_never_opened_leaves_nothing(servers: str) -> None:
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        registry = blocking.connect(servers)
        registry.register(instance_of())
        registry.close()
        del registry
        gc.collect()
    assert told == []


def test_a_wrong_argument_is_told_at_once(servers: str, registry: blocking.Registry) -> None:
    with pytest.raises(InvalidArgument, match="session_timeout"):
        blocking.connect(servers, session_timeout=-1)
    with pytest.raises(InvalidArgument, match="name"):
        registry.discover("a//b")
    with pytest.raises(InvalidArgument, match="timeout"):
        registry.services(timeout=-1)
    with pytest.raises(InvalidArgument, match="port"):
        registry.register(ServiceInstance("chat", id="a", address="10.0.0.7", port=0)).open()
    with pytest.raises(TypeError, match="instance"):
        registry.register("chat")  # type: ignore[arg-type]


@pytest.mark.parametrize("timeout", [-1, 0, float("nan"), "1", True])
def test_a_wrong_timeout_of_a_stream_is_told_when_it_is_asked_for(registry: blocking.Registry, timeout: float) -> None:
    with registry.register(instance_of()) as registration, registry.discover("chat") as chat:
        for ask in (
            registry.session.states,
            registry.watch_services,
            registration.statuses,
            chat.snapshots,
            chat.changes,
        ):
            with pytest.raises(InvalidArgument) as raised:
                ask(timeout=timeout)
            assert raised.value.field == "timeout"


def test_a_predicate_that_cannot_be_called_is_refused_by_its_name(registry: blocking.Registry) -> None:
    with registry.discover("chat") as chat, pytest.raises(TypeError, match="predicate="):
        chat.wait_for(5)  # type: ignore[arg-type]


def test_many_threads_share_it(registry: blocking.Registry) -> None:
    told: list[object] = []

    def use(number: int) -> None:
        try:
            with registry.register(instance_of(f"i{number}")) as registration:
                told.append(registration.status)
                told.append(len(registry.services(DEADLINE)))
        except BaseException as error:  # noqa: BLE001 - shown by the assertion
            told.append(error)

    threads = [threading.Thread(target=use, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(DEADLINE)
    assert sorted(map(str, told)) == sorted([*["Status.LIVE"] * 8, *["1"] * 8])


def test_many_threads_pick_while_instances_come_and_go(registry: blocking.Registry) -> None:
    with registry.discover("chat") as chat, registry.register(instance_of("stays")):
        chat.sync(DEADLINE)
        balancer = chat.balancer("least-outstanding")
        told: list[BaseException] = []
        stop = threading.Event()

        def pick() -> None:
            try:
                while not stop.is_set():
                    with balancer.pick() as picked:
                        assert picked.id
            except BaseException as error:  # noqa: BLE001 - shown by the assertion
                told.append(error)

        threads = [threading.Thread(target=pick) for _ in range(4)]
        for thread in threads:
            thread.start()
        for number in range(20):
            with registry.register(instance_of(f"i{number}")):
                pass
        stop.set()
        for thread in threads:
            thread.join(DEADLINE)
        assert told == []
        chat.sync(DEADLINE)
        with balancer.pick() as picked:  # nothing is counted as outstanding any more
            assert picked.id == "stays"


def test_ten_thousand_changes_cross_to_threads_each_once_and_one_that_stands_still_delays_none(
    registry: blocking.Registry, zookeeper: ZooKeeperServer, servers: str
) -> None:
    """Each of the quick ones gets all of them, none twice; the slow one, which takes nothing meanwhile, one resync."""
    service = f"/{servers.partition('/')[2]}/services/chat"
    with registry.discover("chat") as chat, registry.register(instance_of("own")) as own:
        chat.wait_for(lambda snapshot: "own" in snapshot, DEADLINE)
        session, slow = registry.session.id, chat.changes()
        started, arrived = threading.Barrier(4), threading.Semaphore(0)
        told: list[object] = []

        def count() -> None:
            try:
                with chat.changes() as changes:
                    consumer = OrderedConsumer(changes.start.entries)
                    started.wait(DEADLINE)
                    for _ in range(WAVES * SIZE):
                        change = changes.next(DEADLINE)
                        consumer.apply(change)  # which refuses what comes twice
                        told.append(type(change))
                        arrived.release()
                    consumer.check(chat.snapshot.entries)
            except BaseException as error:  # noqa: BLE001 - shown by the assertion
                told.append(error)
                arrived.release(WAVES * SIZE)

        async def publish() -> set[str]:
            flood = Flood(zookeeper.address, service)
            for _ in range(WAVES):  # the next comes when the quick ones have this one, whatever the slow one does
                for _ in range(3 * len(await flood.wave())):
                    assert arrived.acquire(timeout=DEADLINE)
            return flood.ids

        threads = [threading.Thread(target=count) for _ in range(3)]
        for thread in threads:
            thread.start()
        started.wait(DEADLINE)
        published = asyncio.run(publish())
        for thread in threads:
            thread.join(DEADLINE)
        assert told == [Added] * (3 * WAVES * SIZE)
        assert set(chat.snapshot) == {*published, "own"}
        missed = slow.next(DEADLINE)
        assert isinstance(missed, Resynced)
        assert sorted(change.id for change in missed.changes) == sorted(published)
        own.close()
        last = slow.next(DEADLINE)  # a single change again: there was one resync for all of them
        assert isinstance(last, Removed)
        slow.close()
        check_beating(sessions=[session, registry.session.id], silence=0.0, timeout=T)


def test_a_thread_that_blocks_for_three_session_timeouts_costs_no_session(servers: str) -> None:
    timeout = 4.0
    with (
        blocking.connect(servers, session_timeout=timeout) as registry,
        registry.register(instance_of()) as registration,
    ):
        session = registry.session.id
        time.sleep(3 * timeout)
        assert registration.status is Status.LIVE
        check_beating(sessions=[session, registry.session.id], silence=0.0, timeout=timeout)


def test_a_pick_waits_for_an_instance(registry: blocking.Registry) -> None:
    with registry.discover("chat") as chat:
        with pytest.raises(NoInstances):
            chat.pick()
        with pytest.raises(RequestTimeout) as told:
            chat.balancer().pick_when_available(0.01)
        assert isinstance(told.value.__cause__, NoInstances)
        got: list[str] = []
        waiting = threading.Thread(target=lambda: got.append(chat.balancer().pick_when_available(DEADLINE).id))
        waiting.start()
        with registry.register(instance_of("a")):
            waiting.join(DEADLINE)
            assert chat.balancer(Ring()).pick_when_available("room", timeout=DEADLINE).id == "a"
        assert got == ["a"]


def test_a_balancer_tells_what_new_instances_weigh(registry: blocking.Registry) -> None:
    with (
        registry.register(instance_of("a")),
        registry.register(instance_of("b")),
        registry.discover("chat") as chat,
        registry.register(instance_of("c")),
    ):
        chat.wait_for(lambda snapshot: len(snapshot) == 3, DEADLINE)
        balancer = chat.balancer(WarmUp(seconds=3600))
        assert set(balancer.warming_up) == {"c"}
        assert chat.balancer().warming_up == {}
        assert not balancer.in_panic


def test_what_was_registered_stays_so_without_its_handle(registry: blocking.Registry) -> None:
    registry.register(instance_of()).open()
    gc.collect()
    with registry.discover("chat") as chat:
        assert set(chat.snapshot.entries) == {"a"}


def test_a_fork_is_told_in_the_child_and_harms_nothing_in_the_parent(registry: blocking.Registry) -> None:
    with registry.register(instance_of()) as registration, registry.discover("chat") as chat:

        def child() -> list[str]:
            told = outcomes_of(
                [lambda: chat.snapshot, registry.services, registration.open, lambda: registration.status]
            )
            registry.close()
            return told

        assert told_by_child(child) == ["refused"] * 4
        assert registration.status is Status.LIVE
        assert set(chat.sync(DEADLINE).entries) == {"a"}


def test_whatever_a_child_kept_of_the_parents_is_refused(registry: blocking.Registry) -> None:
    with registry.register(instance_of()), registry.discover("chat") as chat:
        chat.sync(DEADLINE)
        balancer, session, streams = chat.balancer(), registry.session, [chat.changes()]
        with balancer.pick() as picked:

            def child() -> list[str]:
                told = outcomes_of(
                    [
                        lambda: next(streams[0]),
                        lambda: session.state,
                        session.states,
                        balancer.pick,
                        lambda: balancer.refused,
                        lambda: balancer.warming_up,
                        chat.pick,
                    ]
                )
                picked.failed(OSError())
                for handle in (session, chat, registry, *streams):
                    assert repr(handle)
                del handle
                streams.clear()
                gc.collect()  # the end of a stream would be told to the parent's loop
                return told

            assert told_by_child(child) == ["refused"] * 7
        with registry.register(instance_of("b")):
            assert isinstance(streams[0].next(DEADLINE), Added)
            chat.sync(DEADLINE)
            assert {balancer.pick().id for _ in range(2)} == {"a", "b"}


def test_a_fork_while_another_thread_opens_leaves_no_lock_to_the_child() -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        registry = blocking.connect(f"127.0.0.1:{silent.getsockname()[1]}", session_timeout=1)

        def opens() -> None:
            with contextlib.suppress(ConnectTimeout):
                registry.open()

        opening = threading.Thread(target=opens)
        opening.start()
        silent.settimeout(DEADLINE)
        accepted, _ = silent.accept()

        def child() -> list[str]:
            with pytest.raises(ConnectTimeout):
                registry.open()
            registry.close()
            return ["closed"]

        assert told_by_child(child) == ["closed"]
        opening.join(DEADLINE)
        accepted.close()
        registry.close()


def test_a_later_use_opens_what_could_not_be_opened() -> None:
    with ZooKeeper() as zookeeper:
        zookeeper.stop()
        registry = blocking.connect(zookeeper.address, session_timeout=1)
        for _ in range(2):
            with pytest.raises(ConnectTimeout):
                registry.open()
        zookeeper.start()
        with registry, registry.discover("chat") as chat:
            assert chat.snapshot.entries == {}
        assert_no_thread_is_left()


def test_the_end_of_a_registration_is_told_after_its_registry_was_closed() -> None:
    with ZooKeeper() as zookeeper:
        with blocking.connect(zookeeper.address, session_timeout=T) as registry:
            closed, left = (registry.register(instance_of(id)).open() for id in "ab")
            closed.close()
            assert closed.wait_closed(DEADLINE) is None
        assert closed.wait_closed(DEADLINE) is None
        assert left.wait_closed(DEADLINE) is None
        with pytest.raises(HandleClosed):
            left.wait_live(DEADLINE)


def test_a_hook_on_the_registrys_own_thread_does_not_wait_for_itself(servers: str) -> None:
    told: dict[str, BaseException] = {}

    def hook(name: str, _: Mapping[str, object]) -> None:
        if name not in told:
            for use in (registry.services, registry.close, registry.discover("chat").open, me.drain):
                try:
                    use()
                except UsageError as error:
                    told[name] = error

    registry = blocking.connect(servers, session_timeout=T, on_event=hook)
    me = registry.register(instance_of())
    with registry, me:  # the first event comes while it opens
        assert registry.services(DEADLINE) == ["chat"]
        assert me.status is Status.LIVE
    assert told


def test_closing_ends_an_opening_in_another_thread() -> None:
    def closed(handle: blocking.Registry | blocking.View[object] | blocking.Registration[object]) -> None:
        told: list[BaseException] = []
        begun = threading.Event()

        def opens() -> None:
            begun.set()
            try:
                handle.open()
            except BaseException as error:  # noqa: BLE001 - shown by the assertion
                told.append(error)

        opening = threading.Thread(target=opens)
        opening.start()
        assert begun.wait(DEADLINE)
        handle.close()
        opening.join(DEADLINE)
        assert [type(error) for error in told] == [HandleClosed]
        with pytest.raises(HandleClosed):
            handle.open()

    with ZooKeeper() as zookeeper, blocking.connect(zookeeper.address, session_timeout=T, close_timeout=1) as registry:
        zookeeper.freeze()
        closed(registry.discover("chat"))
        closed(registry.register(instance_of()))
        closed(blocking.connect(zookeeper.address, session_timeout=T))
        assert registry.session.state is not SessionState.CLOSED
        zookeeper.thaw()
        assert registry.services(DEADLINE) == []


def test_a_signal_while_it_closes_leaves_no_thread(servers: str) -> None:
    def hook(name: str, fields: Mapping[str, object]) -> None:
        if name == "session.state" and fields["state"] == SessionState.CLOSED.value:
            signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGINT)

    registry = blocking.connect(servers, session_timeout=T, on_event=hook).open()

    def close() -> None:
        registry.close()
        threading.Event().wait(DEADLINE)

    with pytest.raises(KeyboardInterrupt):
        close()
    assert_no_thread_is_left()


def assert_no_thread_is_left() -> None:
    assert [each.name for each in threading.enumerate() if each.name.startswith("aioregistry /")] == []


PREFORK = """
import os, sys
from aioregistry import ServiceInstance, blocking

registry = blocking.connect(sys.argv[1], session_timeout=60)
chat = registry.discover("chat")
told, tells = os.pipe()
leave, stay = os.pipe()
for number in range(3):
    if os.fork() == 0:
        os.close(stay)
        me = registry.register(ServiceInstance("chat", id=f"worker-{number}", address="10.0.0.7", port=7000 + number))
        me.open()
        chat.wait_for(lambda snapshot: len(snapshot) == 3, 60)
        os.write(tells, b".")
        os.read(leave, 1)  # until all have seen all: one that comes and goes at once may not be seen
        sys.exit(0)
for _ in range(3):
    os.read(told, 1)
os.close(stay)
for _ in range(3):
    assert os.waitstatus_to_exitcode(os.wait()[1]) == 0
with registry:
    assert registry.discover("chat").sync(30).entries == {}, "each has withdrawn at its exit"
"""

BLOCKED = """
import sys
from aioregistry import blocking

with blocking.connect(sys.argv[1], session_timeout=60) as registry, registry.discover("chat") as chat:
    try:
        print("waits", flush=True)
        chat.wait_for(lambda snapshot: False)
    except KeyboardInterrupt:
        print("interrupted", registry.session.state.name, flush=True)
"""


def test_prefork_children_open_their_own_and_the_exit_closes_it(servers: str) -> None:
    done = subprocess.run([sys.executable, "-c", textwrap.dedent(PREFORK), servers], timeout=2 * DEADLINE, check=False)
    assert done.returncode == 0


def test_ctrl_c_ends_a_wait(servers: str) -> None:
    with subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(BLOCKED), servers], stdout=subprocess.PIPE, text=True
    ) as waiting:
        assert waiting.stdout is not None
        assert waiting.stdout.readline() == "waits\n"
        waiting.send_signal(signal.SIGINT)
        assert waiting.stdout.read() == "interrupted CONNECTED\n"
        assert waiting.wait(DEADLINE) == 0
