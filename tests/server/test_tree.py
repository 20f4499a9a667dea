from __future__ import annotations

import itertools
import struct

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from aioregistry.server._acl import ALL, CREATE, OPEN, READ, WRITE, Identity, Rule
from aioregistry.server._codes import Code, Malformed, Opcode, Refused
from aioregistry.server._nodes import is_valid, parent_of
from aioregistry.server._operations import (
    Caller,
    Change,
    Check,
    Contradiction,
    Create,
    Delete,
    DeleteContainer,
    Kind,
    Moment,
    Operation,
    Result,
    SetACL,
    SetData,
)
from aioregistry.server._tree import Aborted, Tree
from tests.support.wire import Stat

PERSISTENT, EPHEMERAL, SEQUENTIAL, EPHEMERAL_SEQUENTIAL, CONTAINER, TTL, SEQUENTIAL_TTL = range(7)
ME, OTHER = Caller(7, (Identity("ip", "127.0.0.1"),)), Caller(8)


def stat(packed: bytes | None) -> Stat:
    assert packed is not None
    return Stat(*struct.unpack(">qqqqiiiqiiq", packed))


def create(path: str | None, flags: int = PERSISTENT, *, opcode: int = Opcode.CREATE, ttl_ms: int = -1) -> Create:
    return Create(opcode, path, b"data", OPEN, flags, ttl_ms)


def container(path: str) -> Create:
    return create(path, CONTAINER, opcode=Opcode.CREATE_CONTAINER)


def with_ttl(path: str, ttl_ms: int = 1000, flags: int = TTL) -> Create:
    return create(path, flags, opcode=Opcode.CREATE_TTL, ttl_ms=ttl_ms)


class Writer:
    """Numbers the operations on a tree, a second apart."""

    def __init__(self, tree: Tree | None = None) -> None:
        self.tree = tree or Tree()
        self.zxid = 0

    def moment(self) -> Moment:
        self.zxid += 1
        return Moment(self.zxid, self.zxid * 1000)

    def do(self, operation: Operation, caller: Caller = ME) -> Result:
        return self.tree.execute(operation, caller, self.moment())[0]

    def do_all(self, *operations: Operation, caller: Caller = ME) -> tuple[list[Result], list[Change]]:
        return self.tree.execute_all(operations, caller, self.moment())

    def refuses(self, operation: Operation, caller: Caller = ME) -> int:
        before = image(self.tree)
        with pytest.raises(Refused) as refused:
            self.do(operation, caller)
        assert image(self.tree) == before
        return refused.value.code

    def stat(self, path: str) -> Stat:
        return stat(self.tree.read(path).stat())


def image(tree: Tree) -> object:
    nodes = {
        path: (node.data, node.acl, node.kind, frozenset(node.children), node.stat())
        for path, node in tree.nodes.items()
    }
    return nodes, {session: set(paths) for session, paths in tree.ephemerals.items()}, sorted(tree.expendable(10**9))


@pytest.fixture
def writer() -> Writer:
    return Writer()


class TestBeginning:
    def test_what_is_there(self) -> None:
        tree = Tree(config=b"config")
        assert sorted(tree.nodes) == ["", "/", "/zookeeper", "/zookeeper/config", "/zookeeper/quota"]
        assert tree.read("/zookeeper/config").data == b"config"

    def test_stats_of_the_root_and_of_the_configuration(self, writer: Writer) -> None:
        assert writer.stat("/") == Stat(0, 0, 0, 0, 0, -1, 0, 0, 0, 1, 0)
        assert writer.stat("/zookeeper/config").aversion == -1

    @pytest.mark.parametrize("operation", [SetData("/zookeeper/config", b"", -1), create("/zookeeper/config/a")])
    def test_the_configuration_is_nobodys_to_write(self, writer: Writer, operation: Operation) -> None:
        assert writer.refuses(operation) == Code.NO_AUTH

    @pytest.mark.parametrize("path", ["/", "/zookeeper", "/zookeeper/quota", "/zookeeper/config", "", "a"])
    def test_what_cannot_be_deleted(self, writer: Writer, path: str) -> None:
        assert writer.refuses(Delete(path, -1)) == Code.BAD_ARGUMENTS
        assert writer.refuses(DeleteContainer(path)) == Code.BAD_ARGUMENTS

    def test_the_empty_path_reads_as_the_root(self) -> None:
        tree = Tree()
        assert tree.read("") is tree.read("/")


class TestStats:
    def test_of_a_new_node_and_its_parent(self, writer: Writer) -> None:
        result = writer.do(create("/a"))
        assert result.path == "/a"
        assert stat(result.stat) == Stat(1, 1, 1000, 1000, 0, 0, 0, 0, 4, 0, 1)
        assert writer.stat("/") == Stat(0, 0, 0, 0, 0, 0, 0, 0, 0, 2, 1)

    def test_cversion_counts_creations_and_deletions(self, writer: Writer) -> None:
        writer.do(create("/a"))
        told = []
        for operation in (create("/a/1"), create("/a/2"), Delete("/a/1", -1), Delete("/a/2", -1)):
            writer.do(operation)
            told.append((writer.stat("/a").cversion, writer.stat("/a").pzxid, writer.stat("/a").children))
        assert told == [(1, 2, 1), (2, 3, 2), (3, 4, 1), (4, 5, 0)]

    def test_set_data(self, writer: Writer) -> None:
        writer.do(create("/a"))
        result = writer.do(SetData("/a", b"longer", 0))
        assert stat(result.stat) == Stat(1, 2, 1000, 2000, 1, 0, 0, 0, 6, 0, 1)

    def test_set_acl_moves_only_the_aversion(self, writer: Writer) -> None:
        writer.do(create("/a"))
        before = writer.stat("/a")
        result = writer.do(SetACL("/a", (Rule(READ, "world", "anyone"),), 0))
        assert stat(result.stat) == before._replace(aversion=1)

    def test_null_data_has_length_0(self, writer: Writer) -> None:
        writer.do(Create(Opcode.CREATE, "/a", None, OPEN, PERSISTENT))
        assert writer.tree.read("/a").data is None
        assert writer.stat("/a").data_length == 0

    def test_only_ephemeral_nodes_show_an_owner(self, writer: Writer) -> None:
        for operation in (create("/e", EPHEMERAL), container("/c"), with_ttl("/t"), create("/p")):
            writer.do(operation)
        assert [writer.stat(f"/{name}").owner for name in "ectp"] == [7, 0, 0, 0]

    def test_versions_are_ints_of_32_bits(self, writer: Writer) -> None:
        writer.do(create("/a"))
        writer.tree.read("/a").version = 2**31 - 1
        writer.do(SetData("/a", b"", -1))
        assert writer.stat("/a").version == -(2**31)

    def test_what_reads_answer_is_kept_until_the_node_changes(self, writer: Writer) -> None:
        writer.do(create("/a"))
        for operation in (SetData("/a", b"", -1), create("/a/b"), SetACL("/a", OPEN, -1), Delete("/a/b", -1)):
            writer.tree.read("/a").packed = b"kept"
            writer.do(operation)
            assert writer.tree.read("/a").packed is None


class TestCreating:
    @pytest.mark.parametrize(
        ("operation", "code"),
        [
            (create("a"), Code.BAD_ARGUMENTS),
            (create(""), Code.BAD_ARGUMENTS),
            (create("/"), Code.NODE_EXISTS),
            (create("/a\0"), Code.BAD_ARGUMENTS),
            (create("/a/"), Code.NO_NODE),
            (create("/zookeeper/"), Code.BAD_ARGUMENTS),
            (create("//a"), Code.BAD_ARGUMENTS),
            (create("/."), Code.BAD_ARGUMENTS),
            (create("/zookeeper/.."), Code.BAD_ARGUMENTS),
            (create("/\U0001f600"), Code.BAD_ARGUMENTS),
            (create("/missing/a"), Code.NO_NODE),
            (create("/zookeeper"), Code.NODE_EXISTS),
            (create("/a", 7), Code.BAD_ARGUMENTS),
            (create("/a", -1), Code.BAD_ARGUMENTS),
            (create("/a", TTL), Code.BAD_ARGUMENTS),
            (with_ttl("/a", 0), Code.BAD_ARGUMENTS),
            (with_ttl("/a", 2**40), Code.BAD_ARGUMENTS),
            (with_ttl("/a", 1000, PERSISTENT), Code.BAD_ARGUMENTS),
            (with_ttl("/a", -1, PERSISTENT), Code.BAD_ARGUMENTS),
            (create("/a")._replace(acl=None), Code.INVALID_ACL),
            (create("/a")._replace(acl=()), Code.INVALID_ACL),
            (create("/a")._replace(acl=(Rule(ALL, "auth", ""),)), Code.INVALID_ACL),
        ],
    )
    def test_what_is_refused(self, writer: Writer, operation: Create, code: int) -> None:
        assert writer.refuses(operation) == code

    def test_a_null_path_is_malformed(self, writer: Writer) -> None:
        with pytest.raises(Malformed):
            writer.do(create(None))

    def test_an_operation_that_says_two_things_is_malformed(self, writer: Writer) -> None:
        before = image(writer.tree)
        with pytest.raises(Malformed):
            writer.do(Contradiction("/a"))
        assert image(writer.tree) == before

    def test_an_ephemeral_node_has_no_children(self, writer: Writer) -> None:
        writer.do(create("/a", EPHEMERAL))
        assert writer.refuses(create("/a/b")) == Code.NO_CHILDREN_FOR_EPHEMERALS

    def test_sequential_names_count_the_parents_creations(self, writer: Writer) -> None:
        writer.do(create("/a"))
        writer.do(create("/a/x"))
        writer.do(Delete("/a/x", -1))
        paths = [writer.do(create("/a/n-", flags)).path for flags in (SEQUENTIAL, EPHEMERAL_SEQUENTIAL)]
        assert paths == ["/a/n-0000000001", "/a/n-0000000002"]
        assert writer.do(create("/a/", SEQUENTIAL)).path == "/a/0000000003"

    def test_the_opcode_makes_containers_and_the_flags_do_not(self, writer: Writer) -> None:
        writer.do(create("/plain", CONTAINER))
        writer.do(create("/container", PERSISTENT, opcode=Opcode.CREATE_CONTAINER))
        assert writer.tree.read("/plain").kind is Kind.PERSISTENT
        assert writer.tree.read("/container").kind is Kind.CONTAINER

    @pytest.mark.parametrize("ttl_ms", [1, 2**39 + 1, 2**40 - 1])
    def test_a_ttl_has_forty_bits(self, writer: Writer, ttl_ms: int) -> None:
        writer.do(with_ttl("/t", ttl_ms))
        assert writer.tree.read("/t").kind is Kind.TTL

    def test_ttls_where_they_are_off(self) -> None:
        assert Writer(Tree(extended_types=False)).refuses(with_ttl("/a")) == Code.UNIMPLEMENTED

    def test_permission_is_asked_of_the_parent(self, writer: Writer) -> None:
        writer.do(create("/a")._replace(acl=(Rule(ALL & ~CREATE, "world", "anyone"),)))
        assert writer.refuses(create("/a/b")) == Code.NO_AUTH


class TestDeleting:
    def test_by_version(self, writer: Writer) -> None:
        writer.do(create("/a"))
        assert writer.refuses(Delete("/a", 1)) == Code.BAD_VERSION
        writer.do(Delete("/a", 0))
        assert writer.refuses(Delete("/a", -1)) == Code.NO_NODE

    def test_not_with_children(self, writer: Writer) -> None:
        writer.do(create("/a"))
        writer.do(create("/a/b"))
        assert writer.refuses(Delete("/a", -1)) == Code.NOT_EMPTY
        assert writer.refuses(Delete("/a", 5)) == Code.BAD_VERSION  # looked at first

    def test_a_container_goes_when_it_had_children_and_has_none(self, writer: Writer) -> None:
        writer.do(container("/c"))
        assert writer.tree.expendable(10**9) == []
        writer.do(create("/c/a"))
        assert writer.tree.expendable(10**9) == []
        assert writer.refuses(DeleteContainer("/c")) == Code.NOT_EMPTY
        writer.do(Delete("/c/a", -1))
        assert writer.tree.expendable(10**9) == ["/c"]
        writer.do(DeleteContainer("/c"))
        assert writer.tree.expendable(10**9) == []

    def test_a_node_with_a_ttl_goes_when_it_was_not_changed_for_so_long(self, writer: Writer) -> None:
        writer.do(with_ttl("/t", 500))
        writer.do(SetData("/t", b"", -1))  # at 2000 ms
        assert writer.tree.expendable(2500) == []
        assert writer.tree.expendable(2501) == ["/t"]

    def test_a_session_takes_along_what_it_owns(self, writer: Writer) -> None:
        writer.do(create("/mine", EPHEMERAL))
        writer.do(create("/gone", EPHEMERAL))
        writer.do(Delete("/gone", -1), OTHER)
        writer.do(create("/gone", EPHEMERAL), OTHER)
        changes = writer.tree.end_session(7, writer.moment())
        assert [change.path for change in changes] == ["/mine"]
        assert "/gone" in writer.tree.nodes
        assert writer.tree.ephemerals == {8: {"/gone": None}}


class TestTransactions:
    def test_each_sees_what_those_before_it_did(self, writer: Writer) -> None:
        results, changes = writer.do_all(create("/a"), SetData("/a", b"x", 0), Check("/a", 1), Delete("/a", 1))
        assert [result.path for result in results] == ["/a", "/a", None, "/a"]
        assert len(changes) == 3
        assert "/a" not in writer.tree.nodes

    def test_stats_are_those_of_their_own_moment(self, writer: Writer) -> None:
        (created, changed), _ = writer.do_all(create("/a"), SetData("/a", b"longer", 0))
        assert (stat(created.stat).version, stat(changed.stat).version) == (0, 1)

    @pytest.mark.parametrize(
        ("bad", "code"),
        [
            (Delete("/missing", -1), Code.NO_NODE),
            (Check("/old", 9), Code.BAD_VERSION),
            (create("a"), Code.BAD_ARGUMENTS),
        ],
    )
    def test_nothing_is_done_when_one_is_refused(self, writer: Writer, bad: Operation, code: int) -> None:
        for operation in (create("/old"), create("/mine", EPHEMERAL), container("/c"), create("/c/a")):
            writer.do(operation)
        before = image(writer.tree)
        with pytest.raises(Aborted) as aborted:
            writer.do_all(
                *(create("/new"), create("/new/e", EPHEMERAL), SetData("/old", b"x", 0), Delete("/mine", 0)),
                *(Delete("/c/a", 0), with_ttl("/t"), Delete("/c", -1)),
                bad,
                create("/never"),
            )
        assert (aborted.value.index, aborted.value.code) == (7, code)
        assert image(writer.tree) == before

    def test_a_malformed_one_undoes_the_others_too(self, writer: Writer) -> None:
        before = image(writer.tree)
        with pytest.raises(Malformed):
            writer.do_all(create("/a"), create(None))
        assert image(writer.tree) == before


class TestPaths:
    @pytest.mark.parametrize("path", ["/", "/a", "/a/b", "/a.b", "/...", "/a..", "/é☃", "/a b"])
    def test_valid(self, path: str) -> None:
        assert is_valid(path)

    @pytest.mark.parametrize(
        "path",
        [None, "", "a", "/a/", "//", "/a//b", "/.", "/a/./b", "/..", "/a/..", "/\n", "/\x7f", "/\ufff0", "/\ue000"],
    )
    def test_invalid(self, path: str | None) -> None:
        assert not is_valid(path)

    def test_parents(self) -> None:
        assert [parent_of(path) for path in ("/a", "/a/b", "/a/b/c")] == ["/", "/a", "/a/b"]

    def test_count_below(self, writer: Writer) -> None:
        for path in ("/a", "/a/b", "/a/b/c", "/ab"):
            writer.do(create(path))
        assert writer.tree.count_below("/a") == 2
        assert writer.tree.count_below("/") == 7  # the four, and ZooKeeper's own three


# ---------------------------------------------------------------- every operation in every small state

PATHS = ("/a", "/a/b")
OPERATIONS: list[Operation] = [
    *(create(path, flags) for path in PATHS for flags in (PERSISTENT, EPHEMERAL)),
    *(Delete(path, version) for path in PATHS for version in (-1, 0)),
    *(SetData(path, b"", 0) for path in PATHS),
    Check("/a", 0),
]


def test_a_refusal_changes_nothing_and_a_replay_gives_the_same_tree() -> None:
    """All sequences of four operations."""
    for sequence in itertools.product(OPERATIONS, repeat=4):
        writer, replica = Writer(), Tree()
        for operation in sequence:
            before = image(writer.tree)
            try:
                _, changes = writer.tree.execute(operation, ME, writer.moment())
            except Refused:
                assert image(writer.tree) == before
            else:
                replica.replay(changes)
        assert image(replica) == image(writer.tree)


# ---------------------------------------------------------------- a tree beside a dictionary

names = st.sampled_from("abc")
paths = st.lists(names, min_size=1, max_size=3).map(lambda parts: "/" + "/".join(parts))
versions = st.sampled_from([-1, 0, 1])
operations = st.one_of(
    st.builds(create, paths, st.sampled_from([PERSISTENT, EPHEMERAL, SEQUENTIAL, EPHEMERAL_SEQUENTIAL])),
    st.builds(container, paths),
    st.builds(with_ttl, paths),
    st.builds(Delete, paths, versions),
    st.builds(SetData, paths, st.binary(max_size=3), versions),
    st.builds(Check, paths, versions),
    st.builds(SetACL, paths, st.sampled_from([OPEN, (Rule(ALL & ~WRITE, "world", "anyone"),)]), versions),
)
callers = st.sampled_from([ME, OTHER])


class TreeMachine(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.writer = Writer()
        self.replica = Tree()
        self.past: list[tuple[Tree, object]] = []

    @rule(operation=operations, caller=callers)
    def write(self, operation: Operation, caller: Caller) -> None:
        before = image(self.writer.tree)
        try:
            _, changes = self.writer.tree.execute(operation, caller, self.writer.moment())
        except Refused:
            assert image(self.writer.tree) == before
        else:
            self.replica.replay(changes)

    @rule(several=st.lists(operations, max_size=5), caller=callers)
    def transact(self, several: list[Operation], caller: Caller) -> None:
        before = image(self.writer.tree)
        try:
            results, changes = self.writer.do_all(*several, caller=caller)
        except Aborted:
            assert image(self.writer.tree) == before
        else:
            assert len(results) == len(several)
            self.replica.replay(changes)

    @rule(caller=callers)
    def end_session(self, caller: Caller) -> None:
        owned = set(self.writer.tree.ephemerals.get(caller.session, ()))
        changes = self.writer.tree.end_session(caller.session, self.writer.moment())
        assert {change.path for change in changes} == owned
        self.replica.replay(changes)

    @precondition(lambda self: len(self.past) < 3)
    @rule()
    def copy(self) -> None:
        duplicate = self.writer.tree.copy()
        self.past.append((duplicate, image(duplicate)))

    @invariant()
    def every_node_is_its_parents_child(self) -> None:
        nodes = self.writer.tree.nodes
        listed = {f"{path.rstrip('/')}/{name}" for path, node in nodes.items() if path != "" for name in node.children}
        assert listed == set(nodes) - {"", "/"}

    @invariant()
    def ephemerals_are_owned_and_childless(self) -> None:
        tree = self.writer.tree
        by_node = {path: node.owner for path, node in tree.nodes.items() if node.kind is Kind.EPHEMERAL}
        assert by_node == {path: owner for owner, owned in tree.ephemerals.items() for path in owned}
        assert all(not tree.nodes[path].children for path in by_node)
        assert all((node.owner != 0) == (node.kind is Kind.EPHEMERAL) for node in tree.nodes.values())

    @invariant()
    def stats_make_sense(self) -> None:
        for path, node in self.writer.tree.nodes.items():
            seen = stat(node.stat())
            assert seen.czxid <= min(seen.mzxid, seen.pzxid) <= max(seen.mzxid, seen.pzxid) <= self.writer.zxid
            assert (seen.children, seen.data_length) == (len(node.children), len(node.data or b""))
            # Created and set in one transaction, it has a version and one zxid.
            assert seen.version > 0 or seen.mzxid == seen.czxid or path == "/"

    @invariant()
    def the_replica_is_the_same(self) -> None:
        assert image(self.replica) == image(self.writer.tree)

    @invariant()
    def copies_stay_as_they_were(self) -> None:
        for duplicate, then in self.past:
            assert image(duplicate) == then


TestTreeMachine = TreeMachine.TestCase
