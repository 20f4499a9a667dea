"""The meaning of an error of Python, OpenSSL or the operating system, in words that no other release changes."""

from __future__ import annotations

import errno
import socket
import ssl
from collections.abc import Mapping
from typing import Final

from . import _foreign as foreign
from ._errors import RegistryError

__all__ = ["reason_of", "words_of"]

_SYSTEM: Final[Mapping[int, str]] = {
    errno.EACCES: "Permission denied",
    errno.EADDRINUSE: "Address already in use",
    errno.EADDRNOTAVAIL: "Address not available",
    errno.ECONNABORTED: "Connection aborted",
    errno.ECONNREFUSED: "Connection refused",
    errno.ECONNRESET: "Connection reset by peer",
    errno.EHOSTDOWN: "Host is down",
    errno.EHOSTUNREACH: "No route to host",
    errno.EISDIR: "Is a directory",
    errno.EMFILE: "Too many open files",
    errno.ENAMETOOLONG: "File name too long",
    errno.ENETDOWN: "Network is down",
    errno.ENETUNREACH: "Network is unreachable",
    errno.ENFILE: "Too many open files in system",
    errno.ENOENT: "No such file or directory",
    errno.ENOSPC: "No space left on device",
    errno.ENOTDIR: "Not a directory",
    errno.EPIPE: "Broken pipe",
    errno.EROFS: "Read-only file system",
    errno.ETIMEDOUT: "Connection timed out",
}
"""The names that POSIX gives them, whatever the C library or asyncio makes of them."""

_LOOK_UP: Final[Mapping[int, str]] = {
    socket.EAI_AGAIN: "no name server answers for now",
    socket.EAI_FAIL: "the name server failed",
    socket.EAI_NODATA: "the name has no address",
    socket.EAI_NONAME: "the name is not known",
}

# X509_V_ERR_… of OpenSSL's x509_vfy.h
_CERTIFICATE: Final[Mapping[int, str]] = {
    9: "it is not valid yet",
    10: "it has expired",
    18: "it is self-signed",
    19: "a self-signed certificate is in its chain",
    20: "its issuer is not known here",
    21: "its issuer is not known here",
    23: "it was revoked",
    62: "it is not valid for this host name",
    64: "it is not valid for this IP address",
}


def reason_of(error: BaseException) -> str:
    """Say why something failed: errors of this library say it themselves, those of others are put into our words.

    Where there is no such word the error's own text follows the name of its class.
    """
    match error:
        case RegistryError():
            return str(error)
        case ssl.SSLCertVerificationError():
            problem = _CERTIFICATE.get(error.verify_code, f"OpenSSL's code for it is {error.verify_code}")
            return f"the certificate is not accepted: {problem}"
        case ssl.SSLError():
            return f"TLS failed: {error.reason or type(error).__name__}"
        case socket.gaierror():
            return f"[Errno {error.errno}] {words_of(error)}"
        case OSError(errno=int(number)):
            place = "" if error.filename is None else f": {error.filename!r}"
            return f"[Errno {number}] {_SYSTEM.get(number, error.strerror)}{place}"
        case OSError():
            return str(error) or type(error).__name__
        case _:
            return foreign.shown(error)


def words_of(error: OSError) -> str:
    """Put the operating system's answer into our own words, for people who do not know its number."""
    if isinstance(error, socket.gaierror):
        return _LOOK_UP.get(error.errno or 0, "the name was not resolved")
    if error.errno is None:  # asyncio's, of several addresses that failed in several ways
        return "each of its addresses failed in a way of its own"
    return _SYSTEM.get(error.errno, f"the operating system's error {error.errno}")
