"""Reasons are the library's own words, whatever the release of Python, OpenSSL or the C library says."""

from __future__ import annotations

import errno
import socket
import ssl

import pytest

from aioregistry._errors import InvalidArgument
from aioregistry._reasons import reason_of


def distrust(code: int) -> ssl.SSLCertVerificationError:
    error = ssl.SSLCertVerificationError(1, "what OpenSSL says")
    error.verify_code = code
    return error


def tls_failure(reason: str | None) -> ssl.SSLError:
    error = ssl.SSLError(1, "what OpenSSL says")
    error.reason = reason  # type: ignore[assignment]
    return error


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (InvalidArgument("port", 70000, "must be within 0..65535"), "port=70000: must be within 0..65535"),
        (ConnectionRefusedError(111, "Connect call failed ('10.0.0.1', 2181)"), "[Errno 111] Connection refused"),
        (OSError(errno.ECONNRESET, "what the system says"), "[Errno 104] Connection reset by peer"),
        (OSError(errno.EISDIR, "what the system says", "/a/b"), "[Errno 21] Is a directory: '/a/b'"),
        (PermissionError(errno.EPERM, "every user may write to it"), "[Errno 1] every user may write to it"),
        (socket.gaierror(socket.EAI_NONAME, "what glibc says"), "[Errno -2] the name is not known"),
        (socket.gaierror(-99, "what glibc says"), "[Errno -99] the name was not resolved"),
        (distrust(62), "the certificate is not accepted: it is not valid for this host name"),
        (distrust(79), "the certificate is not accepted: OpenSSL's code for it is 79"),
        (tls_failure("WRONG_VERSION_NUMBER"), "TLS failed: WRONG_VERSION_NUMBER"),
        (tls_failure(None), "TLS failed: SSLError"),
        (OSError("no name server"), "no name server"),
        (TimeoutError(), "TimeoutError"),
        (KeyError("x"), "KeyError: 'x'"),
        (RuntimeError(), "RuntimeError"),
    ],
    ids=repr,
)
def test_the_reason_of_an_error(error: BaseException, reason: str) -> None:
    assert reason_of(error) == reason
