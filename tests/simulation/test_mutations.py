"""The judges can fail: deliberate mistakes in the library, each found by the checker named for it."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import Any, Final

import msgspec
import pytest

from aioregistry import CheckState, Override, SessionState, Status
from aioregistry import _document as document
from aioregistry._discovery import barrier, guard, nodes, subscriptions
from aioregistry._discovery.departures import Departures
from aioregistry._discovery.follower import Follower
from aioregistry._discovery.mirror import Mirror
from aioregistry._discovery.overriding import Overriding as Overridden
from aioregistry._errors import Throttled
from aioregistry._health import loop_lag, runner, table
from aioregistry._health.table import CheckHealth, Result
from aioregistry._markers import read_marker
from aioregistry._overrides import ServiceOverrides
from aioregistry._protocol import Delete, EventKind, Exists, Multi, Sync
from aioregistry._registration import exchanges, publication, remedies, votes, worker
from aioregistry._registration import plan as plans
from aioregistry._registration.exchanges import Exchanges
from aioregistry._registration.handle import Registration
from aioregistry._registration.plan import PLANS, Action, Goal, Sight
from aioregistry._registration.progress import Progress
from aioregistry._registration.remedies import REMEDIES, Remedy
from aioregistry._registration.transactions import creation
from aioregistry._registration.worker import Worker
from aioregistry._session import (
    backoff,
    connection,
    connector,
    decisions,
    incoming,
    isolation,
    keepalive,
    pending,
    states,
)
from aioregistry.balancing._arrivals import Arrivals
from tests.simulation.process import MachineRuntime
from tests.simulation.profiles import CLOCKS, TWINS
from tests.simulation.world import Profile, World

Patch = pytest.MonkeyPatch
SEEDS: Final = 40
"""Within so many worlds a mistake must be found."""

CALM: Final = Profile(
    length=50.0,
    every=3.0,
    processes=(3, 4),
    services=1,
    paces=(0.0,),
    timeouts=(4.0,),
    sampling=0.5,
    most_turns=400_000,
)
RIVALS: Final = replace(CALM, every=1.5, weights=TWINS, processes=(2, 2), updates=(None,))


def with_faults(*kinds: str, profile: Profile = CALM, **changes: Any) -> Profile:
    return replace(profile, weights=dict.fromkeys(kinds, 1), **changes)


# ---------------------------------------------------------------- the mistakes


def no_owner_check(patch: Patch) -> None:
    saw = Exchanges._saw

    def saw_as_ours(self: Exchanges, sight: Any) -> None:
        if sight.node is not None:
            sight = sight._replace(node=sight.node._replace(owner=self._session.id))
        saw(self, sight)

    patch.setattr(Exchanges, "_saw", saw_as_ours)


def unfenced_takeover(patch: Patch) -> None:
    patch.setattr(
        worker,
        "takeover",
        lambda target, data, version: Multi([Delete(target.path, version), creation(target, data)]),
    )


def claim_forgotten(patch: Patch) -> None:
    saw = Exchanges._saw

    def saw_for_the_first_time(self: Exchanges, sight: Any) -> None:
        self.claim = sight.zxid
        saw(self, sight)

    patch.setattr(Exchanges, "_saw", saw_for_the_first_time)


def blind_delete(patch: Patch) -> None:
    blind = {
        sight: MappingProxyType({**row, Goal.WITHDRAWN: Action.WITHDRAW}) if sight is not Sight.ABSENT else row
        for sight, row in PLANS.items()
    }
    patch.setattr(plans, "PLANS", blind)
    patch.setattr(exchanges, "withdrawal", lambda target, version, czxid, *, marked: Delete(target.path, -1))


def no_resync(patch: Patch) -> None:
    connected = Mirror.connected

    def connected_as_before(self: Mirror, *, one_shot: bool, history: int) -> None:
        connected(self, one_shot=one_shot, history=history)
        if self._ever_synced:
            self._due.clear()
            self.synced = True

    patch.setattr(Mirror, "connected", connected_as_before)
    no_audit(patch)  # which would find what was missed


def versions_instead_of_zxids(patch: Patch) -> None:
    observe = Mirror._observe

    def observe_versions(self: Mirror, name: str, observation: Any, zxid: int) -> None:
        known = self.entries.get(name)
        if known is not None and type(observation) is tuple and observation[1].version == known.version:
            return
        observe(self, name, observation, zxid)

    patch.setattr(Mirror, "_observe", observe_versions)


def removed_straight_from_an_event(patch: Patch) -> None:
    event = Mirror.event

    def event_as_news(self: Mirror, kind: EventKind, name: str) -> None:
        if kind is EventKind.DELETED and name in self.entries and self.synced:
            self._apply(name, None, self._horizon)
        event(self, kind, name)

    patch.setattr(Mirror, "event", event_as_news)


def live_by_ping(patch: Patch) -> None:
    """A read in the place of the sync: what any server answers by itself."""
    patch.setattr(keepalive, "Sync", Exists)
    patch.setattr(pending, "_EVIDENT", pending._EVIDENT | {Exists.opcode})


def evidence_by_arrival(patch: Patch) -> None:
    received = connection.Connection._reply_received

    def received_now(self: Any, frame: bytes, xid: int) -> None:
        before = self.evidence
        received(self, frame, xid)
        if self.evidence != before:
            self.evidence = self._runtime.boot()

    patch.setattr(connection.Connection, "_reply_received", received_now)


def a_clock_that_sleeps(patch: Patch) -> None:
    patch.setattr(MachineRuntime, "boot", MachineRuntime.monotonic)


def live_while_suspended(patch: Patch) -> None:
    status: Any = vars(Registration)["status"].fget

    def hopeful(self: Registration[Any]) -> Status:
        known = status(self)
        return Status.LIVE if known in (Status.UNCERTAIN, Status.PRESUMED_GONE) else known

    patch.setattr(Registration, "status", property(hopeful))


def fresh_by_connection(patch: Patch) -> None:
    patch.setattr(Follower, "fresh", property(lambda self: self.mirror.synced))
    patch.setattr(Mirror, "disconnected", lambda self: None)


def suspect_for_ever(patch: Patch) -> None:
    patch.setattr(guard.Suspects, "due", lambda self, zxid, now: guard.Verdict(()))


def markers_believed_by_themselves(patch: Patch) -> None:
    def event(self: Departures, event: Any) -> None:
        root, _, text = event.path.rpartition("/")
        marker = read_marker(text) if root == self._root else None
        if marker is not None:
            self._told(*marker)

    patch.setattr(Departures, "_event", event)


def no_audit(patch: Patch) -> None:
    patch.setattr(Mirror, "audit", lambda self, limit: None)


def suspect_while_listed(patch: Patch) -> None:
    patch.setattr(guard.Suspects, "_come_back", lambda self, change, released: change)


def unbounded_queue(patch: Patch) -> None:
    patch.setattr(subscriptions, "CHANGES_KEPT", 1_000_000)


def retry_that_ends(patch: Patch) -> None:
    delay = backoff.retry_delay

    def delay_until_tired(failures: int, timeout: float, draw: Callable[[float, float], float]) -> float:
        return delay(failures, timeout, draw) if failures < 29 else 1e9

    patch.setattr(connector, "retry_delay", delay_until_tired)


def event_of_the_own_node_ignored(patch: Patch) -> None:
    patch.setattr(Worker, "_on_event", lambda self, event: None)
    patch.setattr(worker, "PERIOD", 1e9)


def withdrawn_without_looking(patch: Patch) -> None:
    patch.setattr(Worker, "withdrawn", property(lambda self: True))
    patch.setattr(Worker, "_surely_gone", lambda self: True)


def every_session_is_new(patch: Patch) -> None:
    suspended = {**states.FOLLOWING[SessionState.SUSPENDED], states.Transition.SERVES: SessionState.CONNECTED}
    patch.setattr(decisions, "FOLLOWING", {**states.FOLLOWING, SessionState.SUSPENDED: suspended})


def garbage_ends_the_following(patch: Patch) -> None:
    def decode_or_die(data: bytes, **names: Any) -> Any:
        try:
            return document.decode(data, **names)
        except Exception as error:
            raise RuntimeError("garbage") from error

    patch.setattr(nodes, "decode", decode_or_die)


def nothing_is_convicted(patch: Patch) -> None:
    patch.setattr(isolation.Isolation, "died", lambda self, *told, **how: {})


def replaced_session_forgotten(patch: Patch) -> None:
    left = decisions._left

    def left_and_forgotten(value: Any, *, lost_history: bool = False) -> Any:
        known = value.earlier_ids
        value, commands = left(value, lost_history=lost_history)
        return value._replace(earlier_ids=() if lost_history else known), commands

    planned = Worker._planned

    def planned_and_forgotten(self: Worker, sight: Any) -> Action:
        self._exchanges.written_as.clear()  # a registration knows by itself, too
        return planned(self, sight)

    patch.setattr(decisions, "_left", left_and_forgotten)
    patch.setattr(Worker, "_planned", planned_and_forgotten)


def throttled_means_refused(patch: Patch) -> None:
    patch.setattr(remedies, "REMEDIES", MappingProxyType({**REMEDIES, Throttled: Remedy.REFUSED}))


def numbers_as_they_come(patch: Patch) -> None:
    patch.setattr(incoming, "granted", lambda told, asked: told)
    patch.setattr(connector, "paced", lambda timeout, asked: timeout)


def gone_with_its_session(patch: Patch) -> None:
    surely_gone = Worker._surely_gone

    def gone_if_expired(self: Worker) -> bool:
        return surely_gone(self) or self._exchanges.writer in self._session.earlier_ids

    patch.setattr(Worker, "_surely_gone", gone_if_expired)


def sync_in_place_of_the_barrier(patch: Patch) -> None:
    patch.setattr(barrier, "_MUST_FAIL", Sync("/"))


def nothing_handed_over(patch: Patch) -> None:
    hand_over = Worker.hand_over

    def hand_over_nothing(self: Worker) -> Any:
        hand_over(self)
        return 0, deque()

    patch.setattr(Worker, "hand_over", hand_over_nothing)


def refused_for_good(patch: Patch) -> None:
    refused = Worker._refused

    def refused_as_if_never_listed(self: Worker, error: Any) -> bool:
        with pytest.MonkeyPatch.context() as meanwhile:
            meanwhile.setattr(Progress, "was_listed", False)
            return refused(self, error)

    patch.setattr(Worker, "_refused", refused_as_if_never_listed)


def sick_and_enabled(patch: Patch) -> None:
    patch.setattr(Registration, "_health_changed", lambda self, name: None)


def never_well_again(patch: Patch) -> None:
    def after(health: CheckHealth, result: Result, **counts: int) -> CheckHealth:
        return health if health.state is CheckState.FAILING else table.after(health, result, **counts)

    patch.setattr(runner, "after", after)


def failing_is_withdrawn(patch: Patch) -> None:
    changed = Registration._health_changed

    def changed_and_left(self: Registration[Any], name: str) -> None:
        changed(self, name)
        if self._worker is not None and not self.instance.enabled:
            self._worker.leave()

    patch.setattr(Registration, "_health_changed", changed_and_left)


def the_last_voter_counts(patch: Patch) -> None:
    def status_of(against: Any) -> Any:
        return next((status for voter, status in reversed([*votes.STATUS_OF.items()]) if voter in against), None)

    patch.setattr(publication, "status_of", status_of)


def lag_of_nobody(patch: Patch) -> None:
    async def no_lag(other: object) -> float:
        return 0.0

    patch.setattr(loop_lag, "_turn", no_lag)


def the_check_waits_for_the_caller(patch: Patch) -> None:
    """As if it asked the caller's loop by a call that blocks: the heartbeats stand still with it."""

    async def ask(other: Any) -> float:
        own: Any = asyncio.get_running_loop()
        if other.stands_still:
            own.stand_still()
            other.call_soon(own.go_on)
            await asyncio.sleep(0)
        return 0.0

    patch.setattr(loop_lag, "_turn", ask)


def whoever_comes_next_is_meant(patch: Patch) -> None:
    patch.setattr(Override, "applies_to", lambda self, instance: True)


def overrides_never_end(patch: Patch) -> None:
    patch.setattr(
        ServiceOverrides, "in_force", lambda self, now: {id: each.override for id, each in self._known.items()}
    )
    patch.setattr(ServiceOverrides, "over", lambda self, now: [])


def overrides_read_once(patch: Patch) -> None:
    read = ServiceOverrides.read

    def read_first(self: ServiceOverrides, overrides: Any, *given: float, seen_being_set: bool) -> None:
        if not self._known:
            read(self, overrides, *given, seen_being_set=seen_being_set)

    patch.setattr(ServiceOverrides, "read", read_first)


def weights_are_not_shown(patch: Patch) -> None:
    covered = Overridden._covered

    def covered_of_full_weight(self: Overridden[Any], entry: Any) -> Any:
        return msgspec.structs.replace(covered(self, entry), weight=1.0)

    patch.setattr(Overridden, "_covered", covered_of_full_weight)


def hosts_know_the_time(patch: Patch) -> None:
    """An override that has ended by a host's clock is over, also where that clock is ahead of the server's."""
    patch.setattr(
        ServiceOverrides,
        "in_force",
        lambda self, now: {id: each.override for id, each in self._known.items() if each.asks > now},
    )
    patch.setattr(ServiceOverrides, "learn", lambda self, id, left, now: None)


def owners_follow_no_overrides(patch: Patch) -> None:
    patch.setattr(Registration, "_overridden", lambda self, overrides: None)


def whoever_comes_is_new(patch: Patch) -> None:
    patch.setattr(Arrivals, "_is_new", lambda self, instance, now: True)


def every_zxid_is_meant(patch: Patch) -> None:
    patch.setattr(connection, "zxid_doubt", lambda zxid, reached, failed: "")


@dataclass(frozen=True)
class Mistake:
    guarantee: str
    make: Callable[[Patch], None]
    profile: Profile


MISTAKES: Final[Mapping[str, Mistake]] = {
    mistake.make.__name__: mistake
    for mistake in (
        Mistake("Owned", no_owner_check, RIVALS),
        Mistake("Published", unfenced_takeover, with_faults("rush", profile=RIVALS)),
        Mistake("Single", claim_forgotten, RIVALS),
        Mistake("Published", blind_delete, with_faults("twin", "leave", "lag", profile=RIVALS, every=1.0, sizes=(3,))),
        Mistake("Converged", no_resync, with_faults("cut", "leave", "kill", "partition")),
        Mistake("Converged", versions_instead_of_zxids, with_faults("expire", "delete", "wipe", "partition")),
        Mistake("Ordered", removed_straight_from_an_event, RIVALS),
        Mistake("Honest", live_by_ping, with_faults("cut off", sizes=(3,))),
        Mistake("Honest", evidence_by_arrival, with_faults("sleep", "slow link", every=1.5)),
        Mistake("Honest", a_clock_that_sleeps, with_faults("sleep")),
        Mistake("Honest", live_while_suspended, with_faults("partition")),
        Mistake("Honest", fresh_by_connection, with_faults("partition")),
        Mistake("Guarded", suspect_for_ever, with_faults("strangers")),
        Mistake("Guarded", markers_believed_by_themselves, with_faults("forge", "strangers", every=2.0)),
        Mistake("Converged", no_audit, with_faults("close", versions=("3.8", "3.9"))),
        Mistake("Ordered", suspect_while_listed, with_faults("expire", "wipe", "partition")),
        Mistake("Bounded", unbounded_queue, with_faults("flood", every=15.0, paces=(80.0,))),
        Mistake("Published", retry_that_ends, with_faults("restart", every=20.0)),
        Mistake("Published", event_of_the_own_node_ignored, with_faults("delete")),
        Mistake("Withdrawn", withdrawn_without_looking, with_faults("leave", "partition")),
        Mistake("Legal", every_session_is_new, with_faults("cut")),
        Mistake("Contained", garbage_ends_the_following, with_faults("litter", "overwrite")),
        Mistake("Published", nothing_is_convicted, with_faults("poison", every=15.0)),
        Mistake("Published", replaced_session_forgotten, with_faults("replace")),
        Mistake("Contained", throttled_means_refused, with_faults("throttle", "delete")),
        Mistake("Bounded", numbers_as_they_come, with_faults("grant")),
        Mistake("Ordered", every_zxid_is_meant, with_faults("falsify", every=3.0)),
        Mistake("Withdrawn", gone_with_its_session, with_faults("disown", sizes=(1,))),
        Mistake("Converged", sync_in_place_of_the_barrier, with_faults("lead late", sizes=(3,))),
        Mistake("Withdrawn", nothing_handed_over, with_faults("again", sizes=(1,))),
        Mistake("Published", refused_for_good, with_faults("forbid", "delete")),
        Mistake("Truthful", sick_and_enabled, with_faults("sick", checked=1.0)),
        Mistake("Truthful", never_well_again, with_faults("flap", "sick", checked=1.0)),
        Mistake("Published", failing_is_withdrawn, with_faults("sick", checked=1.0)),
        Mistake("Truthful", the_last_voter_counts, with_faults("sick", "maintain", checked=1.0)),
        Mistake("Truthful", lag_of_nobody, with_faults("block caller", checked=1.0)),
        Mistake("Beating", the_check_waits_for_the_caller, with_faults("block caller", checked=1.0)),
        Mistake("Truthful", whoever_comes_next_is_meant, with_faults("maintain", "kill", "leave")),
        Mistake("Truthful", overrides_never_end, with_faults("maintain")),
        Mistake("Obeyed", overrides_read_once, with_faults("maintain", every=1.5)),
        Mistake("Obeyed", weights_are_not_shown, with_faults("maintain", every=1.5)),
        Mistake("Obeyed", hosts_know_the_time, with_faults("maintain", "leave", every=1.5, clocks=CLOCKS)),
        Mistake("Truthful", owners_follow_no_overrides, with_faults("maintain")),
        Mistake("Warm", whoever_comes_is_new, with_faults("expire", checked=1.0)),
    )
}


@pytest.mark.parametrize("name", MISTAKES)
def test_a_mistake_is_found_by_the_checker_named_for_it(name: str, monkeypatch: Patch) -> None:
    mistake = MISTAKES[name]
    mistake.make(monkeypatch)

    for seed in range(SEEDS):
        outcome = World(seed, mistake.profile, judged=mistake.guarantee).run()
        if outcome.violation is not None:
            assert outcome.violation.guarantee == mistake.guarantee
            return
    pytest.fail(f"no checker found {name} in {SEEDS} worlds")


@pytest.mark.parametrize("name", MISTAKES)
def test_without_the_mistake_nothing_is_found(name: str) -> None:
    mistake = MISTAKES[name]

    outcome = World(0, mistake.profile).run()

    assert outcome.violation is None, outcome.told()
