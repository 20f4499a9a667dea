"""`aioregistry export`: a file that another program reads, kept up to date."""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import logging
import os
import stat
import sys
import tempfile
from collections.abc import Coroutine, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from aioregistry import InvalidArgument, NoAuth, Registry, View
from aioregistry._concurrency import Notifier
from aioregistry._exports import (
    ALIKE,
    Quiet,
    Rendered,
    Selection,
    Services,
    Weights,
    render,
    selected,
    usable,
    weights_of,
)
from aioregistry._files import followed, is_ours
from aioregistry._paths import check_name
from aioregistry._reasons import reason_of

from .outages import connected
from .output import Output
from .process import DONE
from .programs import PLACES, complaint_of, found, words_of

__all__ = ["export"]

_PATIENCE: Final = 60.0
"""Seconds that --exec and the check of a configuration may take."""

_CHECKED: Final = ("haproxy", "nginx")
"""The formats of files that a program of the same name checks."""

_AGAIN: Final = 30.0
"""Seconds after which what failed is tried again without a change."""

_DEVICES: Final = (Path("/dev"), Path("/dev/fd"))
"""Their links lead to standard output and the like."""

_HAPROXY_AROUND: Final = """defaults
    mode tcp
    timeout connect 1s
    timeout client 1s
    timeout server 1s
frontend aioregistry-export-check
    bind 127.0.0.1:1
"""
_NGINX_AROUND: Final = """pid {folder}/pid;
error_log stderr;
events {{}}
http {{
    access_log off;
    client_body_temp_path {folder}/body;
    include {folder}/checked;
}}
"""


async def export(arguments: argparse.Namespace) -> int:
    """Write the file after each change, until cancelled; what happens is told on stderr."""
    exporter = _Exporter(arguments)
    async with Output(sys.stderr, lambda: None) as output, connected(arguments, output, wait=False) as registry:
        await exporter.run(registry, output)
    return DONE


class _Exporter:
    def __init__(self, arguments: argparse.Namespace) -> None:
        self._format: str = arguments.format
        self._form = arguments.form
        self._out = Path(arguments.out)
        self._names = [check_name("name", name) for name in arguments.names]
        self._minimum: int = arguments.minimum
        if self._minimum < 0:
            raise InvalidArgument("minimum", self._minimum, "give a number of instances, 0 or more")
        self._quiet = _quiet(arguments.wait)
        self._exec = None if arguments.exec is None else words_of("exec", arguments.exec)
        _check_place(arguments.out)
        self._views: dict[str, View[Any]] = {}
        self._unreadable: set[str] = set()
        self._news = Notifier()
        self._former: Services | None = None
        self._weights: Mapping[str, Weights] = {}
        """The weights of the instances in `_former`."""
        self._told: dict[str, str] = {}
        self._tasks: dict[asyncio.Task[None], None] = {}
        self._unused = False
        """--exec has not run yet for the last file that was written."""

    async def run(self, registry: Registry, output: Output) -> None:
        """Follow the services and write, until cancelled; raises the error that ends the following of a service."""
        self._output = output
        self._failure: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        try:
            if self._names:
                for name in self._names:
                    _ = self._spawn(self._follow(registry, name))
            else:
                _ = self._spawn(self._follow_all(registry))
            _ = self._spawn(self._write_on_change())
            await self._failure
        finally:
            await _cancelled([*self._tasks])

    def _spawn(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:  # its failure ends the command
        task = asyncio.get_running_loop().create_task(work)
        self._tasks[task] = None
        task.add_done_callback(self._ended)
        return task

    def _ended(self, task: asyncio.Task[None]) -> None:
        del self._tasks[task]
        if not task.cancelled() and (error := task.exception()) is not None and not self._failure.done():
            self._failure.set_exception(error)

    # ------------------------------------------------------------------ what there is

    async def _follow_all(self, registry: Registry) -> None:
        following: dict[str, asyncio.Task[None]] = {}
        async for names in registry.watch_services():
            for name in set(following) - set(names):
                await _cancelled([following.pop(name)])
                self._views.pop(name, None)
                self._unreadable.discard(name)
            for name in sorted(set(names) - set(following)):
                following[name] = self._spawn(self._follow_if_readable(registry, name))
            self._names = list(names)
            self._changed()

    async def _follow_if_readable(self, registry: Registry, name: str) -> None:
        """Follow a service that was not asked for by its name: one that may not be read ends no other's export."""
        while True:
            try:
                await self._follow(registry, name)
            except NoAuth as error:
                self._views.pop(name, None)
                self._unreadable.add(name)
                kept = "its former instances are kept" if name in (self._former or {}) else "not exported"
                self._tell(f"unreadable {name}", f"{name}: {error}", f"{kept}: ", f"{name} can be read now")
                self._changed()
                await asyncio.sleep(_AGAIN)
            else:
                return

    async def _follow(self, registry: Registry, name: str) -> None:
        async with registry.discover(name) as view:
            self._views[name] = view
            self._unreadable.discard(name)
            self._tell(f"unreadable {name}", "", "", f"{name} can be read now")
            async for _ in view.snapshots():
                self._changed()

    def _changed(self) -> None:
        self._quiet.changed(asyncio.get_running_loop().time())
        self._news.notify()

    # ------------------------------------------------------------------ writing

    async def _write_on_change(self) -> None:
        again: float | None = None
        while True:
            await self._is_due(again)
            self._quiet.written()
            # Until every service was seen once nothing is written: an empty list would be a lie.
            synced = all(name in self._views or name in self._unreadable for name in self._names)
            again = _AGAIN if synced and not await self._written() else None

    async def _is_due(self, again: float | None) -> None:
        """Wait until something changed and it is quiet; at most *again* seconds where nothing changes."""
        loop = asyncio.get_running_loop()
        while (due := self._quiet.due) is None:
            if not await self._news.wait(again):
                return
        while (due := self._quiet.due) is not None and (pause := due - loop.time()) > 0:
            await self._news.wait(pause)

    async def _written(self) -> bool:
        """Write what there is; return whether that was done, or nothing is to be done."""
        snapshots = {name: self._views[name].snapshot for name in self._names if name in self._views}
        weights = {name: weights_of(snapshot.entries.values()) for name, snapshot in snapshots.items()}
        present = {name: usable(snapshot.values(), weights[name]) for name, snapshot in snapshots.items()}
        former = self._former or {}
        present |= {name: former[name] for name in self._names if name not in snapshots and name in former}
        chosen = selected(present, self._former, minimum=self._minimum)
        self._tell_of_what_is_kept(present, chosen)
        nothing = "there is no service" if chosen.services is None and not present else ""
        self._tell("nothing", nothing, f"{self._out} is kept as it was, because of --minimum {self._minimum}: ", "")
        if chosen.services is None:
            return True
        kept = (*chosen.collapsed, *(name for name in present if name not in snapshots))
        weights |= {name: self._weights.get(name, ALIKE) for name in kept}
        rendered = render(self._format, chosen.services, weights)
        self._tell("left out", "; ".join(rendered.left_out), "not exported: ", "")
        data = rendered.text.encode()
        try:
            changed = _former(self._out) is None or self._out.read_bytes() != data
            if changed:
                complaint = await self._complaint(data)
                if complaint is not None:
                    self._tell("check", complaint, f"{self._out} is kept as it was: ", "")
                    return False
                _replace(self._out, data)
        except OSError as error:
            self._tell("write", reason_of(error), f"{self._out} cannot be written, and will be tried again: ", "")
            return False
        self._former, self._weights = chosen.services, weights
        for kind in ("check", "write"):
            self._told.pop(kind, None)
        if changed:
            self._unused = True
            self._say(f"{self._out}: {_counted(rendered, chosen.services)}")
        return await self._executed()

    def _tell_of_what_is_kept(self, present: Services, chosen: Selection) -> None:
        """A service has former instances that are kept, or it never had enough: then there is nothing to keep of it."""
        fewer = f"fewer than --minimum {self._minimum}"
        for name in {**present, **dict.fromkeys(chosen.collapsed)}:
            left = f"{len(present.get(name, ()))} of {name} left, {fewer}" if name in chosen.collapsed else ""
            self._tell(f"minimum {name}", left, "its former instances are kept: ", f"{name}: there are enough again")
        for name in present:
            few = f"{len(present[name])} of {name} so far, {fewer}" if name in chosen.waiting else ""
            kept = f"{self._out} is kept as it was: " if chosen.services is None else "not exported yet: "
            self._tell(f"waiting {name}", few, kept, f"{name}: there are enough now")
        for name in self._views:
            suspects = len(self._views[name].snapshot.suspects)
            text = f"{suspects} of {name} went together, unexplained" if suspects else ""
            self._tell(f"suspects {name}", text, "kept for a while: ", f"{name}: nothing is held back now")

    async def _complaint(self, data: bytes) -> str | None:
        """Return why the program that reads it would not take it; None where it would, or is not there."""
        if self._format not in _CHECKED:
            return None
        program = found(self._format)
        missing = f"there is no program {self._format} on PATH or in {' or '.join(PLACES)}"
        self._tell("unchecked", "" if program else missing, f"{self._out} is written without a check: ",
                   f"{self._out} is checked by {program}")  # fmt: skip
        if program is None:
            return None
        with tempfile.TemporaryDirectory(prefix="aioregistry-") as folder:
            return await complaint_of(_check(self._format, program, Path(folder), data), timeout=_PATIENCE)

    async def _executed(self) -> bool:
        if self._exec is None or not self._unused:
            return True
        complaint = await complaint_of(self._exec, timeout=_PATIENCE)
        self._tell("exec", complaint or "", "--exec is tried again: ", "--exec succeeded")
        self._unused = complaint is not None
        return not self._unused

    # ------------------------------------------------------------------ telling

    def _tell(self, kind: str, text: str, before: str, over: str) -> None:
        """Say *text* once, for as long as it is the same; *over* when there is nothing to say any more."""
        told = self._told.get(kind, "")
        if text == told:
            return
        self._told[kind] = text
        if text:
            self._say(f"{before}{text}", logging.WARNING)
        elif over:
            self._say(over)

    def _say(self, text: str, level: int = logging.INFO) -> None:
        with contextlib.suppress(OSError):
            _ = self._output.put(self._form.said(text, level))


def _check(format: str, program: str, folder: Path, data: bytes) -> list[str]:
    """Return the command by which *program* reads *data* as a part of a configuration that has nothing else."""
    checked, around = folder / "checked", folder / "around"
    checked.write_bytes(data)
    if format == "haproxy":
        around.write_text(_HAPROXY_AROUND)
        return [program, "-c", "-q", "-f", str(around), "-f", str(checked)]
    around.write_text(_NGINX_AROUND.format(folder=folder))
    return [program, "-t", "-q", "-p", str(folder), "-c", str(around), "-e", "stderr"]


async def _cancelled(tasks: Sequence[asyncio.Task[Any]]) -> None:
    for task in tasks:
        task.cancel()
    if tasks:
        await asyncio.wait(tasks)


def _counted(rendered: Rendered, services: Services) -> str:
    instances = sum(map(len, services.values())) - len(rendered.left_out)
    return f"written, with {instances} instances of {len(services)} services"


def _quiet(text: str) -> Quiet:
    least, colon, most = text.partition(":")
    try:
        seconds = float(least), float(most) if colon else 4 * float(least)
    except ValueError:
        seconds = -1.0, -1.0
    if not 0 <= seconds[0] <= seconds[1] < float("inf"):
        raise InvalidArgument("wait", text, "give seconds, MIN:MAX, the first at most the second")
    return Quiet(*seconds)


def _check_place(out: str) -> None:
    if not out or "\0" in out:
        raise InvalidArgument("out", out, "give the path of a file")
    path = Path(out)
    folder, foreign = followed(str(path.parent))
    if foreign is not None:
        raise InvalidArgument("out", out, foreign)
    if path.is_dir():
        raise InvalidArgument("out", out, "is a folder: give the path of a file")
    # A rename replaces a device for every process of the machine, where this user may.
    if not _replaceable(path) or folder in _DEVICES or folder.is_relative_to("/proc"):
        raise InvalidArgument("out", out, "is a device, a pipe or a socket, which a file would replace: give another")
    if not path.parent.is_dir():
        raise InvalidArgument("out", out, "its folder does not exist")
    if not os.access(path.parent, os.W_OK):
        raise InvalidArgument("out", out, "its folder may not be written to")


def _replaceable(path: Path) -> bool:
    """Return whether there is a file or a link at *path*, or nothing."""
    try:
        mode = path.lstat().st_mode
    except OSError:
        return True
    return stat.S_ISREG(mode) or stat.S_ISLNK(mode)


def _former(path: Path) -> os.stat_result | None:
    """Return the file at *path*, if no other user has put it there or can change it later."""
    try:
        found = path.lstat()
    except FileNotFoundError:
        return None
    return found if stat.S_ISREG(found.st_mode) and is_ours(found) else None


def _replace(path: Path, data: bytes) -> None:
    """Put *data* at *path* by a rename: readers meet the former file or the new one, and Envoy watches for that."""
    former = _former(path)
    mode = 0o644 if former is None else former.st_mode & 0o777
    descriptor, scratch = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(data)
            file.flush()
            os.fchmod(file.fileno(), mode)
            os.fsync(file.fileno())
        Path(scratch).replace(path)
    except BaseException:
        with contextlib.suppress(OSError):
            Path(scratch).unlink()
        raise
