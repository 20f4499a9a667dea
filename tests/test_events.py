from __future__ import annotations

import pytest

import aioregistry
from aioregistry import AttemptOutcome, InvalidArgument, events
from aioregistry.testing._proxy import ZooKeeperProxy
from tests.support.inside import session_of
from tests.support.waiting import until
from tests.support.zookeeper import ZooKeeperServer


async def test_several_are_told_and_one_that_raises_harms_no_other(zookeeper: ZooKeeperServer, chroot: str) -> None:
    typed: list[events.Event] = []
    named: list[str] = []

    def broken(name: str, fields: dict[str, object]) -> None:
        fields.clear()
        raise ZeroDivisionError(name)

    hooks = [broken, lambda name, fields: named.append(name), events.typed(typed.append)]
    async with aioregistry.connect(f"{zookeeper.address}{chroot}", on_event=hooks) as registry:
        session = registry.session.id
        view = await registry.discover("chat")
        await view.aclose()
    assert [each.name for each in typed] == named
    assert {type(each) for each in typed} >= {events.SessionMoved, events.ServiceSynced}
    assert session in {each.session for each in typed if isinstance(each, events.SessionMoved)}


async def test_one_that_listens_later_is_told_until_it_is_removed(zookeeper: ZooKeeperServer, chroot: str) -> None:
    named: list[str] = []
    async with aioregistry.connect(f"{zookeeper.address}{chroot}") as registry:
        remove = session_of(registry).listen(lambda name, fields: named.append(name))
        await (await registry.discover("chat")).aclose()
        remove()
        before = list(named)
        await (await registry.discover("chat")).aclose()
    assert "discovery.synced" in before
    assert named == before


@pytest.mark.parametrize(
    ("hooks", "field"), [(7, "on_event"), ("print", "on_event"), ([print, None], "on_event[1]"), ({print}, "on_event")]
)
def test_what_cannot_be_called_is_refused(hooks: object, field: str) -> None:
    with pytest.raises(InvalidArgument) as raised:
        aioregistry.connect("zk1", on_event=hooks)  # type: ignore[call-overload]
    assert raised.value.field == field


def test_events_are_known_by_name() -> None:
    told = events.event_of("session.stall", {"seconds": 1.5, "timeout": 10.0})
    assert told == events.SessionStall(1.5, 10.0)
    with pytest.raises(KeyError):
        events.event_of("session.nosuch", {})
    assert all(name == kind.name for name, kind in events.EVENTS.items())


async def test_a_state_says_what_each_address_answered(proxy: ZooKeeperProxy, chroot: str) -> None:
    moved: dict[str, events.SessionMoved] = {}

    def note(event: events.Event) -> None:
        if isinstance(event, events.SessionMoved):
            moved.setdefault(event.state, event)

    servers = f"{proxy.address}{chroot}"
    async with aioregistry.connect(servers, session_timeout=60, on_event=events.typed(note)) as registry:
        proxy.refuse()
        proxy.cut()
        await until(lambda: "suspended" in moved)
        answers = registry.session.attempts
        await until(lambda: proxy.address in answers and answers[proxy.address].outcome is AttemptOutcome.REFUSED)
        proxy.accept()
        await until(lambda: "reconnected" in moved)
    assert all(list(event.attempts) == [proxy.address] for event in moved.values())
    assert moved["suspended"].attempts != moved["reconnected"].attempts
