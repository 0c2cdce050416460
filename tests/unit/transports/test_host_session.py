"""A connection's life as courses of events, and that its table has no dead end."""

import pytest

from switch.domain.hosts import HostKey
from switch.transports.host_session import CODE_OF, NEXT, Close, Do, Event, HostSession, LineState, Send

KEY = HostKey("1125103015", 1)
OTHER = HostKey("1125103015", 2)
QUIET_S, ANSWER_S = 30.0, 10.0


#   step, argument, at, what it does, state afterwards
COURSES = {
    "signs on, is asked how it is, signs off": [
        ("opened", "", 0, ["001"], LineState.SIGNING_ON),
        ("sent", "001", 0, [], LineState.SIGNING_ON),
        ("heard", "", 1, [], LineState.SIGNING_ON),
        ("answered", "001 00", 1, [], LineState.SIGNED_ON),
        ("due", "", 30.9, [], LineState.SIGNED_ON),
        ("due", "", 31, ["301"], LineState.PROBING),
        ("sent", "301", 31, [], LineState.PROBING),
        ("due", "", 32, [], LineState.PROBING),
        ("heard", "", 33, [], LineState.SIGNED_ON),
        ("answered", "301 00", 33, [], LineState.SIGNED_ON),
        ("stop", "", 40, ["002"], LineState.SIGNING_OFF),
        ("sent", "002", 40, [], LineState.SIGNING_OFF),
        ("answered", "002 00", 41, ["close"], LineState.CLOSED),
    ],
    "is refused": [
        ("opened", "", 0, ["001"], LineState.SIGNING_ON),
        ("sent", "001", 0, [], LineState.SIGNING_ON),
        ("answered", "001 91", 1, ["close"], LineState.CLOSED),
    ],
    "gets no answer to its sign-on": [
        ("opened", "", 0, ["001"], LineState.SIGNING_ON),
        ("sent", "001", 0, [], LineState.SIGNING_ON),
        ("due", "", 9.9, [], LineState.SIGNING_ON),
        ("due", "", 10, ["close"], LineState.CLOSED),
    ],
    "is half-open": [
        ("signed on", "", 0, [], LineState.SIGNED_ON),
        ("due", "", 30, ["301"], LineState.PROBING),
        ("sent", "301", 30, [], LineState.PROBING),
        ("due", "", 40, ["close"], LineState.CLOSED),
    ],
    "anything heard proves it, an echo still unanswered does not end it": [
        ("signed on", "", 0, [], LineState.SIGNED_ON),
        ("due", "", 30, ["301"], LineState.PROBING),
        ("sent", "301", 30, [], LineState.PROBING),
        ("heard", "", 31, [], LineState.SIGNED_ON),
        ("due", "", 40, [], LineState.SIGNED_ON),
    ],
    "the host wants a rest": [
        ("signed on", "", 0, [], LineState.SIGNED_ON),
        ("asked", "002", 1, [], LineState.SIGNED_OFF),
        ("asked", "301", 2, [], LineState.SIGNED_OFF),
        ("asked", "001", 3, [], LineState.SIGNED_ON),
    ],
    "the host forgets that it wanted a rest": [
        ("signed on", "", 0, [], LineState.SIGNED_ON),
        ("asked", "002", 1, [], LineState.SIGNED_OFF),
        ("due", "", 30, ["001"], LineState.SIGNING_ON),
        ("sent", "001", 30, [], LineState.SIGNING_ON),
        ("answered", "001 00", 31, [], LineState.SIGNED_ON),
    ],
    "a refused key change changes nothing": [
        ("signed on", "", 0, [], LineState.SIGNED_ON),
        ("sent", "101", 1, [], LineState.SIGNED_ON),
        ("answered", "101 A7", 2, [], LineState.SIGNED_ON),
        ("sent", "101", 3, [], LineState.SIGNED_ON),
        ("due", "", 13, [], LineState.SIGNED_ON),
    ],
    "breaks": [("signed on", "", 0, [], LineState.SIGNED_ON), ("lost", "", 1, [], LineState.CLOSED)],
    "is told to go before it has signed on": [
        ("opened", "", 0, ["001"], LineState.SIGNING_ON),
        ("stop", "", 1, ["close"], LineState.CLOSED),
    ],
    "gets no answer to its sign-off": [
        ("signed on", "", 0, [], LineState.SIGNED_ON),
        ("stop", "", 5, ["002"], LineState.SIGNING_OFF),
        ("sent", "002", 5, [], LineState.SIGNING_OFF),
        ("due", "", 15, ["close"], LineState.CLOSED),
    ],
}


def do(session: HostSession, step: str, argument: str, at: float) -> list[str]:
    actions = []
    if step == "signed on":
        session.opened(at)
        session.sent("001", KEY, at)
        session.answered("001", KEY, "00")
    elif step == "sent":
        session.sent(argument, KEY, at)
    elif step == "answered":
        mine, actions = session.answered(argument[:3], KEY, argument[4:])
        assert mine
    elif step == "asked":
        actions = session.asked(argument)
    elif step == "stop":
        actions = session.stop()
    elif step == "lost":
        session.lost()
    else:
        actions = {"opened": session.opened, "heard": session.heard, "due": session.due}[step](at)
    return ["close" if isinstance(action, Close) else action.code for action in actions]


@pytest.mark.parametrize("course", COURSES)
def test_a_connection(course: str) -> None:
    session = HostSession(QUIET_S, ANSWER_S)
    for step, argument, at, does, state in COURSES[course]:
        assert do(session, step, argument, at) == does, (step, argument)
        assert session.state is state, (step, argument)


def test_an_answer_to_another_request_is_not_taken_for_ours() -> None:
    session = HostSession(QUIET_S, ANSWER_S)
    session.opened(0)
    session.sent("001", KEY, 0)
    assert session.answered("001", OTHER, "00") == (False, [])
    assert session.answered("301", KEY, "00") == (False, [])
    assert session.state is LineState.SIGNING_ON


def test_keys_are_changed_on_a_signed_on_line_one_change_at_a_time() -> None:
    session = HostSession(QUIET_S, ANSWER_S)
    assert not session.may_change_keys()
    do(session, "signed on", "", 0)
    assert session.may_change_keys()
    session.sent("101", KEY, 0)
    assert not session.may_change_keys()
    session.due(ANSWER_S)
    assert session.may_change_keys()


def test_every_state_can_be_left_and_every_closing_move_ends_closed() -> None:
    for state in LineState:
        assert NEXT[state, Event.LOST] == (LineState.CLOSED, Do.NOTHING)
    for following, effect in NEXT.values():
        assert (effect is Do.CLOSE) <= (following is LineState.CLOSED)
    assert set(CODE_OF) == {effect for _, effect in NEXT.values()} - {Do.NOTHING, Do.CLOSE}
    reached = {following for following, _ in NEXT.values()}
    assert reached == set(LineState)
    assert Send("001") == Send("001")
