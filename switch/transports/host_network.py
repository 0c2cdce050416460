"""Network management with a host: sign-on, echo and keys, on whichever of its connections.

What is due on a connection is decided by its session (`host_session`); here it is said, and what the host asks is answered.
"""

import asyncio
from collections.abc import Callable
from datetime import UTC, datetime

import structlog

from switch.domain.errors import SwitchError
from switch.domain.hosts import HostKey, host_key
from switch.keys.records import KeyMissingError
from switch.messages.dialect import HostMessage
from switch.messages.host_1987 import ECHO, KEY_CHANGE, SIGN_OFF, SIGN_ON
from switch.messages.host_mapping import AnswerKey, network_answer_fields, network_fields
from switch.messages.message import Fields
from switch.transports.host_line import HostLine
from switch.transports.host_oddities import Oddities
from switch.transports.host_session import Action, Close
from switch.transports.host_terms import HostKeys, LinkTerms

log = structlog.get_logger(__name__)

# What a host may ask us; anything else is answered 40.
_ANSWERED_CODES = {SIGN_ON: "00", SIGN_OFF: "00", ECHO: "00"}


class HostNetwork:
    """The conversation beside the requests. framed: makes a frame with its MAC; stopping: set when the link ends."""

    def __init__(
        self,
        terms: LinkTerms,
        keys: HostKeys,
        oddities: Oddities,
        framed: Callable[[str, Fields], bytes],
        now_s: Callable[[], float],
        stopping: asyncio.Event,
    ) -> None:
        self._terms = terms
        self._keys = keys
        self._oddities = oddities
        self._framed = framed
        self._now_s = now_s
        self._stopping = stopping
        self._trace = 0
        self._settled_change: bytes | None = None  # keys that the host has answered, well or not

    def _key(self) -> HostKey:
        self._trace = self._trace % 999_999 + 1
        return host_key(self._trace, datetime.now(UTC))

    def send(self, line: HostLine, code: str, extra: Fields | None = None) -> None:
        """A network management request on one connection."""
        key = self._key()
        line.session.sent(code, key, self._now_s())
        self._put(line, "0800", network_fields(code, key, self._terms.parties) | (extra or {}))

    def _put(self, line: HostLine, mti: str, fields: Fields) -> None:
        """A network management message; without keys there is nothing to say on this connection."""
        try:
            framed = self._framed(mti, fields)
        except KeyMissingError as error:
            self._oddities.tell("host connection closed", reason=str(error))
            line.close("keys")
            return
        line.send(framed)

    def answer(self, line: HostLine, key: AnswerKey, message: HostMessage) -> None:
        """The host has answered a request of ours."""
        code, response = message.fields.get(70, ""), message.fields.get(39, "")
        mine, actions = line.session.answered(code, key.key, response)
        if not mine:
            self._oddities.met("nowhere")
        elif code == KEY_CHANGE:
            log.log(
                20 if response == "00" else 40,
                "host answered new keys",
                host=self._terms.name,
                answer=response,
            )
            self._settled_change = self._keys.key_change()
        self.act(line, actions)

    def serve(self, line: HostLine, message: HostMessage) -> None:
        """Answer a network management request of the host."""
        if line.full:  # it asks and does not read: answers would pile up
            line.close("full")
            return
        code = message.fields.get(70, "")
        known = {7, 11, 70} <= message.fields.keys()
        response = _ANSWERED_CODES.get(code, "40") if known else "30"
        self._put(line, "0810", network_answer_fields(message, response))
        if known:
            self.act(line, line.session.asked(code))

    def act(self, line: HostLine, actions: list[Action]) -> None:
        """Do what a session says."""
        for action in actions:
            if isinstance(action, Close) and self._stopping.is_set():
                line.close("stopping")
            elif isinstance(action, Close):
                self._oddities.tell("host connection closed", reason=action.reason)
                line.close("session")
            else:
                self.send(line, action.code)

    def offer_keys(self, lines: list[HostLine]) -> None:
        """Send keys that wait, on one of the usable connections; again after a time-out, not after an answer."""
        if not lines or not all(line.session.may_change_keys() for line in lines):
            return
        try:
            change = self._keys.key_change()
        except SwitchError as error:
            self._oddities.tell("new keys cannot be sent", rule=str(error))
            return
        if change is not None and change != self._settled_change:
            self.send(lines[0], KEY_CHANGE, {62: change})
