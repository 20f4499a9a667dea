from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from aioregistry.server._sessions import Sessions, first_session_id, password_of

TICK = 2.0


def ended_at(sessions: Sessions, session_id: int) -> float:
    """The first tick that finds the session over."""
    now = 0.0
    while session_id not in [session.id for session in sessions.due(now)]:
        now = sessions.next_tick(now)
    return now


def test_a_session_ends_on_the_tick_after_its_timeout() -> None:
    for start, end in ((0.0, 6.0), (1.0, 6.0), (1.99, 6.0), (2.0, 8.0)):
        sessions = Sessions(TICK, 1)
        session = sessions.create(4000, None, start)
        assert ended_at(sessions, session.id) == end


def test_hearing_of_it_puts_the_end_off() -> None:
    sessions = Sessions(TICK, 1)
    session = sessions.create(4000, None, 0.0)
    assert sessions.touch(session.id, 4000, 5.0)
    assert sessions.due(6.0) == []
    assert ended_at(sessions, session.id) == 10.0


def test_a_shorter_timeout_after_a_reconnect_counts_at_once() -> None:
    sessions = Sessions(TICK, 1)
    session = sessions.create(40_000, None, 0.0)
    sessions.touch(session.id, 4000, 1.0)
    assert ended_at(sessions, session.id) == 6.0


def test_who_is_removed_is_not_known_any_more() -> None:
    sessions = Sessions(TICK, 1)
    session = sessions.create(4000, None, 0.0)
    assert sessions.remove(session.id)
    assert not sessions.remove(session.id)
    assert not sessions.touch(session.id, 4000, 1.0)
    assert sessions.due(100.0) == []


def test_restored_sessions_have_their_whole_timeout() -> None:
    sessions = Sessions(TICK, 1)
    sessions.restore({5: 4000, 6: 8000}, 100.0)
    assert [session.id for session in sessions.due(106.0)] == [5]
    assert len(sessions) == 2


def test_a_new_leader_starts_all_timers_again() -> None:
    sessions = Sessions(TICK, 1)
    session = sessions.create(4000, None, 0.0)
    sessions.restart_timers(5.0)
    assert ended_at(sessions, session.id) == 10.0


def test_ids_follow_each_other_and_have_the_server_in_front() -> None:
    first = first_session_id(3, 1_795_000_000_000)
    assert first >> 56 == 3
    sessions = Sessions(TICK, first)
    assert [sessions.create(4000, None, 0.0).id for _ in range(2)] == [first, first + 1]
    assert first_session_id(0x80, 0) == -(2**63)


def test_a_password_belongs_to_its_session() -> None:
    assert len(password_of(-5)) == 16
    assert password_of(7) == password_of(7) != password_of(8)


actions = st.lists(st.tuples(st.integers(0, 3), st.floats(0.0, 3.0), st.sampled_from([1000, 4000, 9000])), max_size=40)


@given(actions)
def test_nobody_ends_early_or_more_than_a_tick_late(steps: list[tuple[int, float, int]]) -> None:
    """Beside a list of deadlines, under any pattern of ticks and signs of life."""
    sessions, now = Sessions(TICK, 1), 0.0
    deadlines: dict[int, float] = {}
    for _ in range(4):
        deadlines[sessions.create(4000, None, now).id] = now + 4.0
    for number, pause, timeout_ms in steps:
        now += pause
        for session in sessions.due(now):
            assert deadlines.pop(session.id) <= now
            sessions.remove(session.id)
        assert all(deadline + TICK >= now for deadline in deadlines.values())
        if sessions.touch(number + 1, timeout_ms, now):
            deadlines[number + 1] = now + timeout_ms / 1000
        else:
            assert number + 1 not in deadlines
