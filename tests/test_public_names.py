"""Users meet the documented names of the public classes, and no others.

Names for other rooms are behind a function (``driver_of``), or begin with an underscore: they do not show in ``dir()``,
in a completion or in the reference.
"""

from __future__ import annotations

import importlib
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

DOCS = Path(__file__).parents[1] / "docs"
PACKAGE = "aioregistry"
MODULES = ("", "balancing", "blocking", "integrations.membership", "testing", "server")

# Class, with its module if that is not `aioregistry` → its public names; those of Python's own bases left out. A name
# that is added here is on a page, too.
NAMES: dict[str, str] = {
    # aioregistry
    "Added": "entry id instance zxid",
    "Attempt": "at outcome reason since times",
    "AttemptOutcome": (
        "ACCEPTED CLOSED ENDED FAILED FOREIGN NO_QUORUM PENDING REFUSED SILENT TLS UNAUTHENTICATED "
        "UNREACHABLE UNRESOLVED"
    ),
    "Balancer": "in_panic pick pick_when_available refused set_aside warming_up",
    "Changes": "aclose take_ready",
    "Check": "describe",
    "CheckState": "FAILING PASSING STARTING",
    "CheckStatus": "reason since state",
    "CommandCheck": "describe",
    "Ejection": "duration errors failures jitter longest pause remaining spared",
    "Entry": "created czxid instance modified mzxid owner suspicion version weight with_payload_type with_suspicion",
    "Guard": "hold longest share within",
    "HttpCheck": "describe",
    "Invalid": "czxid id mzxid owner reason",
    "Invalidated": "id invalid zxid",
    "LeastOutstanding": "keyed pool traits",
    "LoopLagCheck": "describe",
    "Override": "applies_to by enabled id reason registration_time_ms service since until version weight",
    "OwnZone": "carried keyed pool strategy traits weighs_inner zone",
    "Pick": "abandoned failed id instance succeeded",
    "Random": "keyed pool traits",
    "Registration": (
        "aclose checks displaced drain instance override owner path status statuses update wait_closed "
        "wait_live withdrawn"
    ),
    "Registry": "aclose base_path client discover overrides register services session watch_services",
    "Removed": "entry id instance invalid zxid",
    "Resynced": "added changes removed snapshot updated zxid",
    "Ring": "keyed pool traits",
    "RoundRobin": "keyed pool traits",
    "ServiceInstance": (
        "address enabled extra id name payload payload_class port registration_time_ms replace "
        "service_type session_timeout_ms ssl_port status uri_spec"
    ),
    "ServiceType": "DYNAMIC DYNAMIC_SEQUENTIAL PERMANENT STATIC",
    "SessionState": "CLOSED CONNECTED DISCONNECTED EXPIRED FAILED RECONNECTED SUSPENDED",
    "Snapshot": "as_of confirmed entries instances invalid name overrides stale_since suspects with_stale_since",
    "Status": "CLOSED DISPLACED FAILED LIVE PRESUMED_GONE REGISTERING UNCERTAIN",
    "Sticky": "keyed keys pool strategy traits weighs_inner",
    "Stream": "aclose take_ready",
    "Suspicion": "reason since until",
    "TcpCheck": "describe",
    "Updated": "entry id instance previous previous_entry zxid",
    "View": "aclose balancer changes fresh held_total report_failed snapshot snapshots sync wait_for",
    "WarmUp": "aggression keyed least pool seconds strategy traits weighs_inner weight",
    "Weighted": "keyed pool traits",
    # aioregistry.balancing
    "balancing.Arrivals": "since take",
    "balancing.Census": "count local newcomers reduced total weight",
    "balancing.Load": "adopt calls count heir leave_heir",
    "balancing.Member": "answered failing id instance kind load rank suspect traits weight",
    "balancing.Picker": "apply aside dismiss healthy healthy_weight next_return out pick report subsets warming_up",
    "balancing.Pool": "add choose discard",
    "balancing.Strategy": "keyed pool traits",
    "balancing.Subset": "admits confirmed",
    "balancing.Traits": "local weight",
    # aioregistry.blocking
    "blocking.Balancer": "in_panic pick pick_when_available refused set_aside warming_up",
    "blocking.Changes": "close next",
    "blocking.Overrides": "drain enable list",
    "blocking.Registration": (
        "checks close displaced drain instance open override owner path status statuses update "
        "wait_closed wait_live withdrawn"
    ),
    "blocking.Registry": "base_path client close discover open overrides register services session watch_services",
    "blocking.Session": "attempts connected id presumed_expired read_only server state states timeout",
    "blocking.View": (
        "balancer changes close fresh held_total open pick report_failed snapshot snapshots sync wait_for"
    ),
    # aioregistry.integrations.membership
    "integrations.membership.Hosting": "drain enter leave listen listening withdraw",
    "integrations.membership.Membership": (
        "announce check_has_port connected drain readiness ready registration registry serve_until_signal view"
    ),
    "integrations.membership.Readiness": "attempts checks document override ready reason status",
    # aioregistry.testing
    "testing.AnyZooKeeper": (
        "address close connect_string drop expire freeze host lose_reply new_part port refuse_connections thaw"
    ),
    "testing.Direction": "TO_CLIENT TO_SERVER",
    "testing.EnsembleMember": "address cut_off drop freeze heal lag leads refuse_connections start stop thaw",
    "testing.RealZooKeeper": (
        "address close connect_string drop expire freeze host lose_reply new_part port refuse_connections thaw"
    ),
    "testing.TcpProxy": (
        "accept address admit close count_bytes cut delay delay_of forget heal is_silent new_link "
        "open_connections refuse restore silence"
    ),
    "testing.ZooKeeper": (
        "address backup close connect_string delay drop expire fail freeze host lose_reply new_part port "
        "refuse_connections start stop sweep_containers thaw"
    ),
    "testing.ZooKeeperEnsemble": "change_leader close connect_string expire followers leader start stop",
    "testing.ZooKeeperProxy": (
        "accept address admit close count_bytes cut cut_session delay delay_of forget freeze heal "
        "is_silent lose_next_reply new_link open_connections refuse restore silence thaw"
    ),
    # aioregistry.server
    "server.Backup": "",
    "server.Ensemble": (
        "backup can_commit change_leader connect_string elect expire followers history leader leads "
        "reaches_quorum running_history start stop sweep_containers"
    ),
    "server.Member": (
        "accept address answer_word apply catch_up come_up cut_off delay deliver disown drop expire fail "
        "forget forget_faults freeze grant handle hang_up heal host join lag leave live_sessions "
        "lose_reply mode open port propose protocol_factory receive received refuse_connections release "
        "replace_sessions revalidate running sent serving start stop thaw throttle time touch tree zxid"
    ),
    "server.ZooKeeperServer": (
        "accept address answer_word backup catch_up come_up delay deliver disown drop expire fail forget "
        "forget_faults freeze grant handle hang_up host live_sessions lose_reply mode open port propose "
        "protocol_factory received refuse_connections release replace_sessions revalidate running sent "
        "serving start stop sweep_containers thaw throttle time touch tree zxid"
    ),
}

# Names that no page needs: the reference alone has them. Why, then which.
REFERENCE_ONLY: dict[str, str] = {
    "one batch of a stream, for consumers that take all that is there": "take_ready",
    "copies of values with another field": "with_payload_type with_stale_since with_suspicion",
    "what a check asks, as text": "describe",
    "what strategies and pickers tell each other; the docstrings are for those that write one": (
        "carried weighs_inner adopt heir leave_heir count newcomers reduced total rank admits "
        "apply dismiss healthy_weight next_return report subsets spared"
    ),
    "fields of values": (
        "applies_to registration_time_ms service_type previous previous_entry document TO_CLIENT TO_SERVER leads"
    ),
    "for servers that host an application": "enter leave check_has_port",
    "the parts of a fault proxy": (
        "accept admit count_bytes cut cut_session delay_of forget is_silent lose_next_reply new_link "
        "open_connections restore silence"
    ),
    # The embedded server is not yet split into a handle and what its connections and its ensemble call.
    "called by connections and by the ensemble": (
        "answer_word apply can_commit catch_up come_up deliver elect handle hang_up history propose reaches_quorum "
        "received revalidate running running_history sent serving touch tree"
    ),
}


def public_classes() -> Iterator[tuple[str, type]]:
    seen = set()
    for module in MODULES:
        room = importlib.import_module(f"{PACKAGE}.{module}".rstrip("."))
        for name in room.__all__:
            each = getattr(room, name)
            if isinstance(each, type) and each not in seen and not issubclass(each, BaseException):
                seen.add(each)
                yield f"{module}.{name}".lstrip("."), each


def public_names(kind: type) -> list[str]:
    """The names that its users see, without those of the standard library's and of other packages' classes."""
    others = [base for base in kind.__mro__ if base.__module__.partition(".")[0] != PACKAGE]
    inherited = {name for base in others for name in dir(base)}
    return sorted(name for name in dir(kind) if not name.startswith("_") and name not in inherited)


CLASSES = dict(public_classes())


@pytest.mark.parametrize("kind", CLASSES)
def test_a_public_class_has_the_names_of_the_table(kind: str) -> None:
    assert public_names(CLASSES[kind]) == NAMES.get(kind, "").split()


def test_the_table_has_no_class_that_is_gone() -> None:
    assert set(NAMES) == set(CLASSES)


def test_each_name_is_on_a_page_or_has_a_reason() -> None:
    pages = [page for page in DOCS.rglob("*.md") if page.name != "internals.md"]
    code = [each for page in pages for each in re.findall(r"```.*?```|`[^`\n]+`", page.read_text(), re.DOTALL)]
    on_pages = set(re.findall(r"\w+", " ".join(code)))
    named = {name for names in NAMES.values() for name in names.split()}
    excused = {name for names in REFERENCE_ONLY.values() for name in names.split()}
    assert named - on_pages <= excused
    assert excused <= named


def test_a_name_that_shows_is_found() -> None:
    class Shown(list[int]):
        def take(self) -> None: ...

        def _hidden(self) -> None: ...

    Shown.__module__ = f"{PACKAGE}.attic"
    assert public_names(Shown) == ["take"]
