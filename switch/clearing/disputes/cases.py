"""Cases: opened with a first action, and asked about further. What moves money then waits for a second person (deciding.py).

What may not be is written down with its rule and then refused; nothing is dropped. The limit of an action binds who asks for it: what was
asked in time can be decided later.
"""

from switch.clearing.disputes.originals import SQL, Original
from switch.clearing.disputes.people import one
from switch.clearing.disputes.reasons import REASONS
from switch.clearing.disputes.states import ABOUT, BOOKS, NEXT, Action, Rule, State, due_after, refusal_of
from switch.clearing.disputes.steps import (
    ActionRefused,
    Ask,
    Connection,
    Done,
    event_of,
    lock_case,
    note_refusal,
    row_of,
    take_stamp,
    waiting,
)
from switch.domain.errors import InputRefused
from switch.ledger.card_states import with_reason
from switch.ledger.load_states import LoadState

OUTCOMES = {"loaded": LoadState.LOADED, "returned": LoadState.RETURNED}


async def open_case(connection: Connection, original: Original, asked: Ask) -> Done:
    """Open a case with its first action. connection: in autocommit mode and not in a transaction.

    Raises ActionRefused, or InputRefused for what nobody could mean (a reason that is none, no text).
    """
    asked = checked_form(asked)
    try:
        async with connection.transaction():
            return await opened(connection, original, asked)
    except ActionRefused as refusal:
        await note_refusal(
            connection, None, original.original_entry, asked.action, asked.amount_fen, asked.maker, refusal
        )
        raise


async def opened(connection: Connection, original: Original, asked: Ask) -> Done:
    """The same in the caller's transaction, where a refusal is the caller's to write down."""
    action = asked.action
    stamp = await take_stamp(connection)
    if original.source not in ABOUT[action]:
        raise ActionRefused(Rule.STATE, f"action {action}: is not for such a transaction")
    if original.item_entry is None and action in BOOKS:
        raise ActionRefused(Rule.STATE, f"action {action}: the transaction was not paid")
    if original.item_entry is not None and action in (Action.GREY, Action.REFUSED_RECORD):
        raise ActionRefused(Rule.STATE, f"action {action}: the record is paid")
    if not original.approved and action != Action.DEBIT:
        raise ActionRefused(Rule.STATE, f"action {action}: the transaction was not approved")
    refusal = refusal_of(State.NEW, action, original.cleared_on, stamp.local)
    if refusal is not None:
        raise ActionRefused(*refusal)
    fen = _amount(action, asked.amount_fen, original.amount_fen)
    waits = action != Action.RETRIEVAL
    state = State.NEW if waits else NEXT[State.NEW, action]
    values = {
        "now": stamp.now,
        "today": stamp.today,
        **original._asdict(),
        "case_fen": original.amount_fen,
        "member_id": asked.member_id,
        "member_case": asked.member_case,
        "state": state,
        "due_on": due_after(state, original.cleared_on, None),
        **waiting(asked if waits else None, fen, stamp.now),
    }
    if action == Action.CHARGEBACK or not waits:
        row = await row_of(connection, "case_of", {"original_entry": original.original_entry})
        if row is not None:
            raise ActionRefused(Rule.OPEN, f"transaction: case {row[0]} is {row[1]}")
    row = await row_of(connection, "open_case", values)
    if row is None:
        raise ActionRefused(
            Rule.OPEN, "transaction: has an open case, or the member used this case number before"
        )
    case_no: int = row[0]
    event = event_of(case_no, 1, stamp, "ASKED" if waits else "DONE", "", state, asked, fen)
    await connection.execute(SQL["add_event"], event)
    await connection.execute(SQL["count_event"], {"case_no": case_no, "seq": 1})
    return Done(case_no, state, stamp.now, stamp.today, waits)


async def ask(connection: Connection, case_no: int, asked: Ask) -> Done:
    """Ask for the next action of an open case. Raises ActionRefused."""
    asked = checked_form(asked)
    try:
        async with connection.transaction():
            return await asked_further(connection, case_no, asked)
    except ActionRefused as refusal:
        await note_refusal(connection, case_no, None, asked.action, asked.amount_fen, asked.maker, refusal)
        raise


async def asked_further(connection: Connection, case_no: int, asked: Ask) -> Done:
    """The same in the caller's transaction, where a refusal is the caller's to write down."""
    case = await lock_case(connection, case_no)
    stamp = await take_stamp(connection)
    action = asked.action
    refusal = refusal_of(case.state, action, case.begins(action), stamp.local)
    if refusal is not None:
        raise ActionRefused(*refusal)
    if case.asked_action is not None:
        raise ActionRefused(Rule.STATE, f"case: action {case.asked_action} waits for its checker")
    most = case.charged_fen if action == Action.REPRESENTMENT else case.amount_fen
    assert most is not None
    fen = _amount(action, asked.amount_fen, most)
    seq = case.events + 1
    event = event_of(case_no, seq, stamp, "ASKED", case.state, case.state, asked, fen)
    await connection.execute(SQL["add_event"], event)
    row = {"case_no": case_no, "seq": seq, **waiting(asked, fen, stamp.now)}
    await connection.execute(SQL["wait_for_checker"], row)
    return Done(case_no, case.state, stamp.now, stamp.today, waits=True)


def checked_form(asked: Ask) -> Ask:
    """What is asked, tidied. InputRefused when it says nothing that could be done."""
    reason = REASONS.get(asked.reason)
    if reason is None or asked.action not in reason.actions:
        fitting = ", ".join(code for code, one in REASONS.items() if asked.action in one.actions)
        raise InputRefused(f"reason: for action {asked.action} one of {fitting}")
    if (asked.action == Action.LOAD) != (asked.outcome in OUTCOMES):
        raise InputRefused("as: loaded or returned, for action 08 and no other")
    maker = asked.maker if asked.member_id is not None else one("actor", asked.maker)
    return asked._replace(maker=maker, note=with_reason(asked.note))


def _amount(action: Action, fen: int | None, most_fen: int) -> int:
    if action == Action.RETRIEVAL:
        return 0
    fen = most_fen if fen is None else fen
    if not 0 < fen <= most_fen:
        raise ActionRefused(Rule.AMOUNT, f"amount: 1 to {most_fen} fen")
    if action not in BOOKS and fen != most_fen:
        raise ActionRefused(Rule.AMOUNT, f"amount: the whole, {most_fen} fen")
    return fen
