"""Settings from a command line, the environment and a file, in this order: the first one given counts (pure).

The files are read, and a TLS context and credentials made of them, elsewhere. Every error names
where the value came from, the field and the value; a credential is never shown.
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import PurePath
from types import MappingProxyType
from typing import Any, Final, NamedTuple

from ._arguments import is_number, is_whole
from ._errors import InvalidArgument
from ._paths import check_path
from ._secrets import Secret
from ._session import parse_connect_string

__all__ = [
    "DEFAULTS",
    "FIELDS",
    "AclPart",
    "ConfigFile",
    "Settings",
    "acl_parts",
    "config_file",
    "credentials",
    "login",
    "resolve",
]

PREFIX: Final = "AIOREGISTRY_"

LONGEST_SESSION: Final = (2**31 - 1) / 1000
"""Seconds; the protocol counts milliseconds in 32 bits."""

# ---------------------------------------------------------------- the fields


def _text(value: object) -> str:
    if not isinstance(value, str):
        raise TypeError("give a string")
    return value


def _path(value: object) -> str:
    if not _text(value) or "\0" in _text(value):
        raise ValueError("give the path of a file")
    return _text(value)


def _servers(value: object) -> str:
    parse_connect_string(_text(value))
    return _text(value)


def _base_path(value: object) -> str:
    return check_path("base_path", value)


def _seconds(value: object) -> float:
    reason = f"give a number of seconds above 0 and at most {LONGEST_SESSION:.0f}"
    if not is_number(value) and not isinstance(value, str):
        raise TypeError(reason)
    try:
        seconds = float(value)
    except (ValueError, OverflowError):
        raise ValueError(reason) from None
    if not 0 < seconds <= LONGEST_SESSION:  # NaN compares as False
        raise InvalidArgument("session_timeout", seconds, reason)
    return seconds


def _level(value: object) -> int:
    # Of many digits Python makes no number, in words of its own; the last few say no more than that it is large.
    level = int(value.lstrip("0")[:9] or 0) if isinstance(value, str) and value.isascii() and value.isdigit() else value
    if not is_whole(level) or level < 0:
        raise ValueError("give 0, 1 or 2")
    return min(level, MOST_VERBOSE)


def _log_format(value: object) -> str:
    if value not in LOG_FORMATS:
        raise ValueError(f"give {' or '.join(LOG_FORMATS)}")
    return str(value)


class AclPart(NamedTuple):
    """An entry of an ACL, as it is written."""

    scheme: str
    id: str
    permissions: str


# The id of a certificate has commas and colons of its own.
_ACL_PART: Final = re.compile(r"([A-Za-z0-9]+):(.*?):([cdrwa]+)(?:,(?=[A-Za-z0-9]+:)|$)")


def acl_parts(text: str) -> list[AclPart]:
    """Return the entries of an ACL in the notation of ZooKeeper's own command line: ``auth::cdrwa,world:anyone:r``.

    Raises:
        ValueError: it is not in that notation.
    """
    parts: list[AclPart] = []
    at = 0
    while at < len(text) or not parts:
        match = _ACL_PART.match(text, at)
        if match is None or (match[1] == "auth") is bool(match[2]):  # auth is each identity of the client itself
            raise ValueError("give SCHEME:ID:PERMISSIONS, of the letters cdrwa, such as auth::cdrwa,world:anyone:r")
        parts.append(AclPart(*match.groups()))
        at = match.end()
    return parts


def _acl(value: object) -> str:
    acl_parts(_text(value))
    return _text(value)


MOST_VERBOSE: Final = 2
LOG_FORMATS: Final = ("text", "json")


class _Field(NamedTuple):
    parse: Callable[[object], Any]
    default: Any
    is_path: bool = False


FIELDS: Final[Mapping[str, _Field]] = MappingProxyType(
    {
        "zookeeper": _Field(_servers, "127.0.0.1:2181"),
        "session_timeout": _Field(_seconds, 15.0),
        "base_path": _Field(_base_path, "/services"),
        "tls_ca": _Field(_path, None, is_path=True),
        "tls_cert": _Field(_path, None, is_path=True),
        "tls_key": _Field(_path, None, is_path=True),
        "auth_file": _Field(_path, None, is_path=True),
        "sasl": _Field(_path, None, is_path=True),
        "acl": _Field(_acl, None),
        "verbose": _Field(_level, 0),
        "log_format": _Field(_log_format, "text"),
    }
)
"""A setting: on the command line as ``--session-timeout``, in the environment as ``AIOREGISTRY_SESSION_TIMEOUT``,
in a file as ``session-timeout``."""

DEFAULTS: Final[Mapping[str, Any]] = MappingProxyType({name: field.default for name, field in FIELDS.items()})


# ---------------------------------------------------------------- the file


@dataclass(frozen=True)
class ConfigFile:
    """The settings of a file.

    Args:
        path: where it is; relative paths in it begin in its folder.
        values: by field.
        keys: how each field is written there.
    """

    path: str
    values: Mapping[str, object]
    keys: Mapping[str, str]


def config_file(path: str, text: str) -> ConfigFile:
    """Return the settings that *text*, TOML, has.

    Raises:
        InvalidArgument: it is not TOML, or has a key that is not a setting; neither is shown, it may be a secret.
    """
    try:
        parsed = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise InvalidArgument("config", path, f"is not TOML: {error}") from None
    except ValueError:
        raise InvalidArgument("config", path, "is not TOML: a number has too many digits") from None
    except RecursionError:
        raise InvalidArgument("config", path, "is not TOML: it is nested too deep") from None
    keys: dict[str, str] = {}
    for key in parsed:
        name = key.replace("-", "_")
        if name not in FIELDS:
            known = ", ".join(each.replace("_", "-") for each in FIELDS)
            raise InvalidArgument("config", path, f"the key {key!r} is not a setting, which are {known}")
        if name in keys:
            raise InvalidArgument("config", path, f"the keys {keys[name]!r} and {key!r} are the same setting")
        keys[name] = key
    return ConfigFile(path, {name: parsed[key] for name, key in keys.items()}, keys)


# ---------------------------------------------------------------- what counts


@dataclass(frozen=True)
class Settings:
    """A value that was set, and its source.

    Args:
        values: by field; every field has one.
        sources: by field that was set, as an error calls it: ``"AIOREGISTRY_TLS_CA"``, ``"/etc/a.toml: tls-ca"``.
    """

    values: Mapping[str, Any]
    sources: Mapping[str, str] = field(default_factory=dict)

    def refusal(self, name: str, reason: str) -> InvalidArgument:
        """Return the error for the value of the field *name*, which could not be used for *reason*."""
        return InvalidArgument(self.sources.get(name, name), self.values[name], reason)


def resolve(
    given: Mapping[str, object],
    environment: Mapping[str, str],
    file: ConfigFile | None = None,
    defaults: Mapping[str, Any] = DEFAULTS,
) -> Settings:
    """Return what counts: the command line, else the environment, else the file, else the default.

    Args:
        given: by field, the value from the command line; None if it has no value.
        environment: variables; an empty one says nothing.
        file: what ``--config`` names.
        defaults: by field, those of the command.

    Raises:
        InvalidArgument: a value cannot be one of its field; of those that count only.
    """
    values, sources = dict(defaults), {}
    for name in FIELDS.keys() & defaults.keys():
        found = _found(name, given, environment, file)
        if found is None:
            continue
        sources[name] = found.source
        parsed = _parsed(name, found)
        values[name] = str(found.folder / parsed) if FIELDS[name].is_path else parsed
    return Settings(MappingProxyType(values), MappingProxyType(sources))


class _Found(NamedTuple):
    source: str
    value: object
    folder: PurePath = PurePath()  # where relative paths begin


def _found(
    name: str, given: Mapping[str, object], environment: Mapping[str, str], file: ConfigFile | None
) -> _Found | None:
    if (value := given.get(name)) is not None:
        return _Found(name, value)
    variable = f"{PREFIX}{name.upper()}"
    if text := environment.get(variable):
        return _Found(variable, text)
    if file is not None and name in file.values:
        return _Found(f"{file.path}: {file.keys[name]}", file.values[name], PurePath(file.path).parent)
    return None


def _parsed(name: str, found: _Found) -> Any:
    source, value, _ = found
    try:
        return FIELDS[name].parse(value)
    except InvalidArgument as error:
        raise InvalidArgument(source, error.value, error.reason) from None
    except (TypeError, ValueError) as error:
        raise InvalidArgument(source, value, str(error)) from None


# ---------------------------------------------------------------- the credentials


def credentials(source: str, path: str, text: Secret) -> list[tuple[str, Secret]]:
    """Return the credentials that the *text* of a file has, one a line: ``digest:user:password``.

    Empty lines and those that begin with ``#`` count for nothing.

    Args:
        source: where the file was named, for the error.
        path: the file's.
        text: its contents.

    Raises:
        InvalidArgument: it is not UTF-8, or a line has no scheme, or nothing behind it; the error names the line by its
            number and shows nothing.
    """
    found = []
    for number, line in _lines(source, path, text):
        credential = _credential(line)
        if credential is None:
            reason = f"line {number} is not a scheme, a colon and a credential, such as digest:user:password"
            raise InvalidArgument(source, path, reason)
        found.append(credential)
    if not found:
        raise InvalidArgument(source, path, "has no credential: a line is such as digest:user:password")
    return found


def login(source: str, path: str, text: Secret) -> Secret:
    """Return the login that the *text* of a file has, in one line: ``user:password``.

    Arguments and errors are as of :func:`credentials`.
    """
    lines = _lines(source, path, text)
    if len(lines) != 1:
        raise InvalidArgument(source, path, f"has {len(lines)} logins: give one, in a line such as user:password")
    ((number, line),) = lines
    if not _is_login(line):
        raise InvalidArgument(source, path, f"line {number} is not a user, a colon and a password")
    return line


def _lines(source: str, path: str, text: Secret) -> list[tuple[int, Secret]]:
    # Frames of a traceback keep their variables, so that nothing here is the text or a part of it but as a Secret.
    if not _is_utf_8(text):
        raise InvalidArgument(source, path, "is not UTF-8")
    lines = [Secret(line.strip().encode()) for line in text.decode().splitlines()]
    return [(number, line) for number, line in enumerate(lines, 1) if line and not line.startswith(b"#")]


def _is_utf_8(text: Secret) -> bool:
    try:
        _ = text.decode()
    except UnicodeDecodeError:
        return False
    return True


def _credential(line: Secret) -> tuple[str, Secret] | None:
    scheme, colon, secret = line.decode().partition(":")
    if not (scheme and scheme.isalnum() and colon and secret):
        return None
    return scheme, Secret(secret.encode())


def _is_login(line: Secret) -> bool:
    user, _, password = line.partition(b":")
    return bool(user and password)
