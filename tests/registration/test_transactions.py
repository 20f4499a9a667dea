"""A registration's writes, and their places."""

from __future__ import annotations

from urllib.parse import unquote

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aioregistry._errors import BadVersion
from aioregistry._protocol import Create, Create2, CreateContainer, CreateFlag, Delete, Multi, SetData
from aioregistry._registration.transactions import (
    Target,
    ancestors,
    change,
    creation,
    marker_root,
    parent_creation,
    takeover,
    target_of,
    withdrawal,
)
from tests.support.model_tree import ModelTree

ACL = ("acl",)
TARGET = target_of("/services", "chat", "10.0.0.7:7000", ACL)


@pytest.mark.parametrize(
    ("base_path", "path", "marker"),
    [
        ("/services", "/services/chat/a#1", "/services-withdrawn/chat:a%231"),
        ("/prod/services", "/prod/services/chat/a#1", "/prod/services-withdrawn/chat:a%231"),
        ("/", "/chat/a#1", None),
        ("", "/chat/a#1", None),
    ],
)
def test_where(base_path: str, path: str, marker: str | None) -> None:
    target = target_of(base_path, "chat", "a#1", ACL)
    assert target == Target(path, ACL, marker, service="chat")
    assert target.about == {"service": "chat", "id": "a#1", "path": path}
    assert marker_root(target) == (None if marker is None else f"{base_path}-withdrawn")


@given(name=st.text(min_size=1), id=st.text(min_size=1), czxid=st.integers(1, 2**62))
def test_a_marker_is_one_segment_and_names_service_id_and_czxid(name: str, id: str, czxid: int) -> None:
    target = target_of("/services", name, id, ACL)
    transaction = withdrawal(target, 3, czxid, marked=True)
    assert isinstance(transaction, Multi)
    segment = str(transaction.ops[0].path).removeprefix("/services-withdrawn/")
    assert "/" not in segment
    shown_name, shown_id, shown_czxid = segment.split(":")
    assert (unquote(shown_name), unquote(shown_id), int(shown_czxid, 16)) == (name, id, czxid)


def test_ancestors() -> None:
    assert ancestors("/a/b/c") == ["/a", "/a/b"]
    assert ancestors("/a") == []


def test_parents_are_containers_where_the_server_has_them() -> None:
    assert parent_creation(TARGET, "/a", container=True) == CreateContainer("/a", acl=ACL)
    assert parent_creation(TARGET, "/a", container=False) == Create("/a", b"", ACL)


def test_creation_and_change() -> None:
    assert creation(TARGET, b"x") == Create2(TARGET.path, b"x", ACL, CreateFlag.EPHEMERAL)
    assert change(TARGET, b"x", 7) == SetData(TARGET.path, b"x", 7)


@pytest.mark.parametrize("version", [0, 1, 7, 2**31 - 1, -(2**31), -2])
def test_a_takeover_leaves_another_version_than_it_took(version: int) -> None:
    tree = ModelTree()
    ghost, claimant, rival = tree.open_session(), tree.open_session(), tree.open_session()
    tree.make("/services/chat")
    tree.apply(ghost, creation(TARGET, b"ghost"))
    tree.age(TARGET.path, version)
    tree.apply(claimant, takeover(TARGET, b"x", version)).raise_for_error()
    taken = tree.node(TARGET.path)
    assert taken is not None
    assert (taken.owner, taken.data) == (claimant, b"x")
    assert taken.version != version
    assert tree.apply(rival, takeover(TARGET, b"y", version)).failed.index == 0
    with pytest.raises(BadVersion):
        tree.apply(ghost, withdrawal(TARGET, version, 1, marked=False))


def test_a_withdrawal_leaves_nothing_but_the_trace_of_its_passing() -> None:
    tree = ModelTree()
    session = tree.open_session()
    tree.make("/services/chat")
    tree.make("/services-withdrawn")
    tree.apply(session, creation(TARGET, b"x"))
    seen: list[tuple[str, str]] = []
    tree.on_change.append(lambda change: seen.append((change.kind.name, change.path)))
    tree.apply(session, withdrawal(TARGET, 0, 0xABC, marked=True)).raise_for_error()
    marker = "/services-withdrawn/chat:10.0.0.7%3A7000:abc"
    assert seen == [
        ("CREATED", marker),
        ("DELETED", marker),
        ("DATA_CHANGED", TARGET.path),
        ("DELETED", TARGET.path),
    ]
    assert tree.node(marker) is None


@pytest.mark.parametrize("version", [0, 7, 2**31 - 1, -(2**31), -2])
def test_a_withdrawal_deletes_the_version_that_was_seen_only(version: int) -> None:
    tree = ModelTree()
    session = tree.open_session()
    tree.make("/services/chat")
    tree.make("/services-withdrawn")
    tree.apply(session, creation(TARGET, b"x"))
    tree.age(TARGET.path, version)
    assert tree.apply(session, withdrawal(TARGET, version ^ 4, 0xABC, marked=True)).failed.index == 2
    assert tree.node(TARGET.path) is not None
    tree.apply(session, withdrawal(TARGET, version, 0xABC, marked=True)).raise_for_error()
    assert tree.node(TARGET.path) is None


def test_a_withdrawal_without_a_marker_is_a_deletion() -> None:
    assert withdrawal(TARGET, 5, 0xABC, marked=False) == Delete(TARGET.path, 5)
