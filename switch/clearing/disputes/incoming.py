"""ER files of members: each line asks for an action, once. Refused lines are written down with their rule and answered in the day's ER.

A line must show the original as the member had it in its CM: that names the transaction, and proves that the member is on one of its sides.
What moves money waits for a checker here, unless a setting (disputes.auto_accept) decides in his place.
"""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from datetime import date
from typing import Any, Final

from switch.clearing.day_files import Connection
from switch.clearing.disputes.cases import asked_further, opened
from switch.clearing.disputes.cm_lines import lines_of
from switch.clearing.disputes.deciding import Connect, decide, deny
from switch.clearing.disputes.originals import SQL, Original, find_transactions
from switch.clearing.disputes.people import MEMBER
from switch.clearing.disputes.reasons import REASONS
from switch.clearing.disputes.states import ASKED_BY, BOOKS, ISSUER_GETS, Action, Rule, Side
from switch.clearing.disputes.steps import ActionRefused, Ask, Done, Stamp, lock_case, take_stamp
from switch.clearing.files import FileName, FileRefused, FileStatus
from switch.clearing.layouts import LAYOUTS, LineFault, Value, read_line
from switch.clearing.received import Block, Kind, Progress, Terms
from switch.domain.errors import InputRefused

DISPUTES: Final = "ER"
LINES_AT_ONCE: Final = 200  # in one transaction, which holds the purse's gate
DECIDED_AT_ONCE: Final = 200
ASKED, DONE = "asked", "done"  # in receipts; the others are the rules by which lines were refused
AUTO: Final = "disputes.auto_accept"
LINE_LENGTH: Final = 299
_DATE_DIGITS: Final = 8


def dispute_kind(connection: Connection, name: FileName, terms: Terms) -> Kind:
    """How such a file is taken."""
    known: dict[tuple[str, str], Original | None] = {}  # of a block, by original date and line

    async def take(progress: Progress, block: Block) -> Progress:
        lines = block.lines[:LINES_AT_ONCE]
        if not all(_name(values) in known for values in lines):
            known.clear()  # of the block before
            await _look_up(connection, name.sender, terms.own_id, block.lines, known)
        results: dict[str, tuple[int, int]] = {}
        async with connection.transaction():
            stamp = await take_stamp(connection)
            for number, values in enumerate(lines, block.first_line):
                became = await _take_line(
                    connection, name.sender, progress.file_no, number, values, known, stamp
                )
                count, fen = results.get(became, (0, 0))
                results[became] = (count + 1, fen + abs(int(values["amount"])))
            moved = progress.after(len(lines), results)
            await connection.execute(*moved.statement(stamp.today))
        return moved

    return Kind(addressee=terms.centre_id, sender="", check=_check, take=take)


def _check(number: int, values: dict[str, Value]) -> None:
    """What no line of a file may have: bytes that no printer shows. What it asks for is looked at line by line."""
    for field, value in values.items():
        if isinstance(value, str) and not value.isprintable():
            raise FileRefused(FileStatus.CONTENT, f"{field}: printable characters only", line=number + 1)


# ---------------------------------------------------------------------- which transactions are meant


async def _look_up(
    connection: Connection,
    member: str,
    own_id: str,
    lines: Sequence[Mapping[str, Value]],
    known: dict[tuple[str, str], Original | None],
) -> None:
    """Find the originals of lines: all of a clearing date at once. Only closed days have lines, and those never change."""
    wanted: dict[date, dict[str, tuple[str, str]]] = defaultdict(dict)
    for values in lines:
        name = _name(values)
        known[name] = None
        day, line = _date(name[0]), _fields(name[1])
        if day is not None and line is not None:
            wanted[day][name[1]] = (str(line["terminal"]), str(line["rrn"]))
    cursor = await connection.execute(SQL["closed_among"], {"days": list(wanted)})
    for (day,) in await cursor.fetchall():
        asked = wanted[day].values()
        like = {
            "day": day,
            "member": member,
            "terminals": [terminal for terminal, _ in asked],
            "rrns": [rrn for _, rrn in asked],
        }
        rows = await (await connection.execute(SQL["entries_like"], like)).fetchall()
        found_lines = await lines_of(connection, day, member, [row[0] for row in rows])
        entries = {text: entry_no for entry_no, text in found_lines.items() if text in wanted[day]}
        if entries:
            found = await find_transactions(connection, day, own_id, list(entries.values()))
            for text, entry_no in entries.items():
                known[f"{day:%Y%m%d}", text] = found.get(entry_no)


def _name(values: Mapping[str, Value]) -> tuple[str, str]:
    return f"{values['original_date']:0{_DATE_DIGITS}d}", str(values["line"]).ljust(LINE_LENGTH)


def _date(digits: str) -> date | None:
    try:
        return date(int(digits[:4]), int(digits[4:6]), int(digits[6:]))
    except ValueError:
        return None


def _fields(line: str) -> dict[str, Value] | None:
    try:
        return read_line(LAYOUTS["CM"], f"D{line}")
    except LineFault:
        return None


# ---------------------------------------------------------------------- one line


async def _take_line(
    connection: Connection,
    member: str,
    file_no: int,
    number: int,
    values: Mapping[str, Value],
    known: Mapping[tuple[str, str], Original | None],
    stamp: Stamp,
) -> str:
    """What became of a line: asked, done, or the rule by which it was refused. Written down either way."""
    name = _name(values)
    row: dict[str, Any] = {
        "file_no": file_no,
        "line_no": number,
        "today": stamp.today,
        "member_id": member,
        "member_case": values["case_no"],
        "action": values["action"],
        "original_line": name[1],
        "amount_fen": values["amount"],
        "reason": values["reason"],
        "original_date": name[0],
        "case_no": None,
        "refusal": "",
        "detail": "",
    }
    try:
        async with connection.transaction():  # a savepoint: a refused line takes back what it began
            done = await _do(connection, member, values, known[name])
            became = ASKED if done.waits else DONE
            row["case_no"] = done.case_no
    except ActionRefused as refusal:
        row["refusal"] = became = str(refusal.rule)
        row["detail"] = refusal.text
    await connection.execute(SQL["add_received"], row)
    return became


async def _do(
    connection: Connection, member: str, values: Mapping[str, Value], original: Original | None
) -> Done:
    text, fen = str(values["case_no"]), int(values["amount"])
    action = _action(values)
    if original is None:
        raise ActionRefused(
            Rule.ORIGINAL, "line: not that of an original of this clearing date in the member's CM"
        )
    side = ASKED_BY[action]
    if member != (original.issuer_id if side == Side.ISSUER else original.acquirer_id):
        raise ActionRefused(Rule.PARTY, f"action {action}: is for the {side} of the transaction")
    gets = ISSUER_GETS[action] * (1 if side == Side.ISSUER else -1)
    if (fen > 0) - (fen < 0) != gets:
        raise ActionRefused(Rule.FORM, "amount: C what the sender receives, D what it pays, 0 for action 03")
    asked = Ask(
        action,
        str(values["reason"]),
        "by file",
        f"{MEMBER}{member}",
        abs(fen) if action in BOOKS else None,
        member_id=member,
        member_case=text,
    )
    number = int(text) if len(text) == 16 and text.isdecimal() else None
    cursor = await connection.execute(
        SQL["find_by_number"], {"member": member, "text": text, "number": number}
    )
    row = await cursor.fetchone()
    if row is None:
        if action == Action.REPRESENTMENT:
            raise ActionRefused(Rule.ORIGINAL, "case: no chargeback of that number")
        return await opened(connection, original, asked)
    case = await lock_case(connection, row[0])
    if case.original_entry != original.original_entry:
        raise ActionRefused(Rule.ORIGINAL, "line: not that of the case's transaction")
    return await asked_further(connection, case.case_no, asked)


def _action(values: Mapping[str, Value]) -> Action:
    """The action of a line that is as it must be."""
    text = str(values["action"])
    try:
        action = Action(text)
    except ValueError:
        raise ActionRefused(Rule.FORM, "action: 01 to 05") from None
    if ASKED_BY[action] == Side.OPERATOR:
        raise ActionRefused(Rule.PARTY, f"action {action}: is for the operator")
    reason = REASONS.get(str(values["reason"]))
    if reason is None or action not in reason.actions:
        raise ActionRefused(Rule.FORM, f"reason: none for action {action}")
    if not str(values["case_no"]):
        raise ActionRefused(Rule.FORM, "case_no: the member's number for the case")
    return action


# ---------------------------------------------------------------------- in a checker's place


async def decide_for_members(connect: Connect) -> dict[str, int]:
    """Carry out what members have asked for, each in a transaction of its own; how many of each end. Run again after a stop it goes on.

    What cannot be because the money is not there for now waits on, for people; what can never be is denied by its rule.
    """
    results = {"done": 0, "denied": 0, "waiting": 0}
    connection = await connect()
    after = 0
    try:
        while True:
            cursor = await connection.execute(
                SQL["waiting_of_members"], {"after": after, "limit": DECIDED_AT_ONCE}
            )
            found = [row[0] for row in await cursor.fetchall()]
            for case_no in found:
                results[await _decide_one(connect, connection, case_no)] += 1
            if len(found) < DECIDED_AT_ONCE:
                return results
            after = found[-1]
    finally:
        await connection.close()


async def _decide_one(connect: Connect, connection: Connection, case_no: int) -> str:
    try:
        await decide(connect, case_no, checker=AUTO, by_setting=True)
    except ActionRefused as refusal:
        if refusal.passing or refusal.rule == Rule.STATE:
            return "waiting"
        try:
            await deny(
                connection, case_no, checker=AUTO, note=refusal.text, rule=refusal.rule, by_setting=True
            )
        except InputRefused:  # people were quicker
            return "waiting"
        return "denied"
    return "done"
