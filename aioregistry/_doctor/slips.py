"""Where a registry could be, if one part of its path is wrong, missing, or one too many, or the last two are missing.

Pure.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterator, Mapping, Sequence
from typing import Final

__all__ = ["below", "instead", "looked_at"]

ALIKE: Final = 0.75
"""How much a name has to look like a part of the base path (:func:`difflib.get_close_matches`). The children of any
node could be taken for services; below another chroot the whole base path says that they are."""

DEEPEST: Final = 8
"""Parts of a path of which each may be the wrong one."""


def looked_at(chroot: str, base: str) -> list[str]:
    """Return the nodes whose children :func:`instead` goes by, each once; "" is the root."""
    above = [_path(_parts(chroot)[:number]) for number in range(len(_parts(chroot)[:DEEPEST]) + 1)]
    inside = [f"{chroot}{_path(_parts(base)[:number])}" for number in range(len(_parts(base)[:DEEPEST]))]
    return [*dict.fromkeys(above + inside)]


def below(chroot: str, children: Mapping[str, Sequence[str]]) -> list[str]:
    """Return the nodes below the chroot, whose children :func:`instead` goes by where they are known."""
    return [f"{chroot}/{name}" for name in children.get(chroot, ())]


def instead(chroot: str, base: str, children: Mapping[str, Sequence[str]]) -> list[str]:
    """Return the paths where the services could be instead, the most alike first, each once.

    Args:
        chroot: of the connect string, or "".
        base: the base path, not the root.
        children: of each of :func:`looked_at`, and of those :func:`below`.
    """
    path = f"{chroot}{base}"
    own = {path, f"{path}-withdrawn", f"{path}-overrides"}
    deep = [each for place in below(chroot, children) for each in below(place, children)]
    places = (f"{place}{base}" for place in [*_chroots(_parts(chroot), children), *deep])
    found = [each for each in dict.fromkeys([*places, *_bases(chroot, base, children)]) if each not in own]
    return sorted(found, key=lambda each: -_shared(each, path))


def _chroots(parts: Sequence[str], children: Mapping[str, Sequence[str]]) -> Iterator[str]:
    for number in range(len(parts[:DEEPEST]) + 1):
        above, rest = _path(parts[:number]), parts[number:]
        yield above
        yield f"{above}{_path(rest[1:])}"
        for name in children.get(above, ()):
            yield f"{above}/{name}{_path(rest[1:])}"
            yield f"{above}/{name}{_path(rest)}"


def _bases(chroot: str, base: str, children: Mapping[str, Sequence[str]]) -> Iterator[str]:
    parts = _parts(base)
    for number, part in enumerate(parts[:DEEPEST]):
        above = f"{chroot}{_path(parts[:number])}"
        for name in difflib.get_close_matches(part, children.get(above, ()), 10, ALIKE):
            yield f"{above}/{name}{_path(parts[number + 1 :])}"


def _shared(one: str, other: str) -> float:
    """Return the share of two paths that is the same from the beginning and from the end: a slip leaves much of it."""
    begin = _alike(one, other)
    end = _alike(one[begin:][::-1], other[begin:][::-1])
    return (begin + end) / max(len(one), len(other))


def _alike(one: str, other: str) -> int:
    """Return how many characters two texts have in common before they differ."""
    shorter = min(len(one), len(other))
    return next((at for at in range(shorter) if one[at] != other[at]), shorter)


def _parts(path: str) -> list[str]:
    return [part for part in path.split("/") if part]


def _path(parts: Sequence[str]) -> str:
    return "".join(f"/{part}" for part in parts)
