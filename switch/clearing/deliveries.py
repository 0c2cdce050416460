"""What each partner is sent, in which order, and what he has answered: states in the database, without any network.

    WAITING → SENT → ACKNOWLEDGED | REJECTED

A partner's files go in the order in which they were queued; one that cannot be sent holds up those behind it, so that nobody gets a day
in pieces. Whoever serves a partner holds his lock, which ends with the connection. delivery_round.py does the moves.
"""

import asyncio
import re
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from datetime import date
from hashlib import new as new_digest
from typing import Any, Final, NamedTuple, Protocol

import psycopg
import structlog
from psycopg import AsyncConnection

from switch.clearing.files import FileRefused, parse_name
from switch.domain.errors import DependencyError, InputRefused
from switch.domain.identifiers import mask_pan
from switch.storage.sql import load

log = structlog.get_logger(__name__)

SQL: Final = load("switch.clearing", "deliveries.sql")
PARTNER_LOCK: Final = 0x43435350  # advisory, two-part: one deliverer for a partner at a time
ATTEMPTS_MAX: Final = 200  # of one file; two days at the longest pause
DAYS_AT_ONCE: Final = 31
REASON_MAX: Final = 200
COUNT_EVERY_S: Final = 30.0
_CARD: Final = re.compile(r"(?<!\d)\d{13,19}(?!\d)")

Connection = AsyncConnection[tuple[Any, ...]]
Connect = Callable[[], AbstractAsyncContextManager[Connection]]


class PartnerTerms(NamedTuple):
    """What the settings say about a partner, but for the line to him.

    parties: institutions and merchants whose files he gets; types of files that he wants; since: first business date.
    folder: where he gets them; outbox: where he leaves files for us, empty: nowhere; sends: types that he may leave.
    answers: he writes receipts; late_hours: then he is behind.
    """

    name: str
    parties: tuple[str, ...]
    types: tuple[str, ...]
    since: date
    folder: str
    outbox: str = ""
    sends: tuple[str, ...] = ()
    answers: bool = True
    late_hours: int = 24
    fetch_bytes_max: int = 1 << 30
    pause_s: float = 30.0
    pause_max_s: float = 900.0


class Waiting(NamedTuple):
    """The next file of a partner. sm3: upper-case hex. marking: it was there whole, and its mark may be. signature: None: it has none."""

    number: int
    name: str
    of_date: date
    sm3: str
    size_bytes: int
    attempts: int
    marking: bool
    signature: bytes | None = None


class Receipt(NamedTuple):
    """A receipt as it lay there. written_at: the partner's clock, seconds."""

    name: str
    accepted: bool
    content: bytes
    written_at: int

    @property
    def file(self) -> str:
        """Its own name."""
        return f"{self.name}.{'ack' if self.accepted else 'rej'}"


class DeliveryWatch(Protocol):
    """What is shown of it."""

    def deliveries(
        self, partners: Mapping[str, tuple[int, int, float, int]], alarms: Mapping[str, int]
    ) -> None:
        """By partner: files that wait, files sent and not answered, age of the oldest that waits in seconds, failures in a row. Alarms of a day by kind."""


def plain(text: str) -> str:
    """What a partner wrote or his server said, fit to be kept and shown: one line, bounded, card numbers masked."""
    line = "".join(char if char.isprintable() else " " for char in text).strip()
    return _CARD.sub(lambda found: mask_pan(found[0]), line)[
        :REASON_MAX
    ]  # cut last: half a number would not be known as one


class Deliveries:
    """The states of one partner. Use inside `alone`, which holds his lock. connection: its own, in autocommit mode."""

    def __init__(self, connection: Connection, partner: PartnerTerms) -> None:
        self.connection = connection
        self.partner = partner

    async def execute(self, query: str, **values: object) -> list[tuple[Any, ...]]:
        """Run a named query."""
        cursor = await self.connection.execute(SQL[query], {"partner": self.partner.name, **values})
        return await cursor.fetchall() if cursor.description else []

    @asynccontextmanager
    async def alone(self) -> AsyncIterator[None]:
        """Hold the partner's lock. InputRefused when another deliverer has it."""
        if not (await self.execute("lock_partner", space=PARTNER_LOCK))[0][0]:
            raise InputRefused(f"{self.partner.name} is being served by another process")
        try:
            yield
        finally:
            if not self.connection.closed:
                await self.execute("unlock_partner", space=PARTNER_LOCK)

    async def queue(self) -> None:
        """Put what has been closed, and what was sent again, behind what waits."""
        at = self.partner
        wanted = {"parties": list(at.parties), "types": list(at.types)}
        for (day,) in await self.execute("days_to_queue", since=at.since, most=DAYS_AT_ONCE):
            await self.execute("queue_day", day=day, **wanted)
        await self.execute("queue_resends", since=at.since, **wanted)
        await self.execute("queue_centre", since=at.since, **wanted)

    async def next_waiting(self) -> Waiting | None:
        """The file that is sent next. None: nothing waits, or the one that would be next was given up."""
        rows = await self.execute("next_waiting")
        if not rows:
            return None
        waiting = Waiting(*rows[0])
        if waiting.attempts >= ATTEMPTS_MAX:
            detail = f"tried {waiting.attempts} times; `cardswitch deliveries retry {self.partner.name}`"
            await self.alarm("GIVEN_UP", waiting.name, detail)
            return None
        return waiting

    async def alarm(self, kind: str, name: str, detail: str) -> None:
        """Something for people to look at; said once."""
        cursor = await self.connection.execute(
            SQL["alarm"], {"partner": self.partner.name, "kind": kind, "name": name, "detail": plain(detail)}
        )
        if cursor.rowcount:
            log.warning("delivery alarm", partner=self.partner.name, kind=kind, name=name, why=plain(detail))

    async def look_if_behind(self) -> None:
        """Alarm when the oldest file has waited, or has been without an answer, for too long."""
        at = self.partner
        for name, queued_at in await self.execute("behind", hours=at.late_hours, answers=at.answers):
            await self.alarm(
                "BEHIND", name, f"queued {queued_at:%Y-%m-%d %H:%M%z}, {at.late_hours} hours ago or more"
            )

    async def apply_receipt(self, receipt: Receipt) -> str:
        """Apply a receipt once; what became of it. Read again, because it could not be removed, it is no second one."""
        key = {
            "file": receipt.file,
            "sm3": new_digest("sm3", receipt.content).digest(),
            "written_at": receipt.written_at,
        }
        async with self.connection.transaction():
            rows = await self.execute("read_for_receipt", name=receipt.name)
            if (await self.execute("known_receipt", **key))[0][0]:
                return "known"
            outcome, detail = _judge(receipt, rows[0] if rows else None)
            await self.execute("add_receipt", outcome=outcome, **key)
            if outcome in ("ACKNOWLEDGED", "REJECTED"):
                await self.execute("answer", number=rows[0][0], state=outcome, reason=detail)
            if outcome != "ACKNOWLEDGED":
                await self.alarm(outcome, receipt.name, detail)
        return outcome


def _judge(receipt: Receipt, row: tuple[Any, ...] | None) -> tuple[str, str]:
    """What a receipt does, as a state or a kind of alarm, and the words."""
    if row is None:
        return "ACK_UNKNOWN", f"{receipt.file} is about a file that was never for this partner"
    _, state, sm3, attempts = row
    if state == "WAITING" and attempts == 0:
        return "ACK_UNKNOWN", f"{receipt.file} came before the file was sent"
    if not receipt.accepted:
        if state == "ACKNOWLEDGED":
            return "ACK_CONTRADICTS", f"{receipt.file} after it was acknowledged: {_text(receipt)}"
        return (
            ("ACK_TWICE", f"{receipt.file} once more")
            if state == "REJECTED"
            else ("REJECTED", _text(receipt))
        )
    words = receipt.content.split()
    said = words[0].upper().decode("ascii", "replace") if words else ""
    if said and said != sm3:
        return "ACK_DIGEST", f"{receipt.file} does not begin with the digest of the file that was sent"
    if state == "ACKNOWLEDGED":
        return "ACK_TWICE", f"{receipt.file} once more"
    if state == "REJECTED":
        return "ACK_CONTRADICTS", f"{receipt.file} after it was rejected"
    return "ACKNOWLEDGED", ""


def _text(receipt: Receipt) -> str:
    return plain(receipt.content.decode("utf-8", "replace")) or "no reason given"


def receipt_name(file: str) -> tuple[str, bool] | None:
    """The file that a receipt is about, and whether it accepts it; None when the name is no receipt's."""
    name, accepted = file[:-4], file.endswith(".ack")
    if not (accepted or file.endswith(".rej")) or not is_name(name):
        return None
    return name, accepted


def is_name(text: str) -> bool:
    """Whether this is a clearing file's name."""
    try:
        parse_name(text)
    except FileRefused:
        return False
    return True


async def figures(
    connection: Connection,
) -> tuple[dict[str, tuple[int, int, float, int]], dict[str, int]]:
    """For the metrics; see DeliveryWatch."""
    partners = await (await connection.execute(SQL["figures"])).fetchall()
    alarms = await (await connection.execute(SQL["alarm_counts"])).fetchall()
    return {row[0]: (row[1], row[2], row[3], row[4]) for row in partners}, {row[0]: row[1] for row in alarms}


async def keep_counting(connect: Connect, watch: DeliveryWatch, every_s: float = COUNT_EVERY_S) -> None:
    """Count for the metrics, until cancelled."""
    while True:
        try:
            async with connect() as connection:
                watch.deliveries(*await figures(connection))
        except (psycopg.Error, OSError, DependencyError) as error:
            log.warning("deliveries were not counted", error=type(error).__name__)
        await asyncio.sleep(every_s)


async def retry(connection: Connection, partner: str, name: str = "") -> int:
    """Try a partner at once and his waiting files anew, or one that he rejected; how many files."""
    values = {"partner": partner, "name": name}
    async with connection.transaction():
        await connection.execute(SQL["retry_line"], values)
        waiting = await connection.execute(SQL["retry_waiting"], values)
        rejected = await connection.execute(SQL["retry_rejected"], values)
        count = waiting.rowcount + rejected.rowcount
        if name and not count:
            raise InputRefused(f"{name} neither waits for {partner} nor was rejected")
    return count
