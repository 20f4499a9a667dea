"""Writers of a kept file that are killed, or many: `python -m tests.discovery.killing killed|together DIRECTORY`.

`killed` kills a writer before and after each thing that it asks of the system, and says as a line of JSON for each what
the file held then, what was left beside it, and what was left when the next writer was done. `together` has several
processes write the same file as fast as they can, and says how many different states were read meanwhile.
"""

from __future__ import annotations

import fcntl
import json
import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

from aioregistry._discovery import keeper
from aioregistry._discovery.keeper import KeptFile

OLD, NEW = b"old" * 100_000, b"newer" * 100_000
STEPS: dict[str, tuple[Any, str]] = {
    "open": (os, "open"),
    "lock": (fcntl, "flock"),
    "restrict": (os, "fchmod"),
    "empty": (os, "ftruncate"),
    "sync": (os, "fsync"),
    "move": (os, "replace"),
}
WRITERS, TIMES = 3, 20


def left_beside(directory: Path) -> int:
    return len(list(directory.iterdir())) - 1


def forked(work: Callable[[], None]) -> int:
    pid = os.fork()
    if not pid:
        work()
        os._exit(0)
    return pid


def die(*_: object) -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def killed_at(step: str, when: Literal["before", "after"], file: KeptFile) -> None:
    """Write, and die at the first of these."""
    place, name = STEPS[step]
    original = getattr(place, name)

    def fatal(*args: Any, **kwargs: Any) -> Any:
        if step == "open" and not args[1] & os.O_CREAT:
            return original(*args, **kwargs)  # a directory
        if when == "before":
            die()
        original(*args, **kwargs)
        return die()

    setattr(place, name, fatal)
    file.write(NEW)


def half_written(file: KeptFile) -> None:
    """Die when half of it has reached the disk."""

    def fsync(descriptor: int) -> None:
        os.ftruncate(descriptor, len(NEW) // 2)
        die()

    os.fsync = fsync  # type: ignore[assignment]
    file.write(NEW)


def killed(directory: Path) -> None:
    deaths: dict[str, Callable[[KeptFile], None]] = {"half written": half_written}
    for step in STEPS:
        for when in ("before", "after"):
            deaths[f"{when} {step}"] = lambda file, step=step, when=when: killed_at(step, when, file)  # type: ignore[misc]
    file = KeptFile(directory / "kept")
    for name, death in deaths.items():
        file.write(OLD)
        _, status = os.waitpid(forked(lambda death=death: death(file)), 0)  # type: ignore[misc]
        held, beside = file.read(), left_beside(directory)
        file.write(b"")
        print(
            json.dumps(
                {
                    "death": name,
                    "killed": os.WIFSIGNALED(status),
                    "held": {OLD: "old", NEW: "new"}.get(held or b"", "?"),
                    "beside": beside,
                    "beside in the end": left_beside(directory),
                }
            )
        )


def together(directory: Path) -> None:
    states = [bytes([ord("a") + writer]) * (100_000 + 7 * writer) for writer in range(WRITERS)]

    def write(state: bytes) -> None:
        for _ in range(TIMES):
            KeptFile(directory / "kept").write(state)

    keeper.LOCK_PATIENCE = 50.0  # type: ignore[misc] # the disk may be slow, and turns are not taken in order
    file = KeptFile(directory / "kept")
    file.write(states[0])
    pids = [forked(lambda state=state: write(state)) for state in states]  # type: ignore[misc]
    read, mixtures, failed = set[bytes](), 0, 0
    while pids:
        found = file.read() or b""
        mixtures += found not in states
        read.add(found)
        pid, status = os.waitpid(-1, os.WNOHANG)
        if pid:
            pids.remove(pid)
            failed += status != 0
    beside = left_beside(directory)
    print(json.dumps({"states": len(read), "mixtures": mixtures, "failed": failed, "beside": beside}))


if __name__ == "__main__":
    {"killed": killed, "together": together}[sys.argv[1]](Path(sys.argv[2]))
