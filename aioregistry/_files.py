"""Files that other users of the machine may have had a hand in."""

from __future__ import annotations

import errno
import os
import stat
from pathlib import Path
from typing import Final

__all__ = ["followed", "is_ours"]

_MOST_LINKS: Final = 40
"""Linux follows as many."""


def followed(given: str) -> tuple[Path, str | None]:
    """Return where *given* leads, and why it must not be followed: a link on the way that another user owns.

    In a directory for everybody, such as ``/tmp``, a link of another user decides which file is read or replaced. Links
    of this user and of root are followed.

    Raises:
        OSError: the links lead in a circle.
    """
    here = Path("/")
    rest = str(Path.cwd() / given).split("/")[::-1]
    links = 0
    while rest:
        part = rest.pop()
        if part == "..":
            here = here.parent
        if part in ("", ".", ".."):
            continue
        there = here / part
        try:
            found = there.lstat()
        except OSError:  # a path that does not exist is not a link
            here = there
            continue
        if not stat.S_ISLNK(found.st_mode):
            here = there
            continue
        links += 1
        if links > _MOST_LINKS:
            raise OSError(errno.ELOOP, "too many links", given)
        if found.st_uid not in (os.geteuid(), 0):
            return there, f"leads through {str(there)!r}, a link of another user, uid {found.st_uid}"
        target = str(there.readlink())
        here = Path("/") if target.startswith("/") else here
        rest += target.split("/")[::-1]
    return here, None


def is_ours(found: os.stat_result) -> bool:
    """Return whether this user or root owns the file, and not every user may write to it."""
    return found.st_uid in (os.geteuid(), 0) and not found.st_mode & stat.S_IWOTH
