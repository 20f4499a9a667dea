"""Markers: what a withdrawal writes is what a view reads."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aioregistry._discovery.departures import read_marker
from aioregistry._protocol import Create, Multi
from aioregistry._registration.transactions import target_of, withdrawal

segments = st.text(st.characters(max_codepoint=0xD7FF, exclude_categories=["Cc", "Cs"]), min_size=1, max_size=9)


@given(segments, segments, st.integers(1, 2**63 - 1))
def test_every_marker_is_read_as_it_was_meant(name: str, id: str, czxid: int) -> None:
    transaction = withdrawal(target_of("/services", name, id, ()), 0, czxid, marked=True)
    assert isinstance(transaction, Multi)
    creation = transaction.ops[0]
    assert isinstance(creation, Create)
    root, _, marker = creation.path.rpartition("/")
    assert root == "/services-withdrawn"
    assert read_marker(marker) == (name, id, czxid)


@pytest.mark.parametrize("name", ["", "a", "a:b", "a:b:", "a:b:x", "a:b:1:2", "::"])
def test_what_is_no_marker_tells_of_nobody(name: str) -> None:
    assert read_marker(name) is None
