"""Services as anybody may have written them, for what is made of them."""

from __future__ import annotations

import json
from typing import Any

from hypothesis import strategies as st

from aioregistry._document import decode
from aioregistry._exports import usable
from aioregistry._model import ServiceInstance

# As a document may have them, which nobody here has checked: everything but a slash in an id.
HOSTILE = st.one_of(
    st.text(st.characters(exclude_categories=["Cs"], exclude_characters="/\0"), min_size=1, max_size=20),
    st.sampled_from(
        [
            'a"; }',
            "a\n    server evil 6.6.6.6:1",
            "x\r\n}",
            "{;}#",
            "$(id)",
            "`id`",
            "\u202e",
            "a b",
            "..a",
            "'",
            "\\",
            "%s",
        ]
    ),
).filter(lambda text: text.strip("./ \t\r\n") != "")
JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**60), 2**60)
    | st.floats(allow_nan=False, allow_infinity=False)
    | HOSTILE,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(HOSTILE, inner, max_size=3),
    max_leaves=8,
)
ADDRESSES = (
    st.ip_addresses().map(str)
    | st.sampled_from(["10.0.0.7", "::1", "::ffff:10.0.0.7", "fe80::1%eth0", "host.example", "bücher.example"])
    | HOSTILE
)
PORTS = st.integers(0, 65535) | st.sampled_from([None, -1, 65536, 2**31, 2**40, "7000", 0.5])


@st.composite
def documents(draw: st.DrawFn) -> dict[str, tuple[ServiceInstance[Any], ...]]:
    """Services as a view may show them, decoded from what anybody may write."""
    services = {}
    for name in draw(st.lists(HOSTILE, max_size=3, unique=True)):
        found = []
        for id in draw(st.lists(HOSTILE, max_size=4, unique=True)):
            document = {
                "name": name, "id": id, "address": draw(ADDRESSES), "port": draw(PORTS), "sslPort": draw(PORTS),
                "payload": draw(JSON), "registrationTimeUTC": 1, "serviceType": "DYNAMIC", "uriSpec": None,
            }  # fmt: skip
            try:
                found.append(decode(json.dumps(document).encode()))
            except ValueError:  # no instance
                continue
        services[name] = usable(found)
    return services
