"""Keeps the last snapshot of a view in a file: the file itself, and who writes it when.

**The file** is replaced as a whole: a new one is written beside it, synced to the disk and moved into its place, so
that a process that is killed or runs out of space leaves the old state or the new one. Beside it is always the same
place, so that nothing piles up; processes that keep the same file take turns there by a lock, which ends with its
holder.

**The keeper** writes from a thread, one state at a time and not all the time; the last one is written when it closes.
Errors of the file are logged and never raised: discovery does not depend on a disk.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import fcntl
import logging
import os
import stat
import time
import weakref
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final, TypeVar

import anyio

from aioregistry._concurrency import Alarm, in_daemon_thread
from aioregistry._errors import InvalidArgument, InvalidType
from aioregistry._files import followed
from aioregistry._reasons import reason_of
from aioregistry._session import ReadingSessionPort

from .kept import Damaged, Foreign, Kept, from_bytes, to_bytes

__all__ = ["Keeper", "KeptFile", "checked_path"]

log = logging.getLogger("aioregistry.discovery")

T = TypeVar("T")

PAUSE: Final = 1.0
"""Seconds, at least, from the end of one writing to the next."""

REST: Final = 9.0
"""How many times as long as it took to write it rests: a large service costs a tenth of one core at most."""

LAST_WRITE: Final = 3.0
"""Seconds that closing waits for the last state to be written; far more than a disk that works takes."""

_THREAD: Final = "aioregistry-keep"

LOAD: Final = 30.0
"""Seconds that entering waits for the file; far more than reading the largest one takes."""

LOCK_PATIENCE: Final = 10.0
"""Seconds for which a writer waits for another process that is writing; far more than it takes."""

LARGEST: Final = 256 * 2**20
"""Bytes of the largest file that is read: some 600,000 instances, more than ZooKeeper lists in one answer."""

_LOCK_POLL = 0.01  # seconds
_ONLY_A_PATH = getattr(os, "O_PATH", os.O_RDONLY)
"""Where there is no such mode, a directory on the way must be readable."""
_NEW = ".new"
_ASIDE = (".damaged", *(f".damaged.{number}" for number in range(2, 10)))
_LONGEST_SUFFIX = len(_ASIDE[-1])


# ---------------------------------------------------------------- the file


def checked_path(keep: object) -> Path:
    """Return the absolute path of the file that *keep* leads to, links followed.

    Raises:
        InvalidArgument: it is not a path, no file can be kept there, or it leads over a link of another user, who is
            not
            root: in a directory for everybody he would decide which file is replaced.
    """
    if not isinstance(keep, str | os.PathLike) or not isinstance(given := os.fspath(keep), str):
        raise InvalidType("keep", keep, f"give the path of a file, not {type(keep).__name__}")
    try:
        os.fsencode(given)
        path, foreign = followed(given)
        why = "is empty" if not given else foreign or _unfit(path)
    except ValueError as error:
        raise InvalidArgument(
            "keep", keep, "is not the path of a file: a path cannot contain a null or half a character"
        ) from error
    except OSError as error:
        raise InvalidArgument("keep", keep, f"is not the path of a file: {reason_of(error)}") from error
    if why is not None:
        raise InvalidArgument("keep", keep, why)
    return path


def _unfit(path: Path) -> str | None:
    directory = path.parent
    # Not pathlib's is_dir() and exists(): what they make of a directory that may not be searched differs by release.
    try:
        there = stat.S_ISDIR(directory.stat().st_mode)
    except (FileNotFoundError, NotADirectoryError):
        there = False
    if not there:
        return f"there is no directory {str(directory)!r}"
    if len(os.fsencode(path.name)) + _LONGEST_SUFFIX > os.pathconf(directory, "PC_NAME_MAX"):
        return "its name is too long"
    with contextlib.suppress(FileNotFoundError):
        if not stat.S_ISREG(path.stat().st_mode):
            return "exists, and is not a file"
        # An outage on a read-only mount: what can be read is worth more than what cannot be written later, of which
        # the keeper warns.
        if _may(os.R_OK, path):
            return None
    if not _may(os.W_OK | os.X_OK, directory):
        return f"the directory {str(directory)!r} cannot be written to"
    return None


def _may(mode: int, path: Path) -> bool:
    return os.access(path, mode, effective_ids=os.access in os.supports_effective_ids)


class KeptFile:
    """A file that is replaced as a whole, for its owner only. Every call may block, and raises OSError.

    No link is followed: whatever has become one since the path was checked is an error.

    Args:
        path: absolute, without links; see :func:`checked_path`.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._name = path.name
        self._new = path.name + _NEW
        self._found: os.stat_result | None = None

    def read(self) -> bytes | None:
        """Return the bytes of the file, or None if there is no file.

        Raises:
            OSError: it cannot be read, is larger than 256 MiB, or could have been written by another user: he would
                decide whom this process calls.
        """
        # A pipe in the place of the file would have the opening wait for its writer.
        flags = os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOFOLLOW
        try:
            with self._directory() as directory:
                descriptor = os.open(self._name, flags, dir_fd=directory)
        except FileNotFoundError:
            return None
        with os.fdopen(descriptor, "rb") as file:
            found = self._found = os.fstat(descriptor)
            if not stat.S_ISREG(found.st_mode):
                raise OSError(errno.EINVAL, "it is not a regular file", str(self.path))
            if found.st_uid not in (os.geteuid(), 0):
                raise PermissionError(errno.EPERM, f"it belongs to another user, uid {found.st_uid}", str(self.path))
            if found.st_mode & stat.S_IWOTH:
                raise PermissionError(errno.EPERM, "every user may write to it", str(self.path))
            if found.st_size > LARGEST:
                raise OSError(errno.EFBIG, f"it has {found.st_size} bytes, more than {LARGEST}", str(self.path))
            return file.read()

    def write(self, data: bytes) -> None:
        """Replace the file's contents by *data*, which is on the disk when this returns."""
        with self._turn() as (directory, descriptor):
            try:
                os.fchmod(descriptor, 0o600)  # the umask may have taken even the owner's rights
                os.ftruncate(descriptor, 0)
                with open(descriptor, "wb", closefd=False) as file:
                    file.write(data)
                os.fsync(descriptor)
                os.replace(self._new, self._name, src_dir_fd=directory, dst_dir_fd=directory)
            except OSError:
                with contextlib.suppress(OSError):
                    os.unlink(self._new, dir_fd=directory)  # a full disk gets its space back
                raise
            _sync(directory)

    def set_aside(self) -> Path | None:
        """Rename the file that was read, and return its new path; nine are kept, the last is replaced by a tenth.

        Return None where it is not there any more: a process that keeps the same file has found the same.
        """
        with self._directory() as directory:
            if self._found is None or not _is_at(self._found, self._name, directory):
                return None
            places = [self._name + suffix for suffix in _ASIDE]
            aside = next((place for place in places if _entry(place, directory) is None), places[-1])
            os.replace(self._name, aside, src_dir_fd=directory, dst_dir_fd=directory)
        return self.path.with_name(aside)

    @contextlib.contextmanager
    def _directory(self) -> Iterator[int]:
        """Open the directory of the file, following no link on the way: one may have been put there since."""
        flags = _ONLY_A_PATH | os.O_DIRECTORY | os.O_CLOEXEC | os.O_NOFOLLOW
        descriptor = os.open("/", flags)
        try:
            for part in self.path.parts[1:-1]:
                above, descriptor = descriptor, os.open(part, flags, dir_fd=descriptor)
                os.close(above)
            yield descriptor
        except OSError as error:
            if isinstance(error.filename, str):  # inside the directory
                error.filename = str(self.path.parent / error.filename)
            raise
        finally:
            os.close(descriptor)

    @contextlib.contextmanager
    def _turn(self) -> Iterator[tuple[int, int]]:
        """Hold the place beside the file, open for writing; no other process writes there meanwhile.

        Gives the open directory, and the place.
        """
        flags = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK
        with self._directory() as directory:
            while True:
                descriptor = os.open(self._new, flags, 0o600, dir_fd=directory)
                try:
                    _check_own(descriptor, self.path.with_name(self._new))
                    _lock(descriptor)
                    # The previous holder of the lock has renamed the locked file to the kept file, or removed it.
                    if _is_at(os.fstat(descriptor), self._new, directory):
                        yield directory, descriptor
                        return
                finally:
                    os.close(descriptor)


def _sync(directory: int) -> None:
    # The new state is in place; what a crash of the system could undo is the move, which some file systems cannot be
    # asked to sync.
    with contextlib.suppress(OSError):
        descriptor = os.open(".", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC, dir_fd=directory)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def _check_own(descriptor: int, path: Path) -> None:
    found = os.fstat(descriptor)
    if not stat.S_ISREG(found.st_mode) or found.st_uid != os.geteuid() or found.st_nlink > 1:
        raise PermissionError(errno.EPERM, f"uid {found.st_uid} made it, not this process", str(path))


def _lock(descriptor: int) -> None:
    until = time.monotonic() + LOCK_PATIENCE
    while True:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if time.monotonic() > until:
                raise
            time.sleep(_LOCK_POLL)
        else:
            return


def _is_at(found: os.stat_result, name: str, directory: int) -> bool:
    there = _entry(name, directory)
    return there is not None and os.path.samestat(found, there)


def _entry(name: str, directory: int) -> os.stat_result | None:
    try:
        return os.stat(name, dir_fd=directory, follow_symlinks=False)
    except FileNotFoundError:
        return None


# ---------------------------------------------------------------- the keeper


class Keeper:
    """Writes the states of one view, and reads the last one of the process before.

    Args:
        path: of the file, as :func:`checked_path` returns it.
        service: the service that is kept.
        base_path: where it is.
        session: whose clocks count, and whose hook is told.
        state: returns the state to keep now, or None if it has not changed; weakly, because a file is not a reason
            for a view to stay.
    """

    def __init__(
        self,
        path: Path,
        service: str,
        base_path: str,
        session: ReadingSessionPort,
        state: weakref.WeakMethod[Callable[[], Kept | None]],
    ) -> None:
        self._file = KeptFile(path)
        self._service = service
        self._base_path = base_path
        self._session = session
        self._state = state
        self._due = self._closing = self._failing = False
        self._began: float | None = None
        self._writing: asyncio.Future[None] | None = None
        self._resting = Alarm()

    async def load(self) -> Kept | None:
        """Return the kept snapshot; None, after a warning, if it cannot be used. Cancelling is harmless.

        A file that is damaged is renamed.

        Raises:
            InvalidArgument: it is whole, and of another service, base path or version of the format.
        """
        try:
            kept = await self._in_time(in_daemon_thread(self._read, name=_THREAD), LOAD)
        except Foreign as foreign:
            raise InvalidArgument("keep", str(self._file.path), str(foreign)) from None
        except Damaged as damaged:
            await self._set_aside(str(damaged))
        except OSError as error:  # TimeoutError included
            self._failed("is not used", error)
        else:
            # The clock may have been ahead when it was written: a snapshot cannot be from the future.
            return kept and kept._replace(known_at=min(kept.known_at, self._session.runtime.wall()))
        return None

    def changed(self) -> None:
        """There is a state to keep; it is written as soon as may be."""
        self._due = True
        if self._writing is None and self._resting.when is None:
            self._write()

    async def aclose(self, patience: float = LAST_WRITE) -> None:
        """Write the last state, if there was any, within *patience* seconds, and three at most."""
        self._closing = True
        self._resting.cancel()
        if self._began is None:
            return
        patience = min(max(patience, 0.0), LAST_WRITE)
        with anyio.move_on_after(patience) as scope:
            await self._written_what_is_under_way()
            self._write()
            await self._written_what_is_under_way()
        if scope.cancelled_caught:
            self._failed("was not written", TimeoutError(f"the disk did not answer within {patience:.3g} s"))

    async def _written_what_is_under_way(self) -> None:
        if self._writing is not None:
            await asyncio.wait([self._writing])

    def _write(self) -> None:
        state = self._state()
        if state is None:
            return  # the view was dropped
        kept = state()
        if kept is None:
            return
        self._due = False
        self._began = self._session.runtime.monotonic()
        self._writing = in_daemon_thread(lambda: self._file.write(to_bytes(kept)), name=_THREAD)
        self._writing.add_done_callback(self._written)

    def _written(self, writing: asyncio.Future[None]) -> None:
        assert self._began is not None
        self._writing = None
        error = writing.exception()
        if error is None:
            self._failing = False
        else:
            # One warning until it is good again: a disk that is full stays full for hours.
            self._failed("was not written", error, level=logging.DEBUG if self._failing else logging.WARNING)
            self._failing = True
        if not self._closing:
            took = self._session.runtime.monotonic() - self._began
            self._resting.set_in(max(PAUSE, took * REST), self._rested)

    def _rested(self) -> None:
        if self._due:
            self._write()

    async def _in_time(self, answer: asyncio.Future[T], seconds: float) -> T:
        with anyio.move_on_after(seconds):
            return await answer
        raise TimeoutError(f"the disk did not answer within {seconds:g} s")

    def _read(self) -> Kept | None:
        data = self._file.read()
        return None if data is None else from_bytes(data, self._service, self._base_path)

    async def _set_aside(self, reason: str) -> None:
        try:
            aside = await self._in_time(in_daemon_thread(self._file.set_aside, name=_THREAD), LOAD)
        except OSError as error:
            self._failed(f"is damaged ({reason}) and could not be renamed", error)
            return
        if aside is None:
            return
        about = {"service": self._service}
        log.warning("%s was damaged and is now %s: %s", self._file.path, aside, reason, extra=about)
        self._session.emit("discovery.kept_damaged", service=self._service, path=str(aside), reason=reason)

    def _failed(self, what: str, error: BaseException, level: int = logging.WARNING) -> None:
        told, defect = (self._file.path, what, reason_of(error)), not isinstance(error, OSError)
        log.log(level, "%s %s: %s", *told, exc_info=defect, extra={"service": self._service})
        self._session.emit(
            "discovery.keep_failed", service=self._service, path=str(self._file.path), reason=reason_of(error)
        )
