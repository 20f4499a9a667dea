"""Checked registrations on a real ZooKeeper: what is published of them, and what others see."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping
from typing import Any

import pytest

import aioregistry
from aioregistry import Check, CheckState, CommandCheck, InvalidArgument, Status
from aioregistry.integrations.membership import Membership
from aioregistry.testing._proxy import ZooKeeperProxy
from tests.integration.scene import instance_of
from tests.support.checkers import check_truthful
from tests.support.judge import Judge
from tests.support.raising import ODD, raising
from tests.support.waiting import DEADLINE, until
from tests.support.wire import Node

LONG = 60.0
NODE = "/services/chat/a"


class Patient:
    """The subject of a check: well or sick, and when it was found well."""

    def __init__(self, *, well: bool = True) -> None:
        self.well = well
        self.calls = 0
        self.successes: list[float] = []

    async def check(self) -> bool:
        self.calls += 1
        if self.well:
            self.successes.append(asyncio.get_running_loop().time())
        return self.well


def document(node: Node | None) -> Mapping[str, Any]:
    assert node is not None
    found: Mapping[str, Any] = json.loads(node.data)
    return {field: found[field] for field in ("enabled", "status") if field in found}


FAILING = {"enabled": False, "status": "failing"}


async def published(judge: Judge, path: str, expected: Mapping[str, Any]) -> Node:
    node = await judge.node_until(path, lambda node: node is not None and document(node) == expected)
    assert node is not None
    return node


async def test_sick_and_well_on_one_node(servers: str, judge: Judge, chroot: str) -> None:
    patient = Patient(well=False)
    checks = {"db": Check(patient.check, interval=0.1, fall=2)}
    path = chroot + NODE
    async with aioregistry.connect(servers, session_timeout=LONG) as registry:
        async with registry.register(instance_of("chat"), checks=checks) as registration:
            assert registration.status is Status.LIVE
            first = await published(judge, path, FAILING)
            assert first.stat.version == 0, "it was published as something else before"
            await until(lambda: patient.calls >= 3)
            status = registration.checks["db"]
            assert (status.state, status.reason) == (CheckState.STARTING, "it returned False")
            assert not registration.instance.enabled
            patient.well = True
            await published(judge, path, {})
            assert registration.checks["db"].state is CheckState.PASSING
            patient.well = False
            last = await published(judge, path, FAILING)
            assert last.stat.czxid == first.stat.czxid, "it was withdrawn"
        calls = patient.calls
        await asyncio.sleep(0.3)
        assert patient.calls == calls, "a check ran after the end"
    assert await judge.node(path) is None


async def test_what_the_owner_says_composes_with_it(servers: str, judge: Judge, chroot: str) -> None:
    patient = Patient()
    checks = {"db": Check(patient.check, interval=0.05, fall=1)}
    path = chroot + NODE
    async with (
        aioregistry.connect(servers, session_timeout=LONG) as registry,
        registry.register(instance_of("chat"), checks=checks) as registration,
    ):
        await published(judge, path, {})
        patient.well = False
        await published(judge, path, FAILING)
        await registration.update(enabled=True, payload={"load": 1})
        assert document(await judge.node(path)) == FAILING
        await registration.drain()
        assert document(await judge.node(path)) == {"enabled": False, "status": "draining"}
        patient.well = True
        await until(lambda: registration.checks["db"].state is CheckState.PASSING)
        await registration.update(payload={"load": 2})
        assert document(await judge.node(path)) == {"enabled": False, "status": "draining"}


async def test_what_the_owner_disables_says_so_until_it_enables_it_again(
    servers: str, judge: Judge, chroot: str
) -> None:
    patient = Patient()
    checks = {"db": Check(patient.check, interval=0.05, fall=1)}
    path, disabled = chroot + NODE, {"enabled": False, "status": "draining"}
    async with (
        aioregistry.connect(servers, session_timeout=LONG) as registry,
        registry.register(instance_of("chat"), checks=checks) as registration,
    ):
        await published(judge, path, {})
        await registration.update(enabled=False)
        assert document(await judge.node(path)) == disabled
        assert registration.instance.status == "draining"
        patient.well = False
        await until(lambda: registration.checks["db"].state is CheckState.FAILING)
        await published(judge, path, disabled)
        await registration.update(enabled=True)
        assert document(await judge.node(path)) == FAILING
        patient.well = True
        await published(judge, path, {})
        assert registration.instance.enabled


async def test_what_a_view_shows_is_truthful(servers: str) -> None:
    """A consumer's history of `enabled`, beside the successes that were had."""
    interval, timeout, fall = 0.1, 0.5, 2
    patient = Patient(well=False)
    loop = asyncio.get_running_loop()
    seen = [(loop.time(), False)]
    async with (
        aioregistry.connect(servers, session_timeout=LONG) as registry,
        aioregistry.connect(servers, session_timeout=LONG) as other,
        other.discover("chat") as view,
    ):

        async def follow() -> None:
            async for snapshot in view.snapshots():
                enabled = any(instance.enabled for instance in snapshot.values())
                if enabled is not seen[-1][1]:
                    seen.append((loop.time(), enabled))

        following = asyncio.create_task(follow())
        checks = {"db": Check(patient.check, interval=interval, timeout=timeout, fall=fall)}
        async with registry.register(instance_of("chat"), checks=checks):
            for round in range(6):
                patient.well = not patient.well
                await until(lambda round=round: len(seen) == round + 2)  # type: ignore[misc]
        following.cancel()
        await asyncio.wait([following])
    check_truthful(
        enabled=seen, successes=patient.successes, until=seen[-1][0], interval=interval, timeout=timeout, fall=fall,
        publishing=5.0,
    )  # fmt: skip


@pytest.mark.parametrize("kind", ["cancelled", "base", "group"])
async def test_a_check_that_raises_costs_no_session(servers: str, judge: Judge, chroot: str, kind: str) -> None:
    patient = Patient()

    async def bad() -> None:
        raising(kind)

    assert kind in ODD
    async with aioregistry.connect(servers, session_timeout=LONG) as registry:
        checks = {"bad": Check(bad, interval=0.05), "good": Check(patient.check, interval=0.05)}
        async with registry.register(instance_of("chat"), checks=checks) as registration:
            await until(lambda: patient.calls > 5)
            assert registration.checks["good"].state is CheckState.PASSING
            assert registration.checks["bad"].state is CheckState.STARTING
            assert document(await judge.node(chroot + NODE)) == FAILING
            assert registration.status is Status.LIVE


async def test_a_state_that_changed_in_an_outage_is_published_after_it(
    proxy: ZooKeeperProxy, judge: Judge, chroot: str
) -> None:
    patient = Patient()
    checks = {"db": Check(patient.check, interval=0.05, fall=1)}
    path = chroot + NODE
    async with (
        aioregistry.connect(f"{proxy.address}{chroot}", session_timeout=LONG) as registry,
        registry.register(instance_of("chat"), checks=checks) as registration,
    ):
        await published(judge, path, {})
        proxy.refuse()
        proxy.cut()
        patient.well = False
        await until(lambda: registration.checks["db"].state is CheckState.FAILING)
        assert document(await judge.node(path)) == {}
        proxy.accept()
        await published(judge, path, FAILING)


async def test_checks_that_are_wrong_are_refused_before_anything_is_done(servers: str) -> None:
    async with aioregistry.connect(servers, session_timeout=LONG) as registry:
        wrong: list[Any] = [{"db": 1}, [], {"": Patient().check}]
        for checks in wrong:
            with pytest.raises(InvalidArgument) as raised:
                _ = registry.register(instance_of("chat"), checks=checks)
            assert raised.value.field.startswith("checks")
        with pytest.raises(InvalidArgument):
            Membership(servers, "chat", port=7000, checks={"db": 1})  # type: ignore[dict-item]


async def test_a_membership_has_checks_and_shows_them(servers: str, judge: Judge, chroot: str) -> None:
    patient = Patient()
    checks = {"db": Check(patient.check, interval=0.05, fall=1), "disk": CommandCheck("true", timeout=DEADLINE)}
    membership = Membership(
        servers, "chat", id="a", address="127.0.0.1", port=7000, checks=checks,
        session_timeout=LONG, drain=0.01, wait=True, check_port=False,
    )  # fmt: skip
    async with membership:
        await published(judge, chroot + NODE, {})
        await until(lambda: membership.ready)
        shown = json.loads(json.dumps(membership.readiness().document()))["checks"]
        assert {name: each["state"] for name, each in shown.items()} == {"db": "passing", "disk": "passing"}
        patient.well = False
        await until(lambda: not membership.ready)
        readiness = membership.readiness()
        assert readiness.status == "failing"
        assert "db" in str(readiness.reason)
        assert readiness.checks["db"]["state"] == "failing"
        await published(judge, chroot + NODE, FAILING)
