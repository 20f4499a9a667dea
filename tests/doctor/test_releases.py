"""The doctor on real servers of different releases: Debian's, and another that `nox -s releases` fetches."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator

import pytest

from tests.doctor.scene import OLD, Scene
from tests.support.zookeeper import DEBIAN, DEBIANS_JARS, VERSION, Settings, ZooKeeperEnsemble, ZooKeeperServer

pytestmark = pytest.mark.releases

AGE = {"end-of-life"} if OLD else set[str]()


@pytest.fixture(autouse=True)
def two_releases() -> None:
    assert VERSION != DEBIAN, "AIOREGISTRY_ZOOKEEPER_JARS names no other release"


@pytest.fixture(scope="module")
def mixed() -> Iterator[ZooKeeperEnsemble]:
    """Two members of Debian's release and one of the other, as in the middle of an upgrade."""
    debians = Settings(jars=DEBIANS_JARS)
    with ZooKeeperEnsemble([debians, debians, Settings()]) as ensemble:
        ensemble.start_blocking()
        yield ensemble


@pytest.fixture
async def scene(mixed: ZooKeeperEnsemble) -> AsyncIterator[Scene]:
    first, *others = (member.address for member in mixed.members)
    scene = Scene(first, "", others=tuple(others))
    async with scene.stack:
        await scene.begin()
        yield scene


async def test_servers_of_mixed_releases_are_found_with_their_releases(mixed: ZooKeeperEnsemble, scene: Scene) -> None:
    findings, unknowns = await scene.diagnosis(with_age=True)
    wrong = {each.anchor: each for each in findings if each.severity != "notice"}
    assert set(wrong) == {"mixed-versions"} | AGE
    *of_debian, other = mixed.members
    assert [member.version for member in mixed.members] == [DEBIAN, DEBIAN, VERSION]
    for member in of_debian:
        assert f"{member.address} is {DEBIAN}" in wrong["mixed-versions"].text
    assert f"{other.address} is {VERSION}" in wrong["mixed-versions"].text
    if OLD:
        assert wrong["end-of-life"].place == other.address
        assert VERSION in wrong["end-of-life"].text
    assert unknowns == []


async def test_a_server_alone_is_found_if_its_release_is_no_longer_supported(
    zookeeper: ZooKeeperServer, chroot: str
) -> None:
    scene = Scene(zookeeper.address, chroot)
    async with scene.stack:
        await scene.begin()
        findings, _ = await scene.diagnosis(with_age=True)
    assert {each.anchor for each in findings if each.severity != "notice"} == AGE
