from __future__ import annotations

import struct
from collections.abc import Callable
from typing import Any

import pytest
from aiozk.protocol.primitives import Buffer, Int, UString, Vector
from hypothesis import given, settings
from hypothesis import strategies as st

from aioregistry._errors import ProtocolError
from aioregistry._protocol import jute
from tests.protocol.rendering import rendered


@settings(deadline=None)
@given(st.text(), st.binary())
def test_strings(value: str, before: bytes) -> None:
    written = jute.write_string(value)
    assert written == rendered(UString(value))
    assert jute.read_string(before + written + b"behind", len(before)) == (value, len(before) + len(written))


@settings(deadline=None)
@given(st.binary(), st.binary())
def test_buffers(value: bytes, before: bytes) -> None:
    written = jute.write_buffer(value)
    assert written == rendered(Buffer(value))
    assert jute.read_buffer(before + written + b"behind", len(before)) == (value, len(before) + len(written))


@settings(deadline=None)
@given(st.lists(st.text()), st.binary())
def test_lists_of_strings(values: list[str], before: bytes) -> None:
    written = jute.write_strings(values)
    assert written == rendered(Vector.of(UString)(values))
    assert jute.read_strings(before + written + b"behind", len(before)) == (values, len(before) + len(written))


@settings(deadline=None)
@given(st.integers(-(2**31), 2**31 - 1))
def test_integers(value: int) -> None:
    assert jute.read_int(rendered(Int(value)), 0) == (value, 4)


def test_null_reads_as_empty() -> None:
    assert jute.read_string(rendered(UString(None)), 0) == ("", 4)
    assert jute.read_buffer(rendered(Buffer(None)), 0) == (b"", 4)


@pytest.mark.parametrize("read", [jute.read_string, jute.read_buffer])
@pytest.mark.parametrize("length", [-2, -(2**31)])
def test_a_negative_length_leads_nowhere(read: Callable[[bytes, int], Any], length: int) -> None:
    with pytest.raises(ProtocolError, match=f"length {length}"):
        read(struct.pack(">i", length) + b"abcdefgh", 0)


@pytest.mark.parametrize("length", [-1, -2])
def test_no_item_of_a_list_is_null(length: int) -> None:
    with pytest.raises(ProtocolError, match=f"length {length}"):
        jute.read_strings(struct.pack(">ii", 1, length) + b"abcdefgh", 0)


@pytest.mark.parametrize("count", [-1, -(2**31), 3, 2**31 - 1])
def test_a_count_is_held_against_what_is_there(count: int) -> None:
    with pytest.raises(ProtocolError, match=f"a list of {count} items in 11 bytes"):
        jute.read_count(struct.pack(">i", count) + bytes(11), 0, smallest=4)
    with pytest.raises(ProtocolError, match=f"a list of {count} items in 11 bytes"):
        jute.read_strings(struct.pack(">i", count) + bytes(11), 0)


def test_as_many_items_as_may_be_there() -> None:
    assert jute.read_count(struct.pack(">i", 2) + bytes(11), 0, smallest=4) == (2, 4)
