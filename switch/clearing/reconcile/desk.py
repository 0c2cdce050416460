"""What two people decide about a difference. Each decision has its maker, another person who checks, and a reason, and is kept for ever.

    OPEN      --accept--> CLOSED                 seen, and nothing is to be done about it
    OPEN      --suspense--> SUSPENSE             the partner's money came and nobody knows what for: 1001 to 2201, or a bank entry that lies there
    SUSPENSE  --sent-back--> CLOSED              it has gone back: 2201 to 1001, or a bank entry that says so
    SUSPENSE  --settled--> CLOSED                it was what the partner owed us: 2201 to 1001, and 1001 to 1101 or 1102
    of a load --loaded, returned--> CLOSED       its suspense is settled by `load_desk.settle`, with its own rules
    any open  --case--> as it was                a dispute has taken it over

What waits for the next day's file (CARRIED) waits for it. Money is booked on the open day, and once for each difference and event.
"""

from collections.abc import Awaitable, Callable, Sequence
from datetime import date, datetime
from typing import Any, Final, NamedTuple

from switch.clearing.day_files import Connection
from switch.clearing.settlement.resolving import Entry, EntryName, lock_entry, open_fen
from switch.domain.errors import InputRefused
from switch.domain.people import another, person
from switch.ledger.bookings import Booking, book
from switch.ledger.card_states import with_reason
from switch.ledger.chart import Event
from switch.ledger.load_states import LoadState
from switch.storage.sql import load

SQL: Final = load("switch.clearing.reconcile", "desk.sql")
LISTED_MAX: Final = 10_000
OPEN_STATES: Final = ("OPEN", "CARRIED", "SUSPENSE")
STATES: Final = (*OPEN_STATES, "SHIFTED", "TOLERATED", "GONE", "CLOSED")
LOAD_ENDS: Final = {"loaded": LoadState.LOADED, "returned": LoadState.RETURNED}
MONEY_ENDS: Final = ("suspense", "sent-back", "settled")
BUCKETS: Final = ("0-1", "2-7", "8-30", "31+")  # days
_WAITS: Final = {
    "CARRIED": "difference: waits for the partner's file of the next day",
    "SHIFTED": "difference: was settled by the file of the next day",
    "TOLERATED": "difference: lies within the partner's tolerance, and is closed",
    "GONE": "difference: the newest comparison does not find it any more",
    "CLOSED": "difference: is closed",
}

SettleLoad = Callable[[int, LoadState], Awaitable[object]]


class Decision(NamedTuple):
    """Who decides what, and why. action: accept, case, one of MONEY_ENDS or of LOAD_ENDS. case_no: of a case.

    entry: of the bank's statement, which has booked the money that came (suspense) or went back (sent-back). although: why it is
    booked beside the statement, where an entry of just that amount lies in suspense.
    """

    action: str
    actor: str
    checker: str
    reason: str
    case_no: str | None = None
    entry: EntryName | None = None
    although: str = ""


class Decided(NamedTuple):
    """What became of it."""

    difference_no: int
    state: str
    at: datetime
    business_date: date


class _Row(NamedTuple):
    partner: str
    day: date
    outcome: str
    state: str
    ours_fen: int
    theirs_fen: int
    load_no: int | None
    role: str | None


async def decide(
    connection: Connection, number: int, decision: Decision, settle_load: SettleLoad | None = None
) -> Decided:
    """Carry a decision out. connection: its own, in autocommit mode, whose standing still the server ends. settle_load: for LOAD_ENDS.

    Raises InputRefused with the rule that forbids it; nothing is changed then.
    """
    actor = person("actor", decision.actor)
    checker = another("checker", decision.checker, actor)
    decision = decision._replace(actor=actor, checker=checker, reason=with_reason(decision.reason))
    if decision.although:
        decision = decision._replace(although=with_reason(decision.although))
    if decision.entry is not None and decision.although:
        raise InputRefused("although: goes without --entry")
    if decision.action in LOAD_ENDS:
        assert settle_load is not None, "whoever settles a load brings the desk that does"
        await _settle_load(connection, number, LOAD_ENDS[decision.action], settle_load)
    async with connection.transaction():
        await connection.execute(SQL["lock_item"], {"number": number})
        row = await _lock(connection, number)
        after = _next(row, decision)
        if decision.action == "suspense":
            other = await (await connection.execute(SQL["taken_already"], {"number": number})).fetchone()
            if other is not None:
                raise InputRefused(
                    f"difference: money of this item was taken as difference {other[0]} already"
                )
        claim = await _claim(connection, row, decision)
        bookings = _bookings(number, row, decision) if claim is None else []
        if bookings:
            booked = await book(connection, bookings, actor=actor, checker=checker)
            now, today = booked.at, booked.business_date
        else:
            instant = await (await connection.execute(SQL["read_instant"])).fetchone()
            if instant is None:
                raise InputRefused("no business day covers this instant: run `cardswitch doctor`")
            now, today = instant
        values = {
            "number": number,
            "now": now,
            "today": today,
            "action": decision.action,
            "before": row.state,
            "after": after,
            "actor": actor,
            "checker": checker,
            "reason": decision.reason,
            "case_no": decision.case_no,
            "although": decision.although,
        }
        step = await (await connection.execute(SQL["add_step"], values)).fetchone()
        assert step is not None
        if claim is not None:
            entry, fen = claim
            await connection.execute(SQL["add_claim"], {**entry._asdict(), "step_no": step[0], "fen": fen})
        await connection.execute(SQL["set_state"], values)
    return Decided(number, after, now, today)


async def _lock(connection: Connection, number: int) -> _Row:
    row = await (await connection.execute(SQL["lock_difference"], {"number": number})).fetchone()
    if row is None:
        raise InputRefused("difference: no such difference")
    return _Row(*row)


async def _settle_load(connection: Connection, number: int, to: LoadState, settle: SettleLoad) -> None:
    """Settle the load first: its rules decide. One that is there already was settled by a run that died before it wrote so."""
    row = await _lock(connection, number)
    if row.load_no is None:
        raise InputRefused("difference: is not of a load")
    _check_load(row)
    found = await (await connection.execute(SQL["read_load"], {"load_no": row.load_no})).fetchone()
    if found is None or found[0] != to:
        await settle(row.load_no, to)


def _check_load(row: _Row) -> None:
    if row.state not in ("OPEN", "SHIFTED"):
        raise InputRefused(_WAITS.get(row.state, "difference: its money waits in 2201"))


def _next(row: _Row, decision: Decision) -> str:
    """The state that follows. InputRefused where there is none."""
    action, state = decision.action, row.state
    if action in LOAD_ENDS:
        _check_load(row)
        # On the card, and the bank has not paid: it still owes it.
        return state if action == "loaded" and row.theirs_fen < row.ours_fen else "CLOSED"
    if state in _WAITS:
        raise InputRefused(_WAITS[state])
    if action == "case":
        if not decision.case_no:
            raise InputRefused("case: a number")
        return state
    if action == "accept":
        if row.outcome == "load":
            raise InputRefused(
                "difference: its load waits for the card; resolve it as loaded or returned, or wait"
            )
        if state == "SUSPENSE":
            raise InputRefused("difference: its money waits in 2201; resolve it as sent-back or settled")
        return "CLOSED"
    if action == "suspense":
        if state != "OPEN":
            raise InputRefused("difference: its money waits in 2201 already")
        if row.theirs_fen <= row.ours_fen:
            raise InputRefused("difference: the partner has no more than we have, so no money came")
        return "SUSPENSE"
    if action not in MONEY_ENDS:
        raise InputRefused(f"as: one of {', '.join((*MONEY_ENDS, *LOAD_ENDS))}")
    if state != "SUSPENSE":
        raise InputRefused(
            "difference: none of its money is in 2201; resolve it as suspense when it has come"
        )
    return "CLOSED"


async def _claim(connection: Connection, row: _Row, decision: Decision) -> tuple[Entry, int] | None:
    """What is taken of a bank entry, which was booked when its statement was taken; None where the decision books.

    Raises InputRefused when the entry has not that much, or an entry of just that amount is there and nobody said why it is not this.
    """
    amount_fen = row.theirs_fen - row.ours_fen
    fen = {"suspense": amount_fen, "sent-back": -amount_fen}.get(decision.action)
    if fen is None:
        if decision.entry is not None or decision.although:
            raise InputRefused("entry: goes with --as suspense and sent-back, and with nothing else")
        return None
    if decision.entry is not None:
        entry = await lock_entry(connection, decision.entry)
        rest_fen = await open_fen(connection, entry)
        if (rest_fen > 0) != (fen > 0) or abs(rest_fen) < abs(fen):
            raise InputRefused(f"entry: {rest_fen} fen of it lie in suspense, and {fen} are wanted")
        return entry, fen
    found = await (await connection.execute(SQL["entry_of_amount"], {"fen": fen})).fetchone()
    if found is not None and not decision.although:
        raise InputRefused(
            f"entry: {found[0]} of the bank's statement is of just this, and booked: name it by --entry,"
            " or say by --although why this is other money"
        )
    return None


def _bookings(number: int, row: _Row, decision: Decision) -> list[Booking]:
    amount_fen = row.theirs_fen - row.ours_fen
    partner = int(row.partner)
    came = (Event.MONEY_UNEXPLAINED, 0, 0)
    went = (Event.MONEY_SENT_BACK, 0, 0)
    paid = (Event.INTEROP_RECEIVED, 0, partner) if row.role == "CITY" else (Event.BANK_SETTLED, 0, partner)
    events = {"suspense": [came], "sent-back": [went], "settled": [went, paid]}.get(decision.action, [])
    return [
        Booking(event, amount_fen, debit, credit, f"difference {number}", decision.reason)
        for event, debit, credit in events
    ]


# ---------------------------------------------------------------------- to be looked at

_LISTED: Final = (
    *("difference", "partner", "business_date", "outcome", "differs", "state", "ours_count", "ours_fen"),
    *("theirs_count", "theirs_fen", "card", "rrn", "terminal", "load", "line", "case", "age_days"),
)


async def list_differences(
    connection: Connection,
    *,
    partner: str = "",
    day: date | None = None,
    states: Sequence[str] = OPEN_STATES,
    limit: int = LISTED_MAX,
) -> list[dict[str, Any]]:
    """Differences in these states, the oldest first; cards masked."""
    values = {"partner": partner, "day": day, "states": list(states), "limit": min(limit, LISTED_MAX)}
    cursor = await connection.execute(SQL["list_differences"], values)
    return [dict(zip(_LISTED, row, strict=True)) for row in await cursor.fetchall()]


async def ageing(connection: Connection) -> dict[str, dict[str, tuple[int, int]]]:
    """Open differences of each partner by their age in days: number, and by how much the two sides differ."""
    found: dict[str, dict[str, tuple[int, int]]] = {}
    cursor = await connection.execute(SQL["ageing"])
    for partner, bucket, count, fen in await cursor.fetchall():
        found.setdefault(partner, dict.fromkeys(BUCKETS, (0, 0)))[bucket] = (count, fen)
    return found


_SHOWN: Final = (
    *("difference", "partner", "business_date", "outcome", "differs", "state", "ours_count", "ours_fen"),
    *("theirs_count", "theirs_fen", "card", "rrn", "load", "case", "age_days"),
)
_LEG: Final = (
    *("state", "amount_fen", "host", "host_code", "terminal", "merchant", "batch_no", "trace"),
    *("asked_at", "ended_at", "ended_by", "late_code"),
)
_TELL: Final = ("step", "service", "amount_fen", "at", "result", "last_end")
_STEP: Final = (
    *("at", "business_date", "action", "from", "to", "actor", "checker", "reason", "although", "entry"),
)


async def show_difference(connection: Connection, number: int) -> dict[str, Any]:
    """A difference with its three sides, the comparisons that found it, and what was decided. InputRefused when there is none."""
    row = await (await connection.execute(SQL["read_difference"], {"number": number})).fetchone()
    if row is None:
        raise InputRefused("difference: no such difference")
    shown = dict(zip(_SHOWN, row, strict=False))
    k1, k2, shard, entry_no, line_no = row[len(_SHOWN) :]
    where = {"partner": row[1], "day": row[2], "k1": k1, "k2": k2, "number": number}
    where |= {"shard": shard, "entry_no": entry_no}

    async def read(query: str, names: Sequence[str]) -> list[dict[str, Any]]:
        cursor = await connection.execute(SQL[query], where)
        return [dict(zip(names, found, strict=False)) for found in await cursor.fetchall()]

    legs = await read("read_leg", (*_LEG, "terminal_says")) if k2 == 0 else []
    terminal = legs[0].pop("terminal_says") if legs else None
    shown["terminal"] = "offline record" if k2 else terminal
    shown["ours"] = legs[0] if legs else None if k2 == 0 else {"entry": entry_no}
    shown["told"] = await read("read_tells", _TELL) if k2 == 0 else []
    shown["line"] = line_no
    shown["theirs"] = await read("read_lines", ("line", "mti", "amount_fen", "effect_fen"))
    shown["comparisons"] = await read("read_findings", ("run", "at", "actor", "file"))
    shown["decisions"] = await read("read_steps", _STEP)
    return shown


async def evidence_of_load(connection: Connection, load_no: int) -> list[dict[str, Any]]:
    """What partners' files say about a load: debited, or not."""
    cursor = await connection.execute(SQL["evidence_of_load"], {"load_no": load_no})
    return [
        {
            "difference": number,
            "partner": partner,
            "business_date": day,
            "says": "debited a day later" if state == "SHIFTED" else "debited" if theirs else "not debited",
            "fen": theirs,
            "state": state,
        }
        for number, partner, day, _, state, _, theirs in await cursor.fetchall()
    ]
