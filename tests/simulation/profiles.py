"""Kinds of worlds by name."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Final

from tests.simulation.faults import OUTSIDE
from tests.simulation.wellness import FAULTS as WELLNESS
from tests.simulation.world import ALL_KINDS, DEFAULT, Profile

TWINS: Final = {"twin": 6, "rush": 2, "kill": 3, "leave": 3, "expire": 2, "partition": 2, "sleep": 1, "delete": 1}

CLOCKS: Final = (0.0, 0.0, 90.0, 7200.0, -90.0, -7200.0)
"""Seconds by which wall clocks of hosts are ahead."""

PROFILES: Final[Mapping[str, Profile]] = MappingProxyType(
    {
        "default": DEFAULT,
        # Half a minute of trouble: what the default test run has time for.
        "short": Profile(length=60.0, every=3.0),
        "short twins": Profile(length=40.0, every=2.0, weights=TWINS, processes=(2, 3), services=1),
        # An hour of 30 processes that are left alone, but for a lost connection now and then.
        "hour": Profile(
            length=3600.0,
            weights={"cut": 1},
            every=600.0,
            processes=(30, 30),
            services=3,
            sizes=(3,),
            timeouts=(10.0,),
            updates=(None, 300.0),
            sampling=5.0,
        ),
        # Dozens of processes, one thing after another.
        "crowd": Profile(length=300.0, every=1.0, processes=(24, 36), services=4),
        # Claimants of the same ids, and little else.
        "twins": Profile(
            every=2.0,
            weights=TWINS,
            processes=(2, 3),
            services=1,
        ),
        # Consumers that take minutes for what others see at once.
        "slow consumers": Profile(every=30.0, weights={"flood": 1}, processes=(2, 4), paces=(60.0, 0.0), services=1),
        # Servers that come and go with other data.
        "histories": Profile(
            every=15.0,
            weights={
                **dict.fromkeys(ALL_KINDS, 1),
                **dict.fromkeys(OUTSIDE, 0),
                "restart": 8,
                "wipe": 8,
                "roll back": 12,
            },
        ),
        # The name server is away while everything else happens.
        "names": Profile(
            length=60.0,
            every=3.0,
            weights={
                "names away": 8,
                "cut": 4,
                "refuse": 2,
                "member down": 2,
                "change leader": 2,
                "kill": 1,
                "sleep": 1,
            },
        ),
        # Servers of other makes and in other states, while other things happen as well.
        "outside": Profile(
            length=60.0,
            every=3.0,
            weights={
                **dict.fromkeys(OUTSIDE, 4),
                "names away": 2,
                "cut": 2,
                "close": 2,
                "forge": 2,
                "kill": 1,
                "leave": 2,
                "twin": 1,
                "change leader": 1,
                "member down": 1,
                "partition": 1,
            },
            sizes=(1, 3),
        ),
        # Sick processes, blocked callers and operators, while other things happen as well.
        "wellness": Profile(
            length=60.0,
            every=2.0,
            weights={
                **dict.fromkeys(WELLNESS, 6),
                "cut": 2,
                "partition": 1,
                "kill": 2,
                "twin": 1,
                "expire": 1,
                "delete": 1,
                "overwrite": 1,
                "wipe": 1,
                "restart": 1,
                "change leader": 1,
                "block": 1,
                "sleep": 1,
                "strangers": 1,
            },
            checked=0.8,
            clocks=CLOCKS,
        ),
        # Callers that are blocked, the sick and operators, and nothing else that could cost a session.
        "callers": Profile(
            length=60.0,
            every=3.0,
            weights={"block caller": 6, "sick": 2, "flap": 1, "maintain": 1},
            checked=1.0,
            clocks=CLOCKS,
        ),
        # Members that lag, are cut off, and lead in turns.
        "ensemble": Profile(
            every=2.0,
            weights={"lag": 4, "cut off": 4, "change leader": 2, "member down": 2, "kill": 1, "twin": 1, "hang": 1},
            sizes=(3, 5),
        ),
    }
)
