from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest

from aioregistry._errors import InvalidArgument, UsageError
from aioregistry.server import Ensemble, Member
from tests.server.conftest import Connect
from tests.support import wire
from tests.support.wire import CREATED, EPHEMERAL, Wire

SOON = 0.05


@pytest.fixture
async def ensemble() -> AsyncIterator[Ensemble]:
    async with Ensemble(tick_time=0.1, sync_limit=3, min_session_timeout=0.2) as ensemble:
        yield ensemble


@pytest.fixture
async def patient() -> AsyncIterator[Ensemble]:
    """Nothing happens here by itself while a test runs."""
    async with Ensemble(tick_time=60) as ensemble:
        yield ensemble


async def silent(session: Wire, xid: int) -> bool:
    """Whether a request is still unanswered after a while."""
    try:
        async with asyncio.timeout(SOON):
            await session.reply(xid)
    except TimeoutError:
        return True
    return False


class TestTogether:
    async def test_one_history(self, patient: Ensemble, connect: Connect) -> None:
        sessions = [await connect(member.address) for member in patient.members]
        for session in sessions:
            await session.add_watch("/")
        for number, session in enumerate(sessions):
            await session.create(f"/{number}")
        for session in sessions:
            await session.sync()
            assert [event.path for event in session.events] == ["/0", "/1", "/2"]
            assert len(await session.get_children("/")) == 4
        assert patient.connect_string == ",".join(member.address for member in patient.members)

    async def test_the_first_epoch_and_the_configuration(self, patient: Ensemble, connect: Connect) -> None:
        assert patient.leader.zxid == 1 << 32
        session = await connect(patient.leader.address)
        config = (await session.get_data("/zookeeper/config")).data.decode()
        assert all(member.address in config for member in patient.members)

    async def test_ephemeral_nodes_go_everywhere(self, patient: Ensemble, connect: Connect) -> None:
        here, there = [await connect(member.address) for member in patient.followers]
        await here.create("/mine", flags=EPHEMERAL)
        assert await there.exists("/mine", watch=True) is not None
        await here.close()
        assert (await there.event()).path == "/mine"

    async def test_a_session_expires_for_all(self, patient: Ensemble, connect: Connect) -> None:
        session = await connect(patient.followers[0].address)
        patient.followers[1].expire(session.session_id)
        await session.closed()

    async def test_a_restart_with_data_and_without(self, connect: Connect) -> None:
        ensemble = Ensemble(tick_time=60)
        await ensemble.start()
        addresses = ensemble.connect_string
        await (await connect(ensemble.leader.address)).create("/a")
        backup = ensemble.backup()
        await ensemble.stop()
        for data, there in (("kept", True), ("lost", False), (backup, True)):
            await ensemble.start(data)  # type: ignore[arg-type]
            assert ensemble.connect_string == addresses
            assert (await (await connect(ensemble.leader.address)).exists("/a") is not None) == there
            with pytest.raises(UsageError):
                await ensemble.start()
            await ensemble.stop()
        with pytest.raises(UsageError):
            _ = ensemble.leader


class TestMoving:
    async def test_the_connection_left_behind_reads_and_cannot_write(self, patient: Ensemble, connect: Connect) -> None:
        here, there = patient.followers
        left = await connect(here.address)
        await left.create("/a", b"old")
        moved = await connect(there.address, session_id=left.session_id, password=left.password)
        await moved.set_data("/a", b"new")
        assert (await left.get_data("/a")).data == b"new"
        xid = left.send(wire.set_data("/a", b"left"))
        with pytest.raises(wire.WireClosed):
            await left.reply(xid)
        assert (await moved.get_data("/a")).data == b"new"


class TestLagging:
    async def test_reads_are_stale_until_a_sync(self, patient: Ensemble, connect: Connect) -> None:
        follower = patient.followers[0]
        reader, writer = await connect(follower.address), await connect(patient.leader.address)
        follower.lag(SOON)
        await reader.exists("/a", watch=True)
        await writer.create("/a")
        assert await reader.exists("/a") is None
        await reader.sync()
        assert await reader.exists("/a") is not None
        assert [event.type for event in reader.events] == [CREATED]

    async def test_own_writes_are_read(self, patient: Ensemble, connect: Connect) -> None:
        follower = patient.followers[0]
        follower.lag(SOON)
        session = await connect(follower.address)
        await session.create("/a")
        assert await session.exists("/a") is not None

    async def test_a_client_ahead_of_it_is_refused(self, patient: Ensemble, connect: Connect) -> None:
        follower = patient.followers[0]
        follower.lag(60)
        session = await connect(patient.leader.address)
        await session.create("/a")
        with pytest.raises(wire.WireClosed):
            await wire.connect(follower.address, last_zxid=session.zxid)

    async def test_order_is_kept_when_it_lags_no_more(self, patient: Ensemble, connect: Connect) -> None:
        follower = patient.followers[0]
        reader, writer = await connect(follower.address), await connect(patient.leader.address)
        await reader.add_watch("/")
        follower.lag(SOON)
        await writer.create("/a")
        follower.lag(0)
        await writer.create("/b")
        assert [(await reader.event()).path, (await reader.event()).path] == ["/a", "/b"]

    async def test_a_leader_may_take_a_sync_for_a_read(self, patient: Ensemble, connect: Connect) -> None:
        reader, writer = await connect(patient.leader.address), await connect(patient.followers[0].address)
        patient.leader.lag(60.0, syncs=False)
        await writer.create("/a")
        await reader.sync()
        assert await reader.exists("/a") is None
        patient.leader.lag(60.0)
        assert await silent(reader, reader.send(wire.sync("/")))


class TestCutOff:
    async def test_it_answers_pings_and_stale_reads_only(self, patient: Ensemble, connect: Connect) -> None:
        follower = patient.followers[0]
        session, writer = await connect(follower.address), await connect(patient.leader.address)
        follower.cut_off()
        await writer.create("/a")
        await session.ping()
        assert await session.exists("/a") is None
        assert await silent(session, session.send(wire.sync("/")))

    async def test_healed_in_time_it_goes_on(self, patient: Ensemble, connect: Connect) -> None:
        follower = patient.followers[0]
        session, writer = await connect(follower.address), await connect(patient.leader.address)
        follower.cut_off()
        await writer.create("/a")
        xid = session.send(wire.create("/b"))
        assert await silent(session, xid)
        follower.heal()
        follower.heal()
        assert (await session.reply(xid)).error == 0
        assert await session.exists("/a") is not None
        assert await writer.exists("/b") is not None

    async def test_its_sessions_expire_while_it_answers_on(self, connect: Connect) -> None:
        async with Ensemble(tick_time=0.05, sync_limit=1000) as ensemble:
            follower = ensemble.followers[0]
            session = await connect(follower.address, timeout_ms=100)
            watcher = await connect(ensemble.leader.address, timeout_ms=1000)
            await session.create("/mine", flags=EPHEMERAL)
            await watcher.ask(wire.exists("/mine", watch=True))
            follower.cut_off()
            gone = asyncio.create_task(watcher.event())
            while not gone.done():
                await session.ping()
                await watcher.ping()
            assert (await session.get_data("/mine")).stat.owner == session.session_id
            follower.heal()
            await session.closed()

    async def test_it_notices_and_stops_serving_until_it_heals(self, ensemble: Ensemble, connect: Connect) -> None:
        follower = ensemble.followers[0]
        session = await connect(follower.address)
        follower.cut_off()
        await session.closed()
        with pytest.raises((wire.WireClosed, ConnectionError)):
            await wire.connect(follower.address)
        await (await connect(ensemble.leader.address)).create("/a")
        follower.heal()
        again = await connect(follower.address, session_id=session.session_id, password=session.password)
        assert await again.exists("/a") is not None

    async def test_a_leader_is_replaced(self, ensemble: Ensemble, connect: Connect) -> None:
        old = ensemble.leader
        follower = await connect(ensemble.followers[0].address)
        xid = follower.send(wire.create("/a"))
        await follower.reply(xid)
        old.cut_off()
        assert await silent(follower, follower.send(wire.create("/lost")))
        await follower.closed()
        assert ensemble.leader is not old
        assert ensemble.leader.zxid >> 32 == 2
        again = await connect(ensemble.leader.address, session_id=follower.session_id, password=follower.password)
        assert await again.exists("/lost") is None
        old.heal()
        assert await (await connect(old.address)).exists("/a") is not None
        assert old.mode == "follower"

    async def test_without_a_majority_nobody_serves(self, ensemble: Ensemble, connect: Connect) -> None:
        session = await connect(ensemble.leader.address)
        for follower in ensemble.followers:
            follower.cut_off()
        await session.closed()
        with pytest.raises(UsageError):
            _ = ensemble.leader
        for member in ensemble.members:
            member.heal()
        await connect(ensemble.leader.address, session_id=session.session_id, password=session.password)


class TestLeaders:
    async def test_changing_ends_connections_and_begins_an_epoch(self, patient: Ensemble, connect: Connect) -> None:
        sessions = [await connect(member.address) for member in patient.members]
        old, chosen = patient.leader, patient.followers[1]
        patient.change_leader(chosen)
        for session in sessions:
            await session.closed()
        assert patient.leader is chosen
        patient.change_leader()
        assert patient.leader is not chosen
        assert patient.leader.zxid == 3 << 32
        assert len([member for member in patient.members if member.serving]) == 3
        assert old in patient.members

    async def test_a_leader_that_goes_down_is_replaced(self, patient: Ensemble, connect: Connect) -> None:
        old = patient.leader
        session = await connect(patient.followers[0].address)
        await old.stop()
        await session.closed()
        assert patient.leader is not old
        await (await connect(patient.leader.address)).create("/a")
        await old.start()
        assert await (await connect(old.address)).exists("/a") is not None
        with pytest.raises(UsageError):
            await old.start()

    async def test_a_follower_that_goes_down_disturbs_nobody(self, patient: Ensemble, connect: Connect) -> None:
        session = await connect(patient.leader.address)
        await patient.followers[0].stop()
        assert await session.create("/a") == "/a"

    async def test_one_member_is_an_ensemble_too(self, connect: Connect) -> None:
        async with Ensemble(1) as ensemble:
            session = await connect(ensemble.connect_string)
            await session.create("/a")
            await ensemble.leader.stop()
            await session.closed()
            member: Member = ensemble.members[0]
            assert "not serving" in repr(member)


def test_sizes() -> None:
    with pytest.raises(InvalidArgument):
        Ensemble(0)
