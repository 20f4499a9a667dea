"""A failure's cause, by the codes that the operating system and OpenSSL give it: their words change with releases."""

from __future__ import annotations

import ssl
from collections.abc import Callable

HOSTNAME_MISMATCH = 62
"""OpenSSL's X509_V_ERR_HOSTNAME_MISMATCH."""


def by_code(number: int) -> Callable[[OSError], bool]:
    """Whether an error of the operating system has this number: `pytest.raises(OSError, check=by_code(errno.EIO))`."""
    return lambda error: error.errno == number


def distrust(error: BaseException | None) -> int | None:
    """Why a certificate was not accepted, by OpenSSL's code; None where that is not what led to *error*."""
    while error is not None:
        if isinstance(error, ssl.SSLCertVerificationError):
            return error.verify_code
        error = error.__cause__ or error.__context__
    return None
