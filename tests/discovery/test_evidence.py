"""Which errors are a connection that was refused, and how many of them say that an instance is dead."""

from __future__ import annotations

import errno

import pytest

from aioregistry._discovery.evidence import Refusals, is_refusal

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


@pytest.mark.parametrize(("behind", "found"), [(63, True), (64, False)])
def test_of_a_chain_without_an_end_64_errors_are_looked_at(behind: int, found: bool) -> None:
    error: BaseException = REFUSED
    for _ in range(behind):
        error = caused(error)
    assert is_refusal(error) is found


# ---------------------------------------------------------------- how many refusals are enough


def refused_and_answered(*, answered: float, since: float, again: float = 3.0) -> Refusals:
    """Of *a*, which refuses at 1, and *again* to a call that began at *since*; meanwhile *b* has *answered*."""
    refusals = Refusals()
    refusals.refused("a", since=0.0, now=1.0)
    refusals.answered("b", answered)
    refusals.refused("a", since=since, now=again)
    return refusals


@pytest.mark.parametrize(
    ("answered", "since", "again", "dead"),
    [
        (2.0, 1.0, 3.0, True),
        (1.0, 1.0, 3.0, True),
        (0.9, 1.0, 3.0, False),  # nobody answered since
        (2.0, 0.9, 3.0, False),  # a call that began before the first refusal says nothing new
        (1.0, 1.0, 1.0, False),  # one moment is not two
    ],
)
def test_two_refusals_while_another_answers_are_enough(answered: float, since: float, again: float, dead: bool) -> None:
    refusals = refused_and_answered(answered=answered, since=since, again=again)
    assert refusals.condemn(["a", "other"], again) == ({"a"} if dead else set())
    assert len(refusals) == 1


def test_the_word_of_one_that_refuses_itself_is_none() -> None:
    refusals = Refusals()
    refusals.answered("a", 1.0)
    refusals.refused("a", since=0.0, now=1.0)
    refusals.refused("a", since=1.0, now=2.0)
    assert refusals.condemn(["a"], 2.0) == set()


def test_a_refusal_speaks_for_half_a_minute_and_until_a_good_call() -> None:
    refusals = refused_and_answered(answered=2.0, since=1.0)
    assert refusals.condemn(["a"], 33.0) == {"a"}
    assert refusals.condemn(["a"], 33.1) == set()
    assert refusals.condemn(["b"], 3.0) == set()
    for good in (True, False):
        refusals = refused_and_answered(answered=2.0, since=1.0)
        if good:
            refusals.answered("a", 4.0)
        else:
            refusals.forget("a")
        assert (refusals.condemn(["a"], 4.0), len(refusals)) == (set(), 0)


def test_all_that_refuse_twice_are_dead_after_five_seconds_of_silence() -> None:
    refusals = Refusals()
    for id in ("a", "b"):
        refusals.refused(id, since=0.0, now=1.0)
    refusals.refused("a", since=1.0, now=2.0)
    assert refusals.condemn(["a"], 5.9) == set()
    assert refusals.condemn(["a"], 6.0) == {"a"}
    assert refusals.condemn(["a", "b"], 6.0) == set()
    refusals.refused("b", since=0.9, now=2.0)
    assert refusals.condemn(["a", "b"], 6.0) == set()
    refusals.refused("b", since=1.0, now=2.0)
    assert refusals.condemn(["a", "b"], 6.0) == {"a", "b"}
    refusals.answered("other", 6.0)
    assert refusals.condemn(["a", "b"], 60.0) == set()
    refusals.refused("a", since=6.0, now=7.0)
    refusals.refused("a", since=7.0, now=8.0)
    refusals.forget("a")
    assert refusals.condemn(["a"], 60.0) == set()


def test_the_refusals_of_ten_thousand_are_remembered() -> None:
    refusals = Refusals()
    for number in range(10_001):
        refusals.refused(f"n{number}", since=0.0, now=1.0)
    assert len(refusals) == 10_000
    refusals.answered("other", 1.0)
    refusals.refused("n1", since=1.0, now=2.0)
    assert refusals.condemn(["n0", "n1", "n2"], 2.0) == {"n1"}
    refusals.refused("n0", since=1.0, now=2.0)  # its first was forgotten
    assert "n0" not in refusals.condemn(["n0", "n1", "n2"], 2.0)
