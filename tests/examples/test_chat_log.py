"""The order of a chat room on which all copies agree, whatever reaches them when, and how often."""

from __future__ import annotations

from random import Random

from hypothesis import given
from hypothesis import strategies as st

from docs.examples.chat.room import KEPT, Log
from docs.examples.chat.wire import Message, Say

MESSAGES = st.lists(
    st.builds(
        Message,
        id=st.sampled_from("abcdef"),
        name=st.just("Ada"),
        text=st.just("Hello"),
        at=st.integers(1, 9),
        by=st.sampled_from(["chat-1", "chat-2"]),
    ),
    max_size=20,
)


@given(MESSAGES, st.randoms(), st.integers(0, 20))
def test_copies_that_know_the_same_have_it_in_the_same_order(messages: list[Message], random: Random, at: int) -> None:
    one, other = Log(), Log()
    one.merge(messages)
    shuffled = random.sample(messages, len(messages))
    other.merge(shuffled[:at])
    other.merge(shuffled[at:])
    other.merge(one)
    assert list(one) == list(other)
    assert one.merge(other) == []


@given(MESSAGES)
def test_what_is_new_comes_last(messages: list[Message]) -> None:
    log = Log()
    log.merge(messages)
    said = Say("new", "Ada", "Hello")
    placed = log.place(said, by="chat-1")
    assert list(log)[-1] == placed
    assert log.place(said, by="chat-2") == placed


def test_it_forgets_the_first_ones() -> None:
    log = Log()
    for number in range(KEPT + 10):
        log.place(Say(f"m-{number}", "Ada", "Hello"), by="chat-1")
    assert [message.id for message in log] == [f"m-{number}" for number in range(10, KEPT + 10)]
    old = Message("m-0", "Ada", "Hello", 1, "chat-1")
    assert log.merge([old]) == []
    assert len(log) == KEPT
