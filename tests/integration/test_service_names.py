"""Services whose names are paths: Curator keeps them as nested nodes, and Spring's documentation gives some of them."""

from __future__ import annotations

import json
from typing import Any

import pytest

import aioregistry
from aioregistry import InvalidArgument, ServiceInstance
from tests.support.judge import Judge
from tests.support.waiting import DEADLINE
from tests.support.zookeeper import ZooKeeperServer

NAME = "/a/b/anotherservice"


def document(id: str, name: str = NAME) -> bytes:
    return json.dumps({"name": name, "id": id, "address": "10.0.0.7", "port": 7000}).encode()


@pytest.mark.parametrize("name", [NAME, NAME[1:], f"{NAME}/"])
async def test_a_name_with_slashes_is_followed(
    zookeeper: ZooKeeperServer, judge: Judge, chroot: str, name: str
) -> None:
    await judge.make(f"{chroot}/services{NAME}/java", document("java"))
    async with (
        aioregistry.connect(f"{zookeeper.address}{chroot}") as registry,
        registry.discover(name, guard=None) as view,
    ):
        assert {id: instance.name for id, instance in view.snapshot.items()} == {"java": NAME}
        assert await registry.services() == ["a"]  # as Curator's queryForNames
        await judge.make(f"{chroot}/services{NAME}/other", document("other", NAME[1:]))
        await view.wait_for(lambda snapshot: set(snapshot) == {"java", "other"}, timeout=DEADLINE)


async def test_a_part_of_the_name_can_be_the_base_path(zookeeper: ZooKeeperServer, judge: Judge, chroot: str) -> None:
    await judge.make(f"{chroot}/services{NAME}/java", document("java"))
    async with (
        aioregistry.connect(f"{zookeeper.address}{chroot}", base_path="/services/a/b") as registry,
        registry.discover("anotherservice", guard=None) as view,
    ):
        assert not view.snapshot.invalid
        assert [instance.name for instance in view.snapshot.values()] == ["anotherservice"]


async def test_a_service_above_others_says_what_these_are(
    zookeeper: ZooKeeperServer, judge: Judge, chroot: str
) -> None:
    await judge.make(f"{chroot}/services{NAME}/java", document("java"))
    async with (
        aioregistry.connect(f"{zookeeper.address}{chroot}") as registry,
        registry.discover("a", guard=None) as view,
    ):
        assert {id: invalid.reason for id, invalid in view.snapshot.invalid.items()} == {
            "b": "the node is empty: is a/b a service?"
        }


async def test_a_name_with_slashes_is_registered_withdrawn_and_seen(
    zookeeper: ZooKeeperServer, judge: Judge, chroot: str
) -> None:
    mine: ServiceInstance[Any] = ServiceInstance(NAME, id="a", address="10.0.0.7", port=7000)
    async with (
        aioregistry.connect(f"{zookeeper.address}{chroot}") as registry,
        registry.discover(NAME) as view,  # with its guard, which knows withdrawals by their markers
    ):
        async with registry.register(mine) as registration:
            assert registration.path == f"{chroot}/services{NAME}/a"
            assert await view.wait_for(lambda snapshot: len(snapshot) == 1, timeout=DEADLINE) == {"a": mine}
            with pytest.raises(InvalidArgument, match="id='a'"):
                _ = registry.register(mine.replace(name=NAME[1:]))
        assert registration.withdrawn
        gone = await view.wait_for(lambda snapshot: not snapshot, timeout=DEADLINE)
        assert not gone.suspects


async def test_an_instance_goes_by_its_node_where_the_server_counts(
    zookeeper: ZooKeeperServer, judge: Judge, chroot: str
) -> None:
    counted = json.loads(document("node", "chat")) | {"serviceType": "DYNAMIC_SEQUENTIAL"}
    for id in ("node0000000000", "node0000000001", "node"):
        await judge.make(f"{chroot}/services/chat/{id}", json.dumps(counted).encode())
    await judge.make(f"{chroot}/services/chat/node0000000002", document("node", "chat"))
    async with (
        aioregistry.connect(f"{zookeeper.address}{chroot}") as registry,
        registry.discover("chat", guard=None) as view,
    ):
        assert list(view.snapshot) == ["node", "node0000000000", "node0000000001"]
        assert [instance.id for instance in view.snapshot.values()] == list(view.snapshot)
        assert view.snapshot.invalid["node0000000002"].reason == "id is 'node', but the node is 'node0000000002'"
