"""One connection to a host: who may say what, when. No socket, no clock: events and monotonic seconds go in, actions come out.

The connection's life is the table NEXT; a pair that is not in it changes nothing. A half-open connection, on which bytes
leave and nothing comes back, is found by asking: a line that has been quiet for a while is sent an echo, is PROBING until
something is heard, and is closed when nothing is.
"""

from enum import Enum, auto
from typing import NamedTuple

from switch.domain.hosts import HostKey
from switch.messages.host_1987 import ECHO, KEY_CHANGE, SIGN_OFF, SIGN_ON


class LineState(Enum):
    """Where a connection stands."""

    CLOSED = "closed"
    SIGNING_ON = "signing on"
    SIGNED_ON = "signed on"
    PROBING = "probing"  # quiet for too long; maybe half-open
    SIGNED_OFF = "signed off"  # the host wants no requests now
    SIGNING_OFF = "signing off"


class Event(Enum):
    """What happens to it."""

    OPENED = auto()
    ACCEPTED = auto()  # our sign-on or sign-off was answered 00
    REFUSED = auto()  # ... or otherwise
    HEARD = auto()  # a message with a good MAC has come, whatever it says
    QUIET = auto()  # nothing heard for the time after which we ask
    UNANSWERED = auto()  # nothing in answer to sign-on, echo or sign-off
    HOST_SIGNS_ON = auto()
    HOST_SIGNS_OFF = auto()
    STOP = auto()  # we are going
    LOST = auto()


class Do(Enum):
    """What follows, besides the new state."""

    NOTHING = auto()
    SEND_SIGN_ON = auto()
    SEND_ECHO = auto()
    SEND_SIGN_OFF = auto()
    CLOSE = auto()


_S, _E, _D = LineState, Event, Do
NEXT = {
    (_S.CLOSED, _E.OPENED): (_S.SIGNING_ON, _D.SEND_SIGN_ON),
    (_S.SIGNING_ON, _E.ACCEPTED): (_S.SIGNED_ON, _D.NOTHING),
    (_S.SIGNING_ON, _E.REFUSED): (_S.CLOSED, _D.CLOSE),
    (_S.SIGNING_ON, _E.UNANSWERED): (_S.CLOSED, _D.CLOSE),
    (_S.SIGNING_ON, _E.STOP): (_S.CLOSED, _D.CLOSE),
    (_S.SIGNED_ON, _E.QUIET): (_S.PROBING, _D.SEND_ECHO),
    (_S.SIGNED_ON, _E.HOST_SIGNS_OFF): (_S.SIGNED_OFF, _D.NOTHING),
    (_S.SIGNED_ON, _E.STOP): (_S.SIGNING_OFF, _D.SEND_SIGN_OFF),
    (_S.PROBING, _E.HEARD): (_S.SIGNED_ON, _D.NOTHING),
    (_S.PROBING, _E.UNANSWERED): (_S.CLOSED, _D.CLOSE),
    (_S.PROBING, _E.HOST_SIGNS_OFF): (_S.SIGNED_OFF, _D.NOTHING),
    (_S.PROBING, _E.STOP): (_S.SIGNING_OFF, _D.SEND_SIGN_OFF),
    (_S.SIGNED_OFF, _E.HOST_SIGNS_ON): (_S.SIGNED_ON, _D.NOTHING),
    (_S.SIGNED_OFF, _E.QUIET): (_S.SIGNING_ON, _D.SEND_SIGN_ON),  # it may have forgotten to tell us
    (_S.SIGNED_OFF, _E.STOP): (_S.CLOSED, _D.CLOSE),
    (_S.SIGNING_OFF, _E.ACCEPTED): (_S.CLOSED, _D.CLOSE),
    (_S.SIGNING_OFF, _E.REFUSED): (_S.CLOSED, _D.CLOSE),
    (_S.SIGNING_OFF, _E.UNANSWERED): (_S.CLOSED, _D.CLOSE),
} | {(state, _E.LOST): (_S.CLOSED, _D.NOTHING) for state in LineState}

CODE_OF = {Do.SEND_SIGN_ON: SIGN_ON, Do.SEND_ECHO: ECHO, Do.SEND_SIGN_OFF: SIGN_OFF}
USABLE = frozenset({LineState.SIGNED_ON, LineState.PROBING})
_AWAITED_IN = {SIGN_ON: _S.SIGNING_ON, ECHO: _S.PROBING, SIGN_OFF: _S.SIGNING_OFF}
_HOST_EVENTS = {SIGN_ON: Event.HOST_SIGNS_ON, SIGN_OFF: Event.HOST_SIGNS_OFF}


class Send(NamedTuple):
    """Send a network management request with this code, then say so with `sent`."""

    code: str


class Close(NamedTuple):
    """Close the connection."""

    reason: str


Action = Send | Close


class _Pending(NamedTuple):
    code: str
    key: HostKey
    until_s: float


class HostSession:
    """One connection's conversation. quiet_s: until an echo; answer_s: what sign-on, echo and sign-off may take."""

    __slots__ = ("_answer_s", "_heard_s", "_pending", "_quiet_s", "state")

    def __init__(self, quiet_s: float, answer_s: float) -> None:
        self._quiet_s = quiet_s
        self._answer_s = answer_s
        self._pending: dict[str, _Pending] = {}  # by code: at most one of each
        self._heard_s = 0.0
        self.state = LineState.CLOSED

    def _move(self, event: Event, reason: str = "") -> list[Action]:
        following = NEXT.get((self.state, event))
        if following is None:
            return []
        self.state, do = following
        if do is Do.CLOSE:
            return [Close(reason)]
        return [Send(CODE_OF[do])] if do in CODE_OF else []

    def opened(self, now_s: float) -> list[Action]:
        """The connection stands."""
        self._heard_s = now_s
        return self._move(Event.OPENED)

    def lost(self) -> None:
        """The connection is gone."""
        self._pending.clear()
        self._move(Event.LOST)

    def stop(self) -> list[Action]:
        """Sign off and close."""
        return self._move(Event.STOP, "stopping")

    def sent(self, code: str, key: HostKey, now_s: float) -> None:
        """A network management request has left."""
        self._pending[code] = _Pending(code, key, now_s + self._answer_s)

    def may_change_keys(self) -> bool:
        """Whether a key change may be sent now."""
        return self.state is LineState.SIGNED_ON and KEY_CHANGE not in self._pending

    def heard(self, now_s: float) -> list[Action]:
        """A message with a good MAC has come."""
        self._heard_s = now_s
        return self._move(Event.HEARD)

    def asked(self, code: str) -> list[Action]:
        """The host has sent a network management request, which is answered by the shell."""
        event = _HOST_EVENTS.get(code)
        return [] if event is None else self._move(event)

    def answered(self, code: str, key: HostKey, response: str) -> tuple[bool, list[Action]]:
        """The host has answered a network management request of ours; False when it was none of the latest."""
        pending = self._pending.get(code)
        if pending is None or pending.key != key:
            return False, []
        del self._pending[code]
        if self.state is not _AWAITED_IN.get(code):
            return True, []
        event = Event.ACCEPTED if response == "00" else Event.REFUSED
        return True, self._move(event, f"{self.state.value} was answered {response}")

    def due(self, now_s: float) -> list[Action]:
        """What the passing of time brings."""
        actions: list[Action] = []
        for code, pending in list(self._pending.items()):
            if now_s >= pending.until_s:
                del self._pending[code]
                if self.state is _AWAITED_IN.get(code):
                    actions += self._move(Event.UNANSWERED, f"no answer while {self.state.value}")
        if now_s - self._heard_s >= self._quiet_s and ECHO not in self._pending:
            actions += self._move(Event.QUIET)
        return actions
