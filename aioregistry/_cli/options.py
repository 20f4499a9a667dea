"""The options that commands share: one line adds them to a parser, one call gives them their values.

A value comes from the command line, else from the environment (``AIOREGISTRY_…``), else from the file that ``--config``
names, else it is the default. Their meaning is in :mod:`aioregistry._settings`; here are argparse and the files.
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:  # which load what --help can do without
    import ssl

    from .._secrets import Secret
    from .._settings import ConfigFile, Settings

__all__ = ["CONNECTION", "LOGGING", "PLACE", "SECURITY", "WRITING", "add_shared", "apply", "connection", "wants_json"]

PLACE: Final = ("zookeeper", "session_timeout")
SECURITY: Final = ("tls_ca", "tls_cert", "tls_key", "auth_file", "sasl")
LOGGING: Final = ("verbose", "log_format")
CONNECTION: Final = (*PLACE, "base_path", *SECURITY, *LOGGING)
"""Those of a command that has a registry."""
WRITING: Final = (*PLACE, "base_path", *SECURITY, "acl", *LOGGING)
"""Those of a command that makes nodes."""

_IN_MEMORY = "a server in memory"

# argparse's arguments; %(default)s is what a command without other sources has.
_OPTIONS: Final[dict[str, dict[str, Any]]] = {
    "zookeeper": {"metavar": "HOSTS", "help": "HOST:PORT,HOST:PORT/CHROOT (default: {default})"},
    "session_timeout": {
        "metavar": "SECONDS",
        "help": "how long ZooKeeper waits for a silent client (default: {default:g}; the server may limit it)",
    },
    "base_path": {"metavar": "PATH", "help": "parent of the services (default: {default})"},
    "tls_ca": {
        "metavar": "FILE",
        "help": "speak TLS, and trust the certificates (PEM) of FILE instead of the system's",
    },
    "tls_cert": {"metavar": "FILE", "help": "speak TLS, and show the certificate (PEM) of FILE"},
    "tls_key": {"metavar": "FILE", "help": "its key, where that is not in the same file"},
    "auth_file": {"metavar": "FILE", "help": "credentials, one a line: digest:user:password"},
    "sasl": {"metavar": "FILE", "help": "a login by SASL's DIGEST-MD5, in one line: user:password"},
    "acl": {
        "metavar": "ACL",
        "help": "of every node that is made, as ZooKeeper's own setAcl takes it: auth::cdrwa,world:anyone:r (default: "
        "everybody may do everything)",
    },
    "verbose": {"action": "count", "help": "write the log to stderr; give it twice for every detail"},
    "log_format": {"metavar": "FORMAT", "help": "the format of stderr: text or json, an object a line (text)"},
}
_FLAGS: Final = {"verbose": ("-v", "--verbose")}


def add_shared(parser: argparse.ArgumentParser, options: Iterable[str] = CONNECTION, **defaults: Any) -> None:
    """Add shared options to the *parser* of a command, and ``--config``.

    Args:
        parser: of the command.
        options: which of them; :data:`CONNECTION` has those of a command with a registry.
        defaults: by option, where the command's differs from the others'.
    """
    defaults = dict(_DEFAULTS) | defaults
    group = parser.add_argument_group("shared options (each also as AIOREGISTRY_NAME, or in the file of --config)")
    names = tuple(options)
    for name in names:
        arguments = dict(_OPTIONS[name])
        default = _IN_MEMORY if defaults[name] is None else defaults[name]
        arguments["help"] = arguments["help"].format(default=default)
        group.add_argument(*_FLAGS.get(name, (f"--{name.replace('_', '-')}",)), dest=name, **arguments)
    group.add_argument("--config", metavar="FILE", help="settings in TOML: session-timeout = 20")
    parser.set_defaults(shared={name: defaults[name] for name in names})


# As in _settings, which loads what --help can do without; a test compares them.
_DEFAULTS: Final[dict[str, Any]] = {
    "zookeeper": "127.0.0.1:2181",
    "session_timeout": 15.0,
    "base_path": "/services",
    **dict.fromkeys(SECURITY),
    "acl": None,
    "verbose": 0,
    "log_format": "text",
}


def apply(arguments: argparse.Namespace) -> Settings | None:
    """Give the shared options of *arguments* their values, and return those; None for a command without such options.

    Raises:
        InvalidArgument: a value is wrong, or the file cannot be used; it names source, field and value.
    """
    defaults = getattr(arguments, "shared", None)
    if defaults is None:
        return None
    from .._settings import resolve

    settings = resolve(vars(arguments), os.environ, _file(arguments.config), defaults)
    vars(arguments).update(settings.values)
    arguments.settings = settings
    return settings


def wants_json(arguments: argparse.Namespace) -> bool:
    """Return whether errors in the settings themselves are to be told as JSON, before the settings are known."""
    return "json" in (getattr(arguments, "log_format", None), os.environ.get("AIOREGISTRY_LOG_FORMAT"))


def _file(given: str | None) -> ConfigFile | None:
    from .._errors import InvalidArgument
    from .._reasons import reason_of
    from .._settings import config_file

    variable = "AIOREGISTRY_CONFIG"
    path = given if given is not None else os.environ.get(variable) or None
    if path is None:
        return None
    source = "config" if given is not None else variable
    try:
        return config_file(path, Path(path).read_text(encoding="utf-8"))
    except UnicodeDecodeError:
        raise InvalidArgument(source, path, "is not TOML: it is not UTF-8") from None
    except InvalidArgument:
        raise
    except ValueError:  # a zero byte
        raise InvalidArgument(source, path, "give the path of a file") from None
    except OSError as error:
        raise InvalidArgument(source, path, f"cannot be read: {reason_of(error)}") from None


def connection(arguments: argparse.Namespace) -> dict[str, Any]:
    """Return what :func:`aioregistry.connect` takes of the shared options of *arguments*, by keyword.

    Reads the files of TLS and of credentials.

    Raises:
        InvalidArgument: one of them cannot be used; it names source, field and path, and shows nothing of the contents.
    """
    settings: Settings = arguments.settings
    return {
        "servers": arguments.zookeeper,
        "session_timeout": arguments.session_timeout,
        "base_path": arguments.base_path,
        "tls": _tls(settings),
        "auth": _auth(settings),
        **_acl(settings),
    }


def _acl(settings: Settings) -> dict[str, Any]:
    from aiozk.protocol.acl import ACL

    from .._settings import acl_parts

    text = settings.values.get("acl")
    if text is None:
        return {}
    rights = {"read": "r", "write": "w", "create": "c", "delete": "d", "admin": "a"}
    return {
        "acl": [
            ACL.make(part.scheme, part.id, **{right: letter in part.permissions for right, letter in rights.items()})
            for part in acl_parts(text)
        ]
    }


def _auth(settings: Settings) -> list[tuple[str, bytes]]:
    from .._settings import credentials, login

    found: list[tuple[str, bytes]] = []
    if (text := _secret_file(settings, "auth_file")) is not None:
        found += credentials(settings.sources["auth_file"], settings.values["auth_file"], text)
    if (text := _secret_file(settings, "sasl")) is not None:
        if any(scheme == "sasl" for scheme, _ in found):
            raise settings.refusal("sasl", "gives a second login by SASL beside that of auth-file: give one")
        found.append(("sasl", login(settings.sources["sasl"], settings.values["sasl"], text)))
    return found


def _secret_file(settings: Settings, name: str) -> Secret | None:
    from .._reasons import reason_of
    from .._secrets import Secret

    path = settings.values[name]
    if path is None:
        return None
    try:
        return Secret(Path(path).read_bytes())
    except OSError as error:
        raise settings.refusal(name, f"cannot be read: {reason_of(error)}") from None


def _tls(settings: Settings) -> ssl.SSLContext | None:
    import ssl

    ca, cert, key = (settings.values[name] for name in ("tls_ca", "tls_cert", "tls_key"))
    if key is not None and cert is None:
        raise settings.refusal("tls_key", "is the key of a certificate: give that as tls-cert")
    if ca is None and cert is None:
        return None
    _require_readable(settings, "tls_ca", "tls_cert", "tls_key")
    try:
        context = ssl.create_default_context(cafile=ca)  # which checks host names
    except ssl.SSLError:
        raise settings.refusal("tls_ca", "has no certificate in PEM") from None
    if cert is not None:
        try:
            context.load_cert_chain(cert, key, password=_no_password)
        except _Encrypted:
            raise settings.refusal("tls_cert" if key is None else "tls_key", "is encrypted: decrypt the key") from None
        except ssl.SSLError:
            where = "the same file" if key is None else repr(key)
            raise settings.refusal("tls_cert", f"is not a certificate in PEM with its key in {where}") from None
    return context


def _require_readable(settings: Settings, *names: str) -> None:
    # Asked before OpenSSL is, whose errors do not say which of the files it was.
    from .._reasons import reason_of

    for name in names:
        path = settings.values[name]
        if path is None:
            continue
        try:
            Path(path).read_bytes()
        except OSError as error:
            raise settings.refusal(name, f"cannot be read: {reason_of(error)}") from None


class _Encrypted(Exception):
    """A key can be read with a password only, for which OpenSSL would ask the terminal."""


def _no_password() -> str:
    raise _Encrypted
