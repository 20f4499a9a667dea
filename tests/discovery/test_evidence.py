"""Which errors are a connection that was refused."""

from __future__ import annotations

import errno

import pytest

from aioregistry._discovery.evidence import is_refusal

REFUSED = ConnectionRefusedError(errno.ECONNREFUSED, "refused")


def caused(cause: BaseException) -> Exception:
    error = RuntimeError("a client's own")
    error.__cause__ = cause
    return error


def in_the_context_of(context: BaseException) -> BaseException:
    error = RuntimeError("while that was handled")
    error.__context__ = context
    return error


def circular() -> BaseException:
    one, other = RuntimeError(), RuntimeError()
    one.__cause__, other.__cause__ = other, one
    return one


@pytest.mark.parametrize(
    "error",
    [
        REFUSED,
        OSError(errno.ECONNREFUSED, "refused"),
        caused(REFUSED),
        in_the_context_of(REFUSED),
        caused(in_the_context_of(caused(REFUSED))),
        ExceptionGroup("all addresses", [TimeoutError(), REFUSED]),
        caused(ExceptionGroup("all addresses", [caused(REFUSED)])),
    ],
)
def test_a_refusal_is_found_behind_what_a_client_raises(error: BaseException) -> None:
    assert is_refusal(error)


@pytest.mark.parametrize(
    "error",
    [None, RuntimeError(), TimeoutError(), OSError(errno.EHOSTUNREACH, "away"), caused(TimeoutError()), circular()],
)
def test_what_else_fails_is_none(error: BaseException | None) -> None:
    assert not is_refusal(error)
