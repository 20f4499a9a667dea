"""The file of a kept snapshot, and who writes it when."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import json
import logging
import os
import resource
import stat
import subprocess
import sys
import tempfile
import threading
import weakref
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from aioregistry._discovery import keeper
from aioregistry._discovery.keeper import Keeper, KeptFile, checked_path
from aioregistry._discovery.kept import Kept, from_bytes, to_bytes
from aioregistry._errors import InvalidArgument
from aioregistry._model import Entry
from tests.discovery.scene import BASE, DiscoverySession, chat
from tests.support.fake_session import FakeRuntime, until
from tests.support.model_tree import ModelTree
from tests.support.reasons import by_code

ROOT = Path(__file__).parents[2]
NOBODY = 65534
DEADLINE = 100.0
LONG = 1000.0
"""Seconds that nobody waits for."""


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "chat.kept"


@pytest.fixture
def file(path: Path) -> KeptFile:
    return KeptFile(path)


def names_in(directory: Path) -> list[str]:
    return sorted(path.name for path in directory.iterdir())


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


@contextlib.contextmanager
def umask(mask: int) -> Iterator[None]:
    before = os.umask(mask)
    try:
        yield
    finally:
        os.umask(before)


# ---------------------------------------------------------------- where it is


def test_a_path_is_absolute_and_links_are_followed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("there").mkdir()
    Path("link").symlink_to("there/chat.kept")
    assert checked_path("chat.kept") == checked_path(Path("there/../chat.kept")) == tmp_path / "chat.kept"
    assert checked_path("link") == tmp_path / "there/chat.kept"


def test_what_a_link_leads_to_is_kept(tmp_path: Path) -> None:
    link, target = tmp_path / "link", tmp_path / "there" / "chat.kept"
    target.parent.mkdir()
    link.symlink_to(target)
    KeptFile(checked_path(link)).write(b"state")
    assert link.is_symlink()
    assert target.read_bytes() == b"state"
    assert names_in(tmp_path) == ["link", "there"]


root_only = pytest.mark.skipif(os.geteuid() != 0, reason="only root can plant another user's link")


@root_only
@pytest.mark.parametrize("where", ["the file", "a directory", "behind a link of ours", "with nothing behind it"])
def test_a_link_of_another_user_is_refused(tmp_path: Path, where: str) -> None:
    home, shared = tmp_path / "home", tmp_path / "shared"
    home.mkdir()
    shared.mkdir()
    shared.chmod(0o1777)
    victim, planted = home / ".bashrc", shared / "planted"
    victim.write_text("my settings")
    match where:
        case "the file" | "behind a link of ours":
            planted.symlink_to(victim)
        case "a directory":
            planted.symlink_to(home)
        case _:
            planted.symlink_to(home / "absent")
    os.chown(planted, NOBODY, NOBODY, follow_symlinks=False)
    ours = tmp_path / "ours"
    ours.symlink_to(planted)
    keep = {"a directory": planted / ".bashrc", "behind a link of ours": ours}.get(where, planted)
    with pytest.raises(InvalidArgument, match=f"a link of another user, uid {NOBODY}") as raised:
        checked_path(keep)
    assert str(planted) in str(raised.value)
    assert names_in(home) == [".bashrc"]


@root_only
def test_a_link_of_roots_is_followed_by_everybody() -> None:
    with tempfile.TemporaryDirectory() as place:
        Path(place).chmod(0o777)
        (Path(place) / "link").symlink_to(Path(place) / "chat.kept")
        with as_somebody_else():
            assert checked_path(Path(place) / "link").name == "chat.kept"


def test_links_in_a_circle_are_no_path(tmp_path: Path) -> None:
    (tmp_path / "a").symlink_to("b")
    (tmp_path / "b").symlink_to("a")
    with pytest.raises(InvalidArgument, match="is not the path of a file"):
        checked_path(tmp_path / "a")


@pytest.mark.parametrize("what", ["the file", "the directory"])
def test_a_link_that_was_put_there_since_is_not_followed(tmp_path: Path, what: str) -> None:
    victim = tmp_path / "victim"
    victim.mkdir()
    directory = tmp_path / "there"
    directory.mkdir()
    file = KeptFile(checked_path(directory / "chat.kept"))
    (victim / "chat.kept").write_bytes(b"mine")
    if what == "the file":
        (directory / "chat.kept").symlink_to(victim / "chat.kept")
    else:
        directory.rmdir()
        directory.symlink_to(victim)
    with pytest.raises(OSError):  # noqa: PT011 - systems word and number it differently
        file.read()
    if what == "the file":
        file.write(b"state")  # in the place of the link
        assert file.read() == b"state"
    else:
        with pytest.raises(OSError):  # noqa: PT011
            file.write(b"state")
    assert (victim / "chat.kept").read_bytes() == b"mine"
    assert names_in(victim) == ["chat.kept"]


@pytest.mark.parametrize("what", ["a hard link", "a pipe", "a directory", "a link"])
@pytest.mark.parametrize("where", ["", ".new", ".damaged"])
def test_what_is_planted_in_a_place_costs_nothing_but_the_keeping(tmp_path: Path, what: str, where: str) -> None:
    victim, planted = tmp_path / "victim", tmp_path / "there" / f"chat.kept{where}"
    victim.write_bytes(b"mine")
    planted.parent.mkdir()
    file = KeptFile(planted.with_name("chat.kept"))
    if where == ".damaged":
        file.write(b"damaged")
        file.read()
    match what:
        case "a hard link":
            planted.hardlink_to(victim)
        case "a pipe":
            os.mkfifo(planted)
        case "a directory":
            planted.mkdir()
        case _:
            planted.symlink_to(victim)
    with contextlib.suppress(OSError):
        file.read()
    with contextlib.suppress(OSError):
        file.set_aside()
    with contextlib.suppress(OSError):
        file.write(b"state")
    assert victim.read_bytes() == b"mine"
    assert names_in(tmp_path) == ["there", "victim"]


@pytest.mark.parametrize("keep", [None, 7, True, b"chat.kept", ["chat.kept"], object()])
def test_what_is_no_path_is_refused(keep: Any) -> None:
    with pytest.raises(InvalidArgument, match="give the path of a file") as raised:
        checked_path(keep)
    assert (raised.value.field, raised.value.value) == ("keep", keep)


@pytest.mark.parametrize(
    ("keep", "reason"),
    [
        ("", "is empty"),
        ("a\0b", "is not the path"),
        ("\ud800", "is not the path"),
        ("absent/chat.kept", "there is no directory"),
        ("file/chat.kept", "there is no directory"),
        ("directory", "exists, and is not a file"),
        ("directory/", "exists, and is not a file"),
        ("pipe", "exists, and is not a file"),
        ("/dev/null", "exists, and is not a file"),
        ("n" * 250, "too long"),
        ("n" * 300, "too long"),
    ],
)
def test_where_no_file_can_be_kept_is_refused(
    keep: str, reason: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("file").touch()
    Path("directory").mkdir()
    os.mkfifo("pipe")
    with pytest.raises(InvalidArgument, match=reason) as raised:
        checked_path(keep)
    assert (raised.value.field, raised.value.value) == ("keep", keep)


@contextlib.contextmanager
def as_somebody_else() -> Iterator[None]:
    """Without the rights of root, which no directory refuses; whoever is not root has none to lose."""
    if os.geteuid():
        yield
        return
    os.seteuid(NOBODY)
    try:
        yield
    finally:
        os.seteuid(0)


@pytest.mark.parametrize("directory", ["closed", "closed/hidden"])
def test_a_directory_that_may_not_be_written_is_refused(directory: str) -> None:
    with tempfile.TemporaryDirectory() as place:  # not pytest's, where nobody else can look
        Path(place).chmod(0o755)
        closed = Path(place, "closed")
        (closed / "hidden").mkdir(parents=True)
        closed.chmod(0o500 if directory == "closed" else 0)
        if not os.geteuid():
            os.chown(closed, NOBODY, -1)
        with (
            as_somebody_else(),
            pytest.raises(InvalidArgument, match=r"cannot be written to|Permission denied"),
        ):
            checked_path(closed.parent / directory / "chat.kept")
        closed.chmod(0o700)


def test_a_file_that_can_be_read_is_enough() -> None:
    """As on a read-only mount: refusing it would stop a start in the very outage that the file is for."""
    with tempfile.TemporaryDirectory() as place:  # not pytest's, where nobody else can look
        Path(place).chmod(0o755)
        closed = Path(place, "closed")
        closed.mkdir()
        kept = closed / "chat.kept"
        kept.write_bytes(b"as it was")
        kept.chmod(0o644)
        closed.chmod(0o555)
        with as_somebody_else():
            path = checked_path(kept)
            assert KeptFile(path).read() == b"as it was"
            with pytest.raises(PermissionError):
                KeptFile(path).write(b"anew")
        assert kept.read_bytes() == b"as it was"
        closed.chmod(0o700)


# ---------------------------------------------------------------- the file


def test_what_is_written_is_read_and_nothing_else_is_left(file: KeptFile, path: Path) -> None:
    assert file.read() is None
    for data in (b"one", b"the second, longer", b"", b"4"):
        file.write(data)
        assert file.read() == data
        assert names_in(path.parent) == [path.name]


@pytest.mark.parametrize("mask", [0, 0o022, 0o777])
def test_nobody_else_may_read_it_for_a_moment(
    mask: int, file: KeptFile, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[int] = []

    def spying(original: Callable[..., None]) -> Callable[..., None]:
        def spy(descriptor: int, *args: Any) -> None:
            found = os.fstat(descriptor).st_mode
            if stat.S_ISREG(found):
                seen.append(found & 0o077)
            original(descriptor, *args)

        return spy

    for name in ("fchmod", "ftruncate", "fsync"):
        monkeypatch.setattr(os, name, spying(getattr(os, name)))
    path.write_bytes(b"copied here by somebody")
    path.chmod(0o644)
    with umask(mask):
        file.write(b"state")
    assert seen == [0, 0, 0]
    assert mode(path) == 0o600


def test_it_is_on_the_disk_before_it_is_in_place_and_then_the_move_is_too(
    file: KeptFile, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[str] = []
    fsync, replace = os.fsync, os.replace

    def spied_fsync(descriptor: int) -> None:
        asked.append("directory" if stat.S_ISDIR(os.fstat(descriptor).st_mode) else "file")
        fsync(descriptor)
        if asked[-1] == "directory":
            raise OSError(errno.EINVAL, "as some file systems answer")

    def spied_replace(*args: Any, **kwargs: Any) -> None:
        asked.append("move")
        replace(*args, **kwargs)

    monkeypatch.setattr(os, "fsync", spied_fsync)
    monkeypatch.setattr(os, "replace", spied_replace)
    file.write(b"state")
    assert asked == ["file", "move", "directory"]
    assert path.read_bytes() == b"state"


def program(what: str, directory: Path) -> list[dict[str, Any]]:
    done = subprocess.run(
        [sys.executable, "-W", "error", "-m", "tests.discovery.killing", what, str(directory)],
        cwd=ROOT, check=True, capture_output=True, text=True, timeout=60,
    )  # fmt: skip
    return [json.loads(line) for line in done.stdout.splitlines()]


def test_a_writer_that_is_killed_leaves_the_old_state_or_the_new_one(tmp_path: Path) -> None:
    deaths = {death.pop("death"): death for death in program("killed", tmp_path)}
    assert len(deaths) == 13
    for name, death in deaths.items():
        held = "new" if name == "after move" else "old"
        beside = 0 if name in ("before open", "after move") else 1
        assert death == {"killed": True, "held": held, "beside": beside, "beside in the end": 0}, name


def test_processes_that_keep_the_same_file_never_mix_their_states(tmp_path: Path) -> None:
    (outcome,) = program("together", tmp_path)
    assert outcome.pop("states") >= 1
    assert outcome == {"mixtures": 0, "failed": 0, "beside": 0}


def test_a_full_disk_leaves_the_old_state(file: KeptFile, path: Path) -> None:
    file.write(b"old")
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (4096, before[1]))
    try:
        with pytest.raises(OSError, check=by_code(errno.EFBIG)):
            file.write(b"new" * 100_000)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert file.read() == b"old"
    assert names_in(path.parent) == [path.name]  # what had been written is given back


def give_away(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """To another user: who is not root becomes another one instead."""
    if os.geteuid():
        monkeypatch.setattr(os, "geteuid", lambda: NOBODY)
    else:
        os.chown(path, NOBODY, -1)


def test_a_file_of_another_user_is_not_read(file: KeptFile, path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file.write(b"call me")
    give_away(path, monkeypatch)
    with pytest.raises(PermissionError, match="another user, uid"):
        file.read()


def test_a_file_that_everybody_may_write_is_not_read(file: KeptFile, path: Path) -> None:
    file.write(b"call me")
    path.chmod(0o602)
    with pytest.raises(PermissionError, match="every user may write"):
        file.read()
    path.chmod(0o664)  # as a volume's group may have made it
    assert file.read() == b"call me"


def test_what_is_no_file_is_not_waited_for(file: KeptFile, path: Path) -> None:
    os.mkfifo(path)
    with pytest.raises(OSError, match="not a regular file"):
        file.read()


def test_a_file_beyond_all_measure_is_not_read(file: KeptFile, path: Path) -> None:
    path.touch(0o600)
    os.truncate(path, keeper.LARGEST + 1)
    with pytest.raises(OSError, match=r"268435457 bytes, more than 268435456"):
        file.read()


def beside(path: Path) -> Path:
    return path.with_name("chat.kept.new")


def a_pipe(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    os.mkfifo(beside(path))


def a_link(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    beside(path).symlink_to(path.parent / "precious")


def a_second_name(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    os.link(path.parent / "precious", beside(path))


def a_strangers(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    beside(path).touch(0o666)
    give_away(beside(path), monkeypatch)


def a_directory(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    beside(path).mkdir()


@pytest.mark.parametrize("trap", [a_pipe, a_link, a_second_name, a_strangers, a_directory])
def test_what_another_put_beside_it_is_not_written_to(
    trap: Callable[[Path, pytest.MonkeyPatch], None], file: KeptFile, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file.write(b"old")
    (path.parent / "precious").write_bytes(b"precious")
    trap(path, monkeypatch)
    with pytest.raises(OSError, match=r"chat\.kept\.new"):
        file.write(b"new")
    assert path.read_bytes() == b"old"
    assert (path.parent / "precious").read_bytes() == b"precious"


def test_a_writer_takes_its_turn(file: KeptFile, path: Path) -> None:
    turns: list[bytes] = []

    def write(data: bytes) -> None:
        file.write(data)
        turns.append(data)

    with file._turn() as (_, descriptor):
        second = threading.Thread(target=write, args=(b"second",))
        second.start()
        os.write(descriptor, b"first")
        beside(path).replace(path)
        turns.append(path.read_bytes())
    second.join(DEADLINE)
    assert turns == [b"first", b"second"]
    assert path.read_bytes() == b"second"


def test_a_turn_that_never_ends_is_not_waited_for(file: KeptFile, path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(keeper, "LOCK_PATIENCE", 0.0)
    with file._turn(), pytest.raises(BlockingIOError):
        KeptFile(path).write(b"second")
    file.write(b"third")
    assert file.read() == b"third"


def test_nine_damaged_files_are_set_aside(file: KeptFile, path: Path) -> None:
    names = []
    for number in range(11):
        path.write_bytes(b"%d" % number)
        assert file.read() == b"%d" % number
        aside = file.set_aside()
        assert aside is not None
        names.append(aside.name)
        assert not path.exists()
    suffixes = ["", *(f".{number}" for number in range(2, 10)), ".9", ".9"]
    assert names == [f"chat.kept.damaged{suffix}" for suffix in suffixes]
    assert (path.parent / "chat.kept.damaged").read_bytes() == b"0"
    assert (path.parent / "chat.kept.damaged.9").read_bytes() == b"10"


def test_only_what_was_read_is_set_aside(file: KeptFile, path: Path) -> None:
    assert file.set_aside() is None
    path.write_bytes(b"damaged")
    file.read()
    KeptFile(path).write(b"written by another since")
    assert file.set_aside() is None
    assert file.read() == b"written by another since"
    path.unlink()
    assert file.set_aside() is None


# ---------------------------------------------------------------- the keeper


@pytest.fixture
def session() -> DiscoverySession:
    return DiscoverySession(ModelTree())


class Scene:
    """A keeper, and the state that it is to keep."""

    def __init__(self, path: Path, session: DiscoverySession) -> None:
        self.path = path
        self.session = session
        self.keeper = Keeper(path, "chat", BASE, session.as_session, weakref.WeakMethod(self.current))
        self.state = state_of("a")

    def current(self) -> Kept:
        return self.state

    def start(self) -> None:
        self.keeper.changed()

    def change(self, *ids: str) -> None:
        self.state = state_of(*ids)
        self.keeper.changed()

    @property
    def writes(self) -> bool:
        return self.keeper._writing is not None

    @property
    def rests_until(self) -> float | None:
        return self.keeper._resting.when

    @property
    def idle(self) -> bool:
        """Whether there is nothing to write, and nothing that it waits for before it may."""
        return not self.writes and self.rests_until is None

    @property
    def kept(self) -> list[str]:
        """The ids in the file."""
        return sorted(from_bytes(self.path.read_bytes(), "chat", BASE).entries) if self.path.exists() else []

    @property
    def failures(self) -> list[str]:
        return [str(fields["reason"]) for name, fields in self.session.emitted if name == "discovery.keep_failed"]


def state_of(*ids: str, known_at: float = 5.0) -> Kept:
    return Kept("chat", BASE, known_at, 7, {id: Entry(chat(id), 1, 2, 3, 4, 5.0, 6.0) for id in ids})


@pytest.fixture
async def scene(path: Path, session: DiscoverySession) -> AsyncIterator[Scene]:
    scene = Scene(path, session)
    yield scene
    await scene.keeper.aclose()
    assert not scene.writes or scene.failures
    assert scene.rests_until is None


async def test_the_first_state_is_written_at_once_and_the_last_on_closing(
    scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(keeper, "PAUSE", LONG)
    gate = Gate(monkeypatch)
    gate.open.set()
    scene.start()
    await until(lambda: scene.kept == ["a"], seconds=DEADLINE)
    for id in ("b", "c", "d"):
        scene.change("a", id)
        await asyncio.sleep(0.001)
    await scene.keeper.aclose()
    assert scene.kept == ["a", "d"]
    assert gate.writings == 2
    assert scene.failures == []


class Gate:
    """Holds every writing until it is opened, and counts."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.open = threading.Event()
        self.writing: list[threading.Thread] = []
        self.most = self.writings = 0
        self._write = KeptFile.write

        def write(file: KeptFile, data: bytes) -> None:
            self._held(file, data)

        monkeypatch.setattr(KeptFile, "write", write)

    def _held(self, file: KeptFile, data: bytes) -> None:
        self.writings += 1
        self.writing.append(threading.current_thread())
        self.most = max(self.most, len(self.writing))
        try:
            assert self.open.wait(DEADLINE)
            self._write(file, data)
        finally:
            self.writing.remove(threading.current_thread())


async def test_whatever_changes_one_state_is_written_at_a_time_and_the_last_one_in_the_end(
    scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(keeper, "PAUSE", 0.001)
    monkeypatch.setattr(keeper, "REST", 0.0)
    gate = Gate(monkeypatch)
    scene.start()
    await until(lambda: gate.writing, seconds=DEADLINE)
    assert gate.writing[0].daemon  # one that never ends does not hold up the exit
    for number in range(100):
        scene.change("a", f"b{number}")
        await asyncio.sleep(0)
    gate.open.set()
    await until(lambda: scene.kept == ["a", "b99"], seconds=DEADLINE)
    await until(lambda: scene.idle, seconds=DEADLINE)
    assert (gate.most, gate.writings) == (1, 2)


async def test_closing_waits_for_the_writing_under_way_and_writes_what_came_since(
    scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    gate = Gate(monkeypatch)
    scene.start()
    await until(lambda: gate.writing, seconds=DEADLINE)
    scene.change("b")
    closing = asyncio.create_task(scene.keeper.aclose())
    await asyncio.sleep(0.01)
    assert not closing.done()
    gate.open.set()
    await closing
    assert scene.kept == ["b"]
    assert (gate.most, gate.writings) == (1, 2)


async def test_a_large_service_rests_longer(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    clock = iter([0.0, 50.0, 50.0])
    monkeypatch.setattr(FakeRuntime, "monotonic", lambda self: next(clock))
    before = asyncio.get_running_loop().time()
    scene.start()
    async with asyncio.timeout(DEADLINE):
        while (rests_until := scene.rests_until) is None:
            await asyncio.sleep(0.001)
    assert rests_until >= before + 450


async def test_a_disk_that_does_not_answer_holds_up_closing_for_a_moment_only(
    scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(keeper, "LAST_WRITE", 0.01)
    gate = Gate(monkeypatch)
    scene.start()
    await until(lambda: gate.writing, seconds=DEADLINE)
    await scene.keeper.aclose()
    assert scene.failures == ["the disk did not answer within 0.01 s"]
    assert len(gate.writing) == 1
    gate.open.set()
    await until(lambda: not gate.writing, seconds=DEADLINE)
    await until(lambda: scene.kept == ["a"], seconds=DEADLINE)


async def test_closing_takes_no_longer_than_its_caller_has(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    gate = Gate(monkeypatch)
    scene.start()
    await until(lambda: gate.writing, seconds=DEADLINE)
    await scene.keeper.aclose(0.02)
    assert scene.failures == ["the disk did not answer within 0.02 s"]
    gate.open.set()
    await until(lambda: not gate.writing, seconds=DEADLINE)


async def test_what_cannot_be_written_is_one_warning_and_tried_with_the_next_change(
    scene: Scene, path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(keeper, "PAUSE", 0.001)
    monkeypatch.setattr(keeper, "REST", 0.0)
    beside(path).mkdir()
    scene.start()
    await until(lambda: len(scene.failures) == 1, seconds=DEADLINE)
    scene.change("b")
    await until(lambda: len(scene.failures) == 2, seconds=DEADLINE)
    (warning,) = [record for record in caplog.records if record.levelno >= logging.WARNING]
    assert "chat.kept was not written: [Errno 21] Is a directory" in warning.getMessage()
    assert scene.session.emitted[0][1] == {
        "service": "chat",
        "path": str(path),
        "reason": f"[Errno 21] Is a directory: '{beside(path)}'",
    }
    beside(path).rmdir()
    scene.change("c")
    await until(lambda: scene.kept == ["c"], seconds=DEADLINE)
    beside(path).mkdir()
    scene.change("d")
    await until(lambda: len(scene.failures) == 3, seconds=DEADLINE)
    assert len([record for record in caplog.records if record.levelno >= logging.WARNING]) == 2
    beside(path).rmdir()


async def test_a_defect_of_the_writing_is_told_with_its_traceback(
    scene: Scene, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def defect(kept: Kept) -> bytes:
        raise KeyError("a defect")

    monkeypatch.setattr(keeper, "to_bytes", defect)
    scene.start()
    await until(lambda: scene.failures == ["KeyError: 'a defect'"], seconds=DEADLINE)
    assert caplog.records[0].exc_info is not None
    monkeypatch.undo()


async def test_a_view_that_was_dropped_is_kept_no_more(
    path: Path, session: DiscoverySession, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(keeper, "PAUSE", 0.001)
    monkeypatch.setattr(keeper, "REST", 0.0)
    gate = Gate(monkeypatch)
    scene: Scene | None = Scene(path, session)
    assert scene is not None
    keeping = scene.keeper
    scene.start()
    await until(lambda: gate.writing, seconds=DEADLINE)
    scene.change("b")
    scene = None
    gate.open.set()
    await until(lambda: keeping._writing is None and keeping._resting.when is None, seconds=DEADLINE)
    await keeping.aclose()
    assert gate.writings == 1
    assert keeping._state() is None


async def test_a_keeper_that_was_not_started_writes_nothing(scene: Scene, path: Path) -> None:
    await scene.keeper.aclose()
    assert not path.exists()


async def test_what_the_process_before_kept_is_loaded(scene: Scene, path: Path) -> None:
    assert await scene.keeper.load() is None
    path.write_bytes(to_bytes(state_of("a", "b")))
    assert await scene.keeper.load() == state_of("a", "b")
    assert scene.session.emitted == []


async def test_nobody_knows_anything_of_the_future(scene: Scene, path: Path) -> None:
    now = scene.session.runtime.wall()
    path.write_bytes(to_bytes(state_of("a", known_at=now + 3600)))
    loaded = await scene.keeper.load()
    assert loaded is not None
    assert loaded.known_at == now


async def test_a_damaged_file_is_set_aside_with_a_warning(
    scene: Scene, path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    damaged = to_bytes(state_of("a"))[:-1]
    path.write_bytes(damaged)
    assert await scene.keeper.load() is None
    assert not path.exists()
    aside = path.with_name("chat.kept.damaged")
    assert aside.read_bytes() == damaged
    fields = {"service": "chat", "path": str(aside), "reason": "its checksum does not match"}
    assert scene.session.emitted == [("discovery.kept_damaged", fields)]
    (warning,) = caplog.records
    assert warning.getMessage() == f"{path} was damaged and is now {aside}: its checksum does not match"


async def test_processes_that_find_the_same_damage_set_it_aside_once(
    scene: Scene, path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    path.write_bytes(b"damaged")
    read = KeptFile.read

    def read_and_be_second(self: KeptFile) -> bytes | None:
        data = read(self)
        path.rename(path.with_name("elsewhere"))
        return data

    monkeypatch.setattr(KeptFile, "read", read_and_be_second)
    assert await scene.keeper.load() is None
    assert (caplog.records, scene.session.emitted) == ([], [])


async def test_a_damaged_file_that_cannot_be_set_aside_is_told_too(
    scene: Scene, path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path.write_bytes(b"damaged")
    for name in ("damaged", *(f"damaged.{number}" for number in range(2, 10))):
        path.with_name(f"chat.kept.{name}").mkdir()
    assert await scene.keeper.load() is None
    assert path.exists()
    (failure,) = scene.failures
    assert "Is a directory" in failure
    assert "is damaged (it does not begin as a kept snapshot does) and could not be renamed" in caplog.text


@pytest.mark.parametrize("call", ["read", "set_aside"])
async def test_a_disk_that_does_not_answer_holds_up_entering_for_a_while_only(
    call: str, scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened, ended = threading.Event(), threading.Event()

    def hang(file: KeptFile) -> None:
        opened.wait(DEADLINE)
        ended.set()

    monkeypatch.setattr(keeper, "LOAD", 0.01)
    monkeypatch.setattr(KeptFile, call, hang)
    async with asyncio.timeout(DEADLINE):
        assert await (scene.keeper.load() if call == "read" else scene.keeper._set_aside("damaged")) is None
    assert scene.failures == ["the disk did not answer within 0.01 s"]
    opened.set()
    assert await asyncio.to_thread(ended.wait, DEADLINE)


async def test_a_process_that_may_have_no_more_threads_keeps_nothing_and_suffers_nothing_else(
    scene: Scene, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def start(thread: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    path.write_bytes(to_bytes(state_of("a")))
    with monkeypatch.context() as patch:
        patch.setattr(threading.Thread, "start", start)
        assert await scene.keeper.load() is None
        scene.start()
        await until(lambda: len(scene.failures) == 2, seconds=DEADLINE)
    assert scene.failures == [f"[Errno {errno.EAGAIN}] no thread can be started"] * 2


async def test_a_file_that_cannot_be_trusted_is_not_used_and_replaced(
    scene: Scene, path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path.write_bytes(to_bytes(state_of("forged")))
    path.chmod(0o666)
    assert await scene.keeper.load() is None
    assert "is not used: [Errno 1] every user may write to it" in caplog.text
    assert len(scene.failures) == 1
    scene.start()
    await until(lambda: scene.kept == ["a"], seconds=DEADLINE)
    assert mode(path) == 0o600


async def test_a_file_of_another_service_is_refused_and_left_alone(scene: Scene, path: Path) -> None:
    data = to_bytes(state_of()._replace(service="mail"))
    path.write_bytes(data)
    with pytest.raises(InvalidArgument) as raised:
        await scene.keeper.load()
    assert (raised.value.field, raised.value.value) == ("keep", str(path))
    assert str(raised.value) == f"keep='{path}': holds a snapshot of service='mail', not of 'chat'"
    assert path.read_bytes() == data
    assert scene.session.emitted == []
