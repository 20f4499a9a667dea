"""ZooKeeper's rules for a path, checked before anything is sent."""

from __future__ import annotations

import re

from ._errors import InvalidArgument, InvalidType, wrong_argument

__all__ = ["check_name", "check_path", "check_segment", "place_of"]

# The characters that the server's PathUtils.validatePath refuses. It looks at UTF-16 units, so a character beyond the
# BMP, two surrogates there, is refused as well.
_NOT_IN_SEGMENTS = re.compile("[/\0-\x1f\x7f-\x9f\ud800-\uf8ff\ufff0-\U0010ffff]")


def check_segment(field: str, value: object) -> str:
    """Return *value* if it can be one segment of a path; raises :class:`InvalidArgument`."""
    if not isinstance(value, str):
        raise InvalidType(field, value, f"must be str, not {type(value).__name__}")
    if value in ("", ".", ".."):
        raise InvalidArgument(field, value, "is not a path segment")
    if bad := _NOT_IN_SEGMENTS.search(value):
        raise InvalidArgument(field, value, f"a path segment cannot contain {bad.group()!r}")
    return value


def check_name(field: str, value: object) -> str:
    """Return *value* if it can be the name of a service: segments of a path, with slashes between, before and behind.

    Curator takes such names as paths below its base path, and Spring's documentation gives some of them.
    """
    if isinstance(value, str) and "/" in value:
        for segment in value.strip("/").split("/"):
            if segment in ("", ".", "..") or _NOT_IN_SEGMENTS.search(segment):
                raise InvalidArgument(field, value, f"{segment!r} is not a path segment that ZooKeeper allows")
        return value
    return check_segment(field, value)


def place_of(name: str) -> str:
    """Return where the service *name* is kept below the base path: slashes before and behind make no difference."""
    return name.strip("/")


def check_path(field: str, path: object) -> str:
    """Return *path* without a trailing slash; raises :class:`InvalidArgument` unless it is an absolute znode path."""
    if not isinstance(path, str) or not path.startswith("/"):
        raise wrong_argument(field, path, "a znode path begins with a slash", str)
    trimmed = path.rstrip("/")
    for segment in trimmed.split("/")[1:]:
        if segment in ("", ".", "..") or _NOT_IN_SEGMENTS.search(segment):
            raise InvalidArgument(field, path, f"{segment!r} is not a path segment that ZooKeeper allows")
    return trimmed or "/"
