"""Whoever shows a traceback with its variables meets no error and no secret where an argument was refused."""

from __future__ import annotations

from typing import Any

import pytest

import aioregistry
import aioregistry.balancing
from aioregistry import InvalidArgument
from aioregistry.integrations.membership import Membership

REFUSED: list[dict[str, Any]] = [
    {"auth": [("digest", "S3CRET", 1)]},
    {"auth": [("digest", "a:S3CRET"), ("", "S3CRET")]},
    {"auth": ["S3CRET"]},
    {"auth": 5},
    {"auth": [("digest", "a:S3CRET")], "session_timeout": -1},
    {"auth": [("digest", "a:S3CRET")], "base_path": "x"},
    {"auth": [("digest", "a:S3CRET")], "watches": "x"},
    {"auth": [("digest", "a:S3CRET")], "acl": 5},
    {"auth": [("digest", "a:S3CRET")], "guard": 5},
    {"auth": [("digest", "a:S3CRET")], "runtime": 5},
]


@pytest.mark.parametrize("options", REFUSED)
def test_what_a_refused_registry_leaves_in_a_traceback(options: dict[str, Any]) -> None:
    with pytest.raises(InvalidArgument) as raised:
        _ = aioregistry.connect("127.0.0.1:1", **options)
    trace, shown = raised.value.__traceback__, []
    while trace is not None:
        if "aioregistry" in trace.tb_frame.f_globals["__name__"].split("."):
            shown += [repr(value) for value in trace.tb_frame.f_locals.values()]
        trace = trace.tb_next
    assert len(shown) > 3
    assert not [text for text in shown if "S3CRET" in text]


def test_what_a_refused_picker_or_membership_shows() -> None:
    for kind in (aioregistry.balancing.Picker, Membership):
        assert repr(kind.__new__(kind)) == f"<{kind.__name__}, not made>"
