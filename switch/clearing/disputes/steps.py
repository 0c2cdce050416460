"""What every step of a case shares: the instant, the locked case, its events, and refusals that are written down."""

from datetime import date, datetime
from typing import Any, NamedTuple

from psycopg import AsyncConnection

from switch.clearing.disputes.originals import SQL
from switch.clearing.disputes.people import NAME_MAX
from switch.clearing.disputes.states import Action, Rule, State
from switch.domain.errors import InputRefused
from switch.ledger.adjustments import Source
from switch.ledger.gate import GATE, PURSE_GATE_SHARD, TAKE_SHARED

Connection = AsyncConnection[Any]


class ActionRefused(InputRefused):
    """An action that may not be. It is written down; nothing else was changed. passing: it may be possible later."""

    def __init__(self, rule: Rule, text: str, *, passing: bool = False) -> None:
        self.rule = rule
        self.text = text
        self.passing = passing
        super().__init__(f"refused ({rule}): {text}")


class Ask(NamedTuple):
    """What somebody asks for. amount_fen: None for the whole. outcome: of a load, loaded or returned. member_*: when it came in a file."""

    action: Action
    reason: str
    note: str
    maker: str
    amount_fen: int | None = None
    outcome: str = ""
    member_id: str | None = None
    member_case: str = ""


class Done(NamedTuple):
    """A step that was taken. entry_no: what was booked by it."""

    case_no: int
    state: State
    at: datetime
    business_date: date
    waits: bool
    entry_no: int | None = None


class Stamp(NamedTuple):
    """The instant of a step, its business date, and the date in Shanghai, by the database's clock."""

    now: datetime
    today: date
    local: date


class Case(NamedTuple):
    """A row of dispute_case."""

    case_no: int
    opened_at: datetime
    opened_on: date
    source: Source
    shard: int
    original_entry: int
    original_date: date
    item_entry: int | None
    item_date: date | None
    merchant_no: int
    terminal_no: int
    account_kind: int
    amount_fen: int
    issuer_id: str
    acquirer_id: str
    member_id: str | None
    member_case: str
    state: State
    events: int
    charged_fen: int | None
    charged_on: date | None
    charged_entry: int | None
    due_on: date | None
    asked_action: Action | None
    asked_fen: int | None
    asked_outcome: str | None
    asked_reason: str | None
    asked_by: str | None
    asked_at: datetime | None

    @property
    def cleared_on(self) -> date:
        """Where the days of most actions begin."""
        return self.item_date or self.original_date

    def begins(self, action: Action) -> date:
        """Where the days of an action begin."""
        if action == Action.REPRESENTMENT and self.charged_on is not None:
            return self.charged_on
        return self.cleared_on


async def take_stamp(connection: Connection) -> Stamp:
    """The instant and date of a step, in the running transaction, before whose end that day is not sealed."""
    await connection.execute(TAKE_SHARED, (GATE, PURSE_GATE_SHARD))
    row = await row_of(connection, "take_stamp", {})
    if row is None:
        raise LookupError("no business day covers this instant: run `cardswitch doctor`")
    return Stamp(*row)


async def lock_case(connection: Connection, case_no: int) -> Case:
    """A case, locked. InputRefused when there is none."""
    row = await row_of(connection, "lock_case", {"case_no": case_no})
    if row is None:
        raise InputRefused("case: no such case")
    case = Case(*row)
    action = None if case.asked_action is None else Action(case.asked_action)
    return case._replace(source=Source(case.source), state=State(case.state), asked_action=action)


async def row_of(connection: Connection, query: str, values: dict[str, Any]) -> tuple[Any, ...] | None:
    row: tuple[Any, ...] | None = await (await connection.execute(SQL[query], values)).fetchone()
    return row


def waiting(asked: Ask | None, fen: int, now: datetime) -> dict[str, Any]:
    if asked is None:
        names = ("action", "fen", "outcome", "reason", "by", "at")
        return dict.fromkeys(f"asked_{name}" for name in names)
    return {
        "asked_action": asked.action,
        "asked_fen": fen,
        "asked_outcome": asked.outcome or None,
        "asked_reason": asked.reason,
        "asked_by": asked.maker,
        "asked_at": now,
    }


def event_of(
    case_no: int, seq: int, stamp: Stamp, what: str, before: str, after: State, asked: Ask, fen: int
) -> dict[str, Any]:
    return {
        "case_no": case_no,
        "seq": seq,
        "at": stamp.now,
        "today": stamp.today,
        "what": what,
        "action": asked.action,
        "before_state": before,
        "after_state": after,
        "amount_fen": fen,
        "reason": asked.reason,
        "note": asked.note,
        "actor": asked.maker,
        "checker": "",
        "entry_no": None,
    }


def event_of_case(case: Case, stamp: Stamp, what: str, after: State) -> dict[str, Any]:
    """The event that ends what waits, or the case."""
    return {
        "case_no": case.case_no,
        "seq": case.events + 1,
        "at": stamp.now,
        "today": stamp.today,
        "what": what,
        "action": case.asked_action,
        "before_state": case.state,
        "after_state": after,
        "amount_fen": case.asked_fen,
        "reason": case.asked_reason or "",
        "note": "",
        "actor": case.asked_by,
        "checker": "",
        "entry_no": None,
    }


def moved(case: Case, after: State, due_on: date | None) -> dict[str, Any]:
    return {
        "case_no": case.case_no,
        "seq": case.events + 1,
        "state": after,
        "due_on": due_on,
        "charged_fen": None,
        "charged_on": None,
        "charged_entry": None,
    }


async def note_refusal(
    connection: Connection,
    case_no: int | None,
    original_entry: int | None,
    action: str,
    amount_fen: int | None,
    actor: str,
    refusal: ActionRefused,
) -> None:
    """Write a refusal down, in a transaction of its own."""
    async with connection.transaction():
        stamp = await take_stamp(connection)
        await connection.execute(
            SQL["add_refusal"],
            {
                "at": stamp.now,
                "today": stamp.today,
                "case_no": case_no,
                "original_entry": original_entry,
                "action": action,
                "amount_fen": amount_fen,
                "rule": refusal.rule,
                "detail": refusal.text,
                "actor": actor[:NAME_MAX],
            },
        )
