"""The work list of alarms: what is open, with the evidence of both sides, and who has looked into it.

Nothing here changes a book. An acknowledgement is a line of its own with who, when and why; the newest line counts, and none is
ever changed or taken away.
"""

from collections.abc import Collection, Mapping, Sequence
from datetime import date, datetime
from typing import Any, Final, NamedTuple

from switch.domain.errors import InputRefused
from switch.domain.identifiers import mask_pan
from switch.ledger.card_states import with_reason
from switch.purse.chain import Link, link
from switch.purse.completeness import plain_name
from switch.purse.counters import kind_of
from switch.purse.shadow import Connection, loads_of
from switch.purse.verify import ATC_COLLISION, CARD_UNREGISTERED, PSAM_COLLISION
from switch.storage.sql import load

SQL: Final = load("switch.purse", "alarms.sql")

LISTED_MAX: Final = 10_000
AT_ONCE_MAX: Final = 1_000  # alarms acknowledged by one command
ACTOR_MAX: Final = 60

CHAIN_BREAK: Final = "CHAIN_BREAK"
SHADOW_NEGATIVE: Final = "SHADOW_NEGATIVE"
GREY_CONTRADICTION: Final = "GREY_CONTRADICTION"
RECORD_SERIAL_REUSED: Final = "RECORD_SERIAL_REUSED"
GAP_OVERDUE: Final = "GAP_OVERDUE"
KINDS: Final = {
    ATC_COLLISION: "two good records with one counter of one card: somebody may have copied the card",
    PSAM_COLLISION: "two good records with one serial of one PSAM",
    CARD_UNREGISTERED: "a good record of a card that the registry does not know",
    CHAIN_BREAK: "a balance that neither the record before nor loads explain",
    SHADOW_NEGATIVE: "a card has spent more than was loaded, as far as is known",
    GREY_CONTRADICTION: "the evidence about a grey record contradicts itself",
    RECORD_SERIAL_REUSED: "a terminal has numbered two records alike",
    GAP_OVERDUE: "records have been missing for 30 days",
}


class Alarm(NamedTuple):
    """One alarm with the last word about it. card: digits, for masking; exactly one of entry_no and gap_no is set."""

    alarm_no: int
    at: datetime
    kind: str
    entry_no: int | None
    gap_no: int | None
    business_date: date
    card: str | None
    detail: str
    acknowledged: bool
    noted_at: datetime | None
    actor: str | None
    reason: str | None

    def __repr__(self) -> str:
        return f"Alarm({self.alarm_no}, {self.kind}, card={mask_pan(self.card or '')})"


class Note(NamedTuple):
    """What somebody said about an alarm. acknowledged: False opens it again."""

    at: datetime
    actor: str
    acknowledged: bool
    reason: str


class Evidence(NamedTuple):
    """One record as a witness. Times of the terminal's clock are in happened_at."""

    entry_no: int
    business_date: date
    result: str
    card: str | None
    card_key: int | None
    atc: int | None
    amount_fen: int | None
    balance_fen: int | None
    psam_no: str | None
    psam: int | None
    psam_serial: int | None
    terminal_id: str | None
    merchant_id: str | None
    record_serial: int | None
    happened_at: datetime | None
    received_at: datetime
    tac: str

    def __repr__(self) -> str:
        return f"Evidence(entry_no={self.entry_no}, card={mask_pan(self.card or '')}, atc={self.atc})"


class Case(NamedTuple):
    """Everything about one alarm. other: the record that the first is in conflict with, where there is one.

    step: how the balances of both follow from each other as things are now. gap: the hole in words.
    """

    alarm: Alarm
    notes: Sequence[Note]
    record: Evidence | None
    other: Evidence | None
    step: Link | None
    gap: str


async def list_alarms(
    connection: Connection,
    *,
    kinds: Collection[str] = (),
    every: bool = False,
    card: int | None = None,
    at_most: int = 100,
) -> list[Alarm]:
    """Alarms, the newest last; without `every` those that nobody has acknowledged. card: card_key.

    InputRefused: a kind that there is not, or more than LISTED_MAX.
    """
    if unknown := set(kinds) - KINDS.keys():
        raise InputRefused(f"kind: {len(unknown)} of {len(kinds)} unknown; one of {', '.join(KINDS)}")
    if not 0 < at_most <= LISTED_MAX:
        raise InputRefused(f"limit: 1 to {LISTED_MAX}")
    return await _list(connection, kinds=list(kinds) or None, every=every, card=card, at_most=at_most)


async def _list(connection: Connection, **asked: object) -> list[Alarm]:
    asked = {"alarm_no": None, "kinds": None, "every": True, "card": None, "at_most": 1} | asked
    return [Alarm(*row) for row in await _all(connection, "list_alarms", asked)]


async def case_of(connection: Connection, alarm_no: int) -> Case:
    """One alarm with its evidence. InputRefused: no such alarm."""
    found = await _list(connection, alarm_no=alarm_no)
    if not found:
        raise InputRefused("alarm: no such alarm")
    alarm = found[0]
    notes = [Note(*row) for row in await _all(connection, "notes_of", {"alarm_no": alarm_no})]
    if alarm.entry_no is None:
        return Case(alarm, notes, None, None, None, await _gap_words(connection, alarm.gap_no))
    record = await _record(connection, alarm.entry_no, alarm.business_date)
    if record is None:
        return Case(alarm, notes, None, None, None, "")
    other = await _other(connection, alarm.kind, record)
    step = None
    if alarm.kind == CHAIN_BREAK and other is not None and record.card_key is not None:
        assert other.balance_fen is not None
        assert other.amount_fen is not None
        assert record.balance_fen is not None
        loads = await loads_of(connection, [record.card_key])
        step = link(other.balance_fen - other.amount_fen, record.balance_fen, loads[record.card_key])
    return Case(alarm, notes, record, other, step, "")


async def _other(connection: Connection, kind: str, record: Evidence) -> Evidence | None:
    """The record with which this one is in conflict."""
    if record.card_key is None or record.atc is None:
        return None
    queries: Mapping[str, tuple[str, dict[str, Any]]] = {
        ATC_COLLISION: ("holder_of_atc", {"card": record.card_key, "atc": record.atc}),
        PSAM_COLLISION: ("holder_of_serial", {"psam": record.psam, "psam_serial": record.psam_serial}),
        CHAIN_BREAK: ("holder_of_atc", {"card": record.card_key, "atc": record.atc - 1}),
        GREY_CONTRADICTION: ("next_of_card", {"card": record.card_key, "atc": record.atc}),
    }
    if kind not in queries:
        return None
    rows = await _all(connection, *queries[kind])
    if not rows or rows[0][0] == record.entry_no:
        return None
    return await _record(connection, *rows[0])


async def _record(connection: Connection, entry_no: int, business_date: date) -> Evidence | None:
    rows = await _all(connection, "record", {"entry_no": entry_no, "business_date": business_date})
    return Evidence(*rows[0]) if rows else None


async def _gap_words(connection: Connection, gap_no: int | None) -> str:
    ((number, owner, lowest, highest, _, closed_at),) = await _all(connection, "gap", {"gap_no": gap_no})
    kind = kind_of(number)
    name = "" if kind.owner == "card" else f" {plain_name(kind, owner)}"
    end = ", closed meanwhile or in parts" if closed_at is not None else ""
    return f"{kind.words}{name}: {lowest} to {highest}{end}"


async def note(
    connection: Connection,
    alarms: Sequence[int],
    *,
    acknowledged: bool,
    actor: str,
    reason: str,
) -> None:
    """Say about these alarms that they have been looked into, or (False) that they are open again. All of them or none.

    InputRefused: no such alarm, one that is so already, too many, no reason. connection: in autocommit mode.
    """
    reason = with_reason(reason)
    if not 0 < len(actor) <= ACTOR_MAX:
        raise InputRefused(f"actor: 1 to {ACTOR_MAX} characters")
    wanted = sorted(set(alarms))
    if not 0 < len(wanted) <= AT_ONCE_MAX:
        raise InputRefused(f"alarms: 1 to {AT_ONCE_MAX} at once")
    async with connection.transaction():
        known = {row[0] for row in await _all(connection, "lock_alarms", {"alarms": wanted})}
        if unknown := [number for number in wanted if number not in known]:
            raise InputRefused(f"alarm: there is no number {unknown[0]}; nothing was changed")
        state = {number: said for number, *said in await _all(connection, "last_notes", {"alarms": wanted})}
        for number in wanted:
            before = state.get(number)
            if bool(before and before[0]) == acknowledged:
                who = f" by {before[1]}" if before else ""
                word = "acknowledged already" if acknowledged else "open already"
                raise InputRefused(f"alarm: number {number} is {word}{who}; nothing was changed")
        await connection.execute(
            SQL["write_notes"].encode(),
            {"alarms": wanted, "actor": actor, "acknowledged": acknowledged, "reason": reason},
        )


async def _all(connection: Connection, name: str, parameters: Mapping[str, Any]) -> list[tuple[Any, ...]]:
    return list(await (await connection.execute(SQL[name].encode(), parameters)).fetchall())
