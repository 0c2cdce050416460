"""A till for scenario tests: a simulated POS whose every frame and every answer the test sees, on lines that it chooses.

`Seen` remembers each approval that a terminal believed; `check_books` holds them, and the books as a whole, against the database.
"""

import asyncio
import contextlib
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any, ClassVar

import psycopg

from switch.domain.transactions import Kind
from switch.messages.codec import decode
from switch.messages.framing import FrameReader
from switch.messages.message import Message
from terminal_sim.frames import CardData, Terminal
from terminal_sim.pos import Pos
from terminal_sim.pos_answers import Request, UnusableAnswerError
from terminal_sim.pos_client import Line

ANSWER_S = 60.0  # no test waits longer for anything; reaching it is a failure
READ_BYTES = 65_536
BOOKED_MTIS = frozenset({"0210", "0230", "0410"})


class LineClosedError(Exception):
    """The switch closed the connection."""


class Wire:
    """One connection, used by one task: frames out, frames in."""

    opened: ClassVar[list["Wire"]] = []  # of the running test

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.opened.append(self)
        self._reader = reader
        self.writer = writer
        self._frames = FrameReader()
        self._bodies: list[bytes] = []

    @classmethod
    async def open(cls, line: Line) -> "Wire":
        """Connect. OSError when nobody listens."""
        return cls(*await asyncio.open_connection(line.host, line.port, ssl=line.tls))

    def send(self, data: bytes) -> None:
        """Write bytes, whatever they are."""
        self.writer.write(data)

    async def body(self) -> bytes:
        """The next frame without its LEN. LineClosedError when there is none."""
        async with asyncio.timeout(ANSWER_S):
            while not self._bodies:
                try:
                    data = await self._reader.read(READ_BYTES)
                except OSError as error:
                    raise LineClosedError from error
                if not data:
                    raise LineClosedError
                self._bodies += self._frames.feed(data)
        return self._bodies.pop(0)

    async def ask(self, frame: bytes) -> bytes:
        """Send a frame and wait for one."""
        self.send(frame)
        return await self.body()

    async def answer(self, frame: bytes) -> Message:
        """The same, decoded."""
        return decode(await self.ask(frame))

    async def closed_by_switch(self) -> list[bytes]:
        """Wait until the switch closes the connection; the frames that came before."""
        bodies = []
        while True:
            try:
                bodies.append(await self.body())
            except LineClosedError:
                return bodies

    def close(self) -> None:
        """Hang up."""
        self.writer.close()

    def abort(self) -> None:
        """Break the connection."""
        self.writer.transport.abort()

    @classmethod
    async def close_all(cls) -> None:
        """Hang up whatever the test left open, and see it closed."""
        wires, cls.opened[:] = list(cls.opened), []
        for wire in wires:
            wire.writer.close()
        for wire in wires:
            with contextlib.suppress(OSError):
                await wire.writer.wait_closed()


@dataclass(frozen=True, slots=True)
class Approval:
    """What a terminal was told: 00 for this key, under this reference."""

    terminal_id: str
    batch_no: int
    stan: int
    rclass: int
    rrn: str
    clearing_day: str  # MMDD of field 15, or empty


@dataclass(slots=True)
class Seen:
    """Everything that terminals were told."""

    approvals: list[Approval] = field(default_factory=list)
    answers: Counter[str] = field(default_factory=Counter)

    def note(self, terminal: Terminal, request: Request, answer: Message) -> None:
        """Remember an answer whose MAC was good."""
        fields = answer.fields
        self.answers[fields[39]] += 1
        if fields[39] == "00" and answer.mti in BOOKED_MTIS and not terminal.training:
            self.approvals.append(
                Approval(
                    terminal.terminal_id,
                    int(request.fields[60][2:8]),
                    int(request.fields[11]),
                    1 if request.mti == "0400" else 0,
                    fields[37],
                    fields.get(15, ""),
                )
            )


class Till:
    """A terminal at work. Every request can be sent again, on any line; nothing is retried by itself."""

    def __init__(self, terminal: Terminal, seen: Seen, line: Line) -> None:
        self.terminal = terminal
        self.pos = Pos(terminal)
        self.seen = seen
        self.line = line
        self._wires: dict[tuple[str, int], Wire] = {}

    async def wire(self, line: Line | None = None) -> Wire:
        """The connection of a line, made when there is none."""
        line = line or self.line
        key = (line.host, line.port)
        wire = self._wires.get(key)
        if wire is None:
            wire = self._wires[key] = await Wire.open(line)
        return wire

    def hang_up(self) -> None:
        """Close all connections."""
        for wire in self._wires.values():
            wire.close()
        self._wires.clear()

    def break_off(self) -> None:
        """Break all connections: what was sent is on its way, its answer finds nobody."""
        for wire in self._wires.values():
            wire.abort()
        self._wires.clear()

    async def send(self, request: Request, line: Line | None = None) -> None:
        """Send without waiting for the answer."""
        wire = await self.wire(line)
        wire.send(self.pos.pack(request))
        await wire.writer.drain()

    async def ask(self, request: Request, line: Line | None = None) -> Message:
        """Send a request under today's keys and take its answer; the answer's MAC is checked where it must have one.

        AssertionError when the terminal could not use the answer. LineClosedError, OSError when the line breaks.
        """
        try:
            body = await (await self.wire(line)).ask(self.pos.pack(request))
        except (LineClosedError, OSError):
            self.break_off()
            raise
        try:
            answer = self.pos.take(request, body)
        except UnusableAnswerError as error:
            raise AssertionError(f"unusable answer to {request}: {error}") from error
        self.seen.note(self.terminal, request, answer.message)
        return answer.message

    async def code(self, request: Request, line: Line | None = None) -> str:
        """Field 39 of the answer."""
        code: str = (await self.ask(request, line)).fields[39]
        return code

    async def sign_on(self, line: Line | None = None) -> "Till":
        """簽到, which must be approved."""
        assert await self.code(self.pos.sign_on(), line) == "00"
        return self

    async def buy(self, card: CardData, amount_fen: int, line: Line | None = None, **how: Any) -> Message:
        """A purchase."""
        return await self.ask(self.pos.purchase(card, amount_fen, **how), line)

    def raw(self, mti: str, fields: dict[int, Any]) -> Request:
        """Any request with a MAC, as the test wants it."""
        return self.pos._request(Kind.PURCHASE, mti, fields)


def stored(answer: Message) -> dict[int, Any]:
    """The fields that a repeat must show again."""
    return {number: answer.fields.get(number) for number in (37, 38, 39, 12, 13, 15)}


# ---------------------------------------------------------------------- the books

_BOOKED = """
SELECT t.terminal_id, j.batch_no, j.stan, j.class, j.rrn, to_char(j.business_date, 'MMDD')
  FROM journal j JOIN terminal t USING (terminal_no)
 WHERE j.answer = '00' AND t.terminal_id = ANY(%s)
"""
_KEYS_TWICE = "SELECT count(*) FROM (SELECT 1 FROM journal GROUP BY terminal_no, batch_no, stan, class HAVING count(*) > 1) k"
_BALANCES_OFF = """
SELECT count(*)
  FROM account a
  LEFT JOIN (SELECT owner, sum(fen) AS fen
               FROM (SELECT credit_owner AS owner, amount_fen AS fen FROM posting WHERE credit_code IN (2001, 2003)
                     UNION ALL
                     SELECT debit_owner, -amount_fen FROM posting WHERE debit_code IN (2001, 2003)) s
              GROUP BY owner) p ON p.owner = a.account_id
 WHERE a.balance_fen <> coalesce(p.fen, 0)
"""
_NOT_POSTED_ONCE = """
SELECT count(*)
  FROM journal j
  LEFT JOIN (SELECT shard, entry_no, business_date, debit_code = 2101 AS back, min(debit_owner) AS debit_owner,
                    min(credit_owner) AS credit_owner, sum(amount_fen) AS amount_fen  -- two accounts may have paid
               FROM posting GROUP BY shard, entry_no, business_date, back) p
         ON p.shard = j.shard AND p.entry_no = j.entry_no AND p.business_date = j.business_date
 WHERE j.kind NOT IN (11, 12)
   AND NOT EXISTS (SELECT FROM journal o WHERE o.shard = j.shard AND o.entry_no = j.original_entry AND o.kind = 11)  -- loads: the audit
   AND ((j.effect_fen <> 0) <> (p.amount_fen IS NOT NULL)
    OR p.amount_fen <> abs(j.effect_fen)
    OR p.amount_fen IS NOT NULL AND j.merchant_no <> CASE WHEN j.effect_fen > 0 THEN p.credit_owner ELSE p.debit_owner END)
"""
_STRAY_POSTINGS = """
SELECT count(*)
  FROM posting p
 WHERE 2101 IN (p.debit_code, p.credit_code) AND 6001 NOT IN (p.debit_code, p.credit_code)
   AND (p.debit_code IN (2001, 2003, 2201) OR p.credit_code IN (2001, 2003, 2201))
   AND NOT EXISTS (SELECT 1 FROM journal j WHERE j.shard = p.shard AND j.entry_no = p.entry_no
                                             AND j.business_date = p.business_date)
"""


def check_books(url: str, seen: Iterable[Seen]) -> None:
    """Every approval that a terminal saw is booked exactly once, on the day it was told; balances follow from the postings."""
    approvals = {approval for one in seen for approval in one.approvals}
    terminals = sorted({approval.terminal_id for approval in approvals})
    with psycopg.connect(url, autocommit=True) as connection:
        booked: dict[tuple[str, int, int, int], list[tuple[str, str]]] = {}
        for *key, rrn, day in connection.execute(_BOOKED, [terminals]).fetchall():
            booked.setdefault((key[0], key[1], key[2], key[3]), []).append((rrn, day))
        for told in approvals:
            rows = booked.get((told.terminal_id, told.batch_no, told.stan, told.rclass), [])
            assert len(rows) == 1, f"{told} is booked {len(rows)} times"
            rrn, day = rows[0]
            if told.rclass == 0:
                assert rrn == told.rrn, f"{told} is booked as {rrn}"
            assert not told.clearing_day or told.clearing_day == day, f"{told} is booked on {day}"
        for query in (_KEYS_TWICE, _BALANCES_OFF, _NOT_POSTED_ONCE, _STRAY_POSTINGS):
            row = connection.execute(query).fetchone()
            assert row == (0,), f"{row} violations of: {query}"
