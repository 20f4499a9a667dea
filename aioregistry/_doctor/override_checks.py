"""The checks of overrides. Pure."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from aioregistry._overrides import UnfitOverride, read_override

from .picture import Picture
from .places import full_path

__all__ = ["overrides_ending", "overrides_endless", "unreadable_overrides"]

SOON: Final = 600.0
"""Seconds: enough for a person to prolong it."""


def unreadable_overrides(picture: Picture) -> Iterator[tuple[str, str]]:
    for (name, id), node in picture.overrides.items():
        if node.data is None:
            yield full_path(picture, node.path), "may not be read by these credentials"
            continue
        try:
            _ = read_override(node.data, name, id, 0, 0)
        except UnfitOverride as unfit:
            yield full_path(picture, node.path), f"has no effect: {unfit}"


def overrides_ending(picture: Picture) -> Iterator[tuple[str, str]]:
    for path, until in _ends_of_overrides(picture):
        if until is not None and until - picture.now < SOON:
            left = until - picture.now
            text = f"ends in {left:.0f} s" if left > 0 else f"ended {abs(left):.0f} s ago, and is still there"
            yield path, text


def overrides_endless(picture: Picture) -> Iterator[tuple[str, str]]:
    for path, until in _ends_of_overrides(picture):
        if until is None:
            yield path, "never ends"


def _ends_of_overrides(picture: Picture) -> Iterator[tuple[str, float | None]]:
    for (name, id), node in picture.overrides.items():
        if node.stat is None or node.data is None:
            continue
        try:
            override = read_override(node.data, name, id, node.stat.mtime, node.stat.version)
        except UnfitOverride:
            continue  # another check finds it
        yield full_path(picture, node.path), override.until
