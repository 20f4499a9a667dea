"""The life of a single server and of an ensemble, and the data that outlive a stop."""

from __future__ import annotations

from typing import Any, TypeAlias

import pytest

from aioregistry._errors import InvalidArgument, InvalidType, UsageError
from aioregistry.server import Ensemble, ZooKeeperServer
from tests.support import wire

Deployment: TypeAlias = ZooKeeperServer | Ensemble


@pytest.fixture(params=[ZooKeeperServer, Ensemble])
def deployment(request: pytest.FixtureRequest) -> Deployment:
    made: Deployment = request.param(tick_time=60)
    return made


def address_of(deployment: Deployment) -> str:
    return deployment.address if isinstance(deployment, ZooKeeperServer) else deployment.leader.address


@pytest.mark.parametrize(
    ("data", "error"), [("keep", InvalidArgument), ("", InvalidArgument), (None, InvalidType), (True, InvalidType)]
)
async def test_other_data_is_refused_before_anything_starts(
    deployment: Deployment, data: Any, error: type[InvalidArgument]
) -> None:
    with pytest.raises(error, match=r"^data="):
        await deployment.start(data)
    with pytest.raises(UsageError, match="does not run"):
        deployment.sweep_containers()
    async with deployment:  # which is a first start
        pass


async def test_what_does_not_run_has_no_sessions_to_end(deployment: Deployment) -> None:
    with pytest.raises(UsageError, match="does not run"):
        deployment.expire(1)
    async with deployment:
        deployment.expire(1)  # is not alive
        with pytest.raises(UsageError, match="runs already"):
            await deployment.start()


async def test_the_backup_of_what_never_ran_is_empty(deployment: Deployment) -> None:
    backup = deployment.backup()
    async with Ensemble(tick_time=60) as other:
        async with await wire.connect(other.leader.address) as client:
            await client.create("/a")
        await other.stop()
        await other.start(backup)
        async with await wire.connect(other.leader.address) as client:
            assert await client.exists("/a") is None
            config = (await client.get_data("/zookeeper/config")).data.decode()
        assert all(member.address in config for member in other.members)


async def test_a_backup_of_one_starts_the_other(deployment: Deployment) -> None:
    async with deployment, await wire.connect(address_of(deployment)) as client:
        await client.create("/a", b"data")
        backup = deployment.backup()
        await client.set_data("/a", b"later")
    for other in (ZooKeeperServer(), Ensemble()):
        await other.start(backup)
        async with await wire.connect(address_of(other)) as client:
            assert (await client.get_data("/a")).data == b"data"
        await other.__aexit__(None, None, None)
