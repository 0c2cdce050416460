"""How far the close of a day is, for people and for programs: the table of its steps, who is at it, and which days wait."""

from datetime import date

from rich.console import Console
from rich.table import Table

from switch.clearing.close import CLOSE_LOCK
from switch.clearing.day_files import SQL
from switch.clearing.report import Figures, step_table
from switch.domain.calendar import SHANGHAI
from switch.domain.errors import InputRefused
from switch.ledger.days import day_of, ended_not_closed
from switch.storage.pool import connect

CLOSED = 2  # state of a business day


async def close_status(url: str, chosen: date | None) -> Figures:
    """How far the close of a day is; by default of the oldest that has ended and is not closed, else of the last closed one."""
    async with await connect(url) as connection:
        overdue = await ended_not_closed(connection)
        if chosen is None:
            row = await (await connection.execute(SQL["last_closed"])).fetchone()
            chosen = overdue[0] if overdue else row[0] if row else None
        row_of_day = await day_of(connection, chosen) if chosen else None
        if row_of_day is None:
            raise InputRefused(f"there is no business day {chosen}" if chosen else "no day has ended yet")
        steps = await step_table(connection, row_of_day.day)
        holder = await (await connection.execute(SQL["who_closes"], {"lock": CLOSE_LOCK})).fetchone()
    begun = bool(steps) and row_of_day.state < CLOSED
    return {
        "day": row_of_day.day,
        "state": "being closed"
        if begun
        else "closed"
        if row_of_day.state == CLOSED
        else "not begun to be closed",
        "ends_at": row_of_day.ends_at,
        "closer": holder[0] if holder else None,
        "not_closed": overdue,
        "steps": steps,
    }


def show_status(found: Figures) -> None:
    """The steps as a table, and what is not closed."""
    console = Console(highlight=False, markup=False, soft_wrap=True)
    console.width = max(console.width, 140)
    table = Table(title=f"Business day {found['day']}: {found['state']}", title_justify="left")
    for title in ("step", "state", "who", "begun", "seconds", "tries", "read", "made"):
        table.add_column(title, no_wrap=True)
    for step in found["steps"]:
        begun, ended = step["started_at"], step["finished_at"]
        table.add_row(
            step["step"],
            step["state"],
            step["actor"],
            f"{begun.astimezone(SHANGHAI):%Y-%m-%d %H:%M:%S}",
            f"{(ended - begun).total_seconds():.1f}" if ended else "",
            str(step["tries"]),
            (step["input_sha256"] or "")[:12],
            (step["output_sha256"] or "")[:12],
        )
    console.print(table)
    for step in found["steps"]:
        if step["error"]:
            console.print(f"{step['step']} ended with: {step['error']}")
    console.print(f"Closing now: {found['closer']}" if found["closer"] else "Nobody is closing a day now.")
    if found["not_closed"]:
        days = ", ".join(str(day) for day in found["not_closed"])
        console.print(
            f"Ended and not closed: {days}. `cardswitch close --date {found['not_closed'][0]}` goes on."
        )
