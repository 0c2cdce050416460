"""What a day says to members about cases: the lines of their ER files, settled once with the day's files and never again.

    what was decided on the day    to both members, each under its own number for the case where it has one, else under ours
    what the checker denied        to the member that had asked for it, amount 0, the rule in the place of the reason
    lines that were refused        to the member that sent them, likewise, with its own words about the original

The line of the original is the very one that the member had in its CM. It comes from the day on which that was written, so it is looked up
one clearing date at a time; what had none (a purchase of unknown end, a record that is paid only now) shows what was booked.
"""

from collections import defaultdict
from collections.abc import Sequence
from datetime import date
from typing import Any, Final, NamedTuple

from psycopg import AsyncConnection

from switch.clearing.disputes.cm_lines import lines_of
from switch.clearing.disputes.states import ISSUER_GETS, Action
from switch.storage.sql import load

SQL: Final = load("switch.clearing.disputes", "outgoing.sql")

Connection = AsyncConnection[Any]


class _Said(NamedTuple):
    """Something to say about a transaction, before its line is known. line: where it is. cleared_on: what ER calls the original date."""

    member_id: str
    case_text: str
    action: str
    amount_fen: int
    reason: str
    line_date: date
    line_entry: int
    cleared_on: date


async def settle_lines(connection: Connection, day: date) -> list[tuple[str, int, int]]:
    """Write the lines of a day; (member, lines, fen marked C) for each member that gets any. In the caller's transaction, once per day."""
    said = []
    for row in await _all(connection, "decided", day):
        member, case_text, action, fen, issuing, reason, line_date, entry_no, cleared_on = row
        signed_fen = _signed(Action(action), fen, issuing=issuing)
        said.append(_Said(member, case_text, action, signed_fen, reason, line_date, entry_no, cleared_on))
    said += [_Said(*row) for row in await _all(connection, "denied", day)]
    lines = await _lines(connection, said)
    rows = [
        (
            one.member_id,
            one.case_text,
            one.action,
            line,
            one.amount_fen,
            one.reason,
            f"{one.cleared_on:%Y%m%d}",
        )
        for one, line in zip(said, lines, strict=True)
    ]
    rows += await _all(connection, "refused", day)
    if not rows:
        return []
    numbers: dict[str, int] = defaultdict(int)
    async with connection.cursor() as cursor, cursor.copy(SQL["copy_lines"]) as copy:
        for member, *rest in rows:
            numbers[member] += 1
            await copy.write_row((day, member, numbers[member], *rest))
    return [(row[0], row[1], row[2]) for row in await _all(connection, "settled", day)]


def _signed(action: Action, amount_fen: int, *, issuing: bool) -> int:
    """The amount from a member's side: what it receives."""
    return amount_fen * ISSUER_GETS[action] * (1 if issuing else -1)


async def _lines(connection: Connection, said: Sequence[_Said]) -> list[str]:
    of: dict[tuple[date, str], list[int]] = defaultdict(list)
    for place, one in enumerate(said):
        of[one.line_date, one.member_id].append(place)
    lines = [""] * len(said)
    for (line_date, member), places in sorted(of.items()):
        found = await lines_of(connection, line_date, member, [said[place].line_entry for place in places])
        for place in places:
            lines[place] = found[said[place].line_entry]
    return lines


async def _all(connection: Connection, query: str, day: date) -> list[tuple[Any, ...]]:
    return list(await (await connection.execute(SQL[query], {"day": day})).fetchall())
