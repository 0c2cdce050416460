"""What waits in a case is carried out, denied, or the case ends: by another person than the one who asked. Money moves in the same transaction."""

from collections.abc import Awaitable, Callable
from datetime import date, datetime
from hashlib import new as new_digest
from typing import Final

import psycopg

from switch.clearing.disputes.cases import OUTCOMES
from switch.clearing.disputes.originals import SQL
from switch.clearing.disputes.people import MEMBER, both, one
from switch.clearing.disputes.states import BOOKS, NEXT, OPEN, Action, Rule, State, due_after
from switch.clearing.disputes.steps import (
    ActionRefused,
    Case,
    Connection,
    Done,
    Stamp,
    event_of_case,
    lock_case,
    moved,
    note_refusal,
    row_of,
    take_stamp,
)
from switch.domain.errors import InputRefused
from switch.ledger.adjustments import Adjustment, AdjustmentRefused, Why, adjust
from switch.ledger.card_states import with_reason
from switch.ledger.gate import GATE, PURSE_GATE_SHARD, TAKE_SHARED
from switch.ledger.load_desk import Beside
from switch.ledger.load_desk import settle as settle_load
from switch.purse.decisions import RecordRefused, accept
from switch.storage.pipeline import Parameter
from switch.storage.pool import end_if_idle

Connect = Callable[[], Awaitable[Connection]]
LAPSED_AT_ONCE: Final = 200
LAPSES: Final = "time is over"  # who ends a case that nobody has answered in time
_RULE: Final = {
    Why.NOT_THERE: Rule.ORIGINAL,
    Why.STATE: Rule.STATE,
    Why.AMOUNT: Rule.AMOUNT,
    Why.FUNDS: Rule.AMOUNT,
}


async def decide(connect: Connect, case_no: int, *, checker: str, by_setting: bool = False) -> Done:
    """Carry out what waits. One transaction for the decision and its money. Raises ActionRefused; then it still waits.

    by_setting: nobody but a setting decides (disputes.auto_accept), for what came from members. LookupError without a business day.
    """
    connection = await connect()
    try:
        try:
            async with connection.transaction():
                case = await _to_decide(connection, case_no, checker, by_setting=by_setting)
                if case.asked_action != Action.LOAD:
                    return await _carry_out(connection, case, _checker(case, checker, by_setting=by_setting))
            return await _carry_out_load(connect, case, _checker(case, checker, by_setting=by_setting))
        except AdjustmentRefused as refusal:
            raise ActionRefused(
                _RULE[refusal.why], str(refusal), passing=refusal.why == Why.FUNDS
            ) from refusal
        except RecordRefused as refusal:
            raise ActionRefused(Rule.STATE, str(refusal)) from refusal
    except ActionRefused as refusal:
        await note_refusal(connection, case_no, None, "decide", None, checker.strip() or "nobody", refusal)
        raise
    finally:
        await connection.close()


async def deny(
    connection: Connection,
    case_no: int,
    *,
    checker: str,
    note: str,
    rule: Rule = Rule.CHECKER,
    by_setting: bool = False,
) -> Done:
    """The checker refuses what waits: nothing moves. Raises ActionRefused."""
    note = with_reason(note)
    try:
        async with connection.transaction():
            case = await _to_decide(connection, case_no, checker, by_setting=by_setting)
            stamp = await take_stamp(connection)
            after = State.DENIED if case.state == State.NEW else case.state
            event = {
                **event_of_case(case, stamp, "DENIED", after),
                "reason": rule,
                "note": note,
                "checker": _checker(case, checker, by_setting=by_setting),
            }
            await connection.execute(SQL["add_event"], event)
            due_on = case.due_on if after == case.state else None
            await connection.execute(SQL["move_case"], moved(case, after, due_on))
            return Done(case_no, after, stamp.now, stamp.today, waits=False)
    except ActionRefused as refusal:
        await note_refusal(connection, case_no, None, "deny", None, checker.strip() or "nobody", refusal)
        raise


async def close(connection: Connection, case_no: int, *, actor: str, note: str) -> Done:
    """End an open case for which nothing waits, without money. Raises ActionRefused."""
    actor, note = one("actor", actor), with_reason(note)
    try:
        async with connection.transaction():
            case = await lock_case(connection, case_no)
            _check_idle(case)
            return await _end(connection, case, "CLOSED", actor, note)
    except ActionRefused as refusal:
        await note_refusal(connection, case_no, None, "close", None, actor, refusal)
        raise


def _check_idle(case: Case) -> None:
    if case.state not in OPEN or case.asked_action is not None:
        waits = f", and action {case.asked_action} waits" if case.asked_action else ""
        raise ActionRefused(Rule.STATE, f"case: is {case.state}{waits}")


async def lapse(connection: Connection) -> int:
    """Close cases whose time for an answer is over; how many. Safe from several processes."""
    done = 0
    while True:
        cursor = await connection.execute(SQL["find_lapsed"], {"limit": LAPSED_AT_ONCE})
        found = [row[0] for row in await cursor.fetchall()]
        for case_no in found:
            async with connection.transaction():
                await end_if_idle(connection)
                case = await lock_case(connection, case_no)
                stamp = await take_stamp(connection)
                if (
                    case.state in OPEN
                    and case.asked_action is None
                    and case.due_on
                    and case.due_on < stamp.local
                ):
                    await _end(
                        connection, case, "LAPSED", LAPSES, f"nobody asked for anything until {case.due_on}"
                    )
                    done += 1
        if len(found) < LAPSED_AT_ONCE:
            return done


async def _end(connection: Connection, case: Case, what: str, actor: str, note: str) -> Done:
    stamp = await take_stamp(connection)
    event = {**event_of_case(case, stamp, what, State.CLOSED), "actor": actor, "note": note}
    await connection.execute(SQL["add_event"], event)
    await connection.execute(SQL["move_case"], moved(case, State.CLOSED, None))
    return Done(case.case_no, State.CLOSED, stamp.now, stamp.today, waits=False)


async def _to_decide(connection: Connection, case_no: int, checker: str, *, by_setting: bool) -> Case:
    case = await lock_case(connection, case_no)
    if case.asked_action is None:
        raise ActionRefused(Rule.STATE, f"case: is {case.state}, and nothing waits for a checker")
    _checker(case, checker, by_setting=by_setting)
    return case


def _checker(case: Case, checker: str, *, by_setting: bool) -> str:
    assert case.asked_by is not None
    if by_setting:
        if not case.asked_by.startswith(MEMBER):  # people were quicker, and have asked for something else
            raise ActionRefused(Rule.PERSON, "a setting decides for members only")
        return checker
    try:
        return both(case.asked_by, checker)
    except InputRefused as refusal:
        raise ActionRefused(Rule.PERSON, str(refusal)) from refusal


async def _carry_out(connection: Connection, case: Case, checker: str) -> Done:
    action = case.asked_action
    assert action is not None
    assert case.asked_fen is not None
    await connection.execute(TAKE_SHARED, (GATE, PURSE_GATE_SHARD))
    seq = case.events + 1
    if action in BOOKS:
        assert case.item_entry is not None
        assert case.item_date is not None
        earlier = None
        if action == Action.REPRESENTMENT:
            assert case.charged_entry is not None
            assert case.charged_on is not None
            earlier = (case.charged_entry, case.charged_on)
        booked = await adjust(
            connection,
            Adjustment(
                BOOKS[action],
                case.source,
                case.shard,
                case.terminal_no,
                case.original_entry,
                case.original_date,
                case.item_entry,
                case.item_date,
                case.asked_fen,
                new_digest("sm3", f"case {case.case_no}, step {seq}".encode()).digest(),
                earlier,
            ),
        )
        entry_no, now, today = booked.entry_no, booked.at, booked.business_date
    else:
        pieces = await row_of(connection, "count_evidence", {"case_no": case.case_no, "sm3": None})
        if pieces is None or not pieces[2]:
            raise ActionRefused(Rule.STATE, f"action {action}: needs evidence, and the case has none")
        accepted = await accept(
            connection, case.original_entry, case.original_date, grey=action == Action.GREY
        )
        entry_no, now, today = accepted.entry_no, accepted.at, accepted.business_date
    after = NEXT[case.state, action]
    stamp = Stamp(now, today, today)
    event = {**event_of_case(case, stamp, "DONE", after), "checker": checker, "entry_no": entry_no}
    await connection.execute(SQL["add_event"], event)
    charged = action == Action.CHARGEBACK
    due_on = due_after(after, case.cleared_on, today if charged else case.charged_on)
    row = moved(case, after, due_on)
    if charged:
        row |= {"charged_fen": case.asked_fen, "charged_on": today, "charged_entry": entry_no}
    await connection.execute(SQL["move_case"], row)
    return Done(case.case_no, after, now, today, waits=False, entry_no=entry_no)


async def _carry_out_load(connect: Connect, case: Case, checker: str) -> Done:
    """A load moves under its shard's locks, on a link of its own, and the case with it."""
    assert case.asked_by is not None
    assert case.asked_outcome is not None
    assert case.asked_fen is not None
    assert case.asked_reason is not None
    told: list[tuple[datetime, date, int]] = []

    def values(now: datetime, today: date, move_no: int) -> dict[str, Parameter]:
        told.append((now, today, move_no))
        return {
            "case_no": case.case_no,
            "seq": case.events + 1,
            "state": str(State.SETTLED),
            "at": now,
            "today": today,
            "before_state": str(case.state),
            "amount_fen": case.asked_fen,
            "reason": case.asked_reason,
            "note": "",
            "actor": case.asked_by,
            "checker": checker,
            "entry_no": move_no,
        }

    try:
        await settle_load(
            connect,
            case.original_entry,
            OUTCOMES[case.asked_outcome],
            actor=case.asked_by,
            checker=checker,
            reason=f"case {case.case_no}, reason {case.asked_reason}",
            beside=Beside(SQL["settle_case"], values),
        )
    except psycopg.errors.UniqueViolation as error:
        raise ActionRefused(Rule.STATE, "case: was decided by somebody else just now") from error
    except InputRefused as refusal:
        raise ActionRefused(Rule.STATE, str(refusal)) from refusal
    now, today, move_no = told[-1]
    return Done(case.case_no, State.SETTLED, now, today, waits=False, entry_no=move_no)
