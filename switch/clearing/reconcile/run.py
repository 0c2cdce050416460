"""Comparing a partner's file with our books: every item of both sides ends in exactly one outcome.

    even       one item of ours and one line of theirs say the same; counted, and not looked at again
    the rest   compared one by one, together with what the day before had left open
    written    sums by outcome, and a row for each finding, in one transaction

The same inputs (file, tolerance, what was carried over) give the stored comparison again. A later file of the same date, or a late file of
the day before, gives a new one, and the days behind it that have been compared are compared again, because what is carried over may have changed.

Our side is what has come to an end on the business date and stays so: legs by the instant at which they ended, what hosts were told by the instant at which that was
written, both behind the seal of the day.
"""

from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from datetime import date, timedelta
from typing import Any, Final, NamedTuple

from switch.clearing.day_files import Connection
from switch.domain.errors import InputRefused
from switch.storage.sql import load

SQL: Final = load("switch.clearing.reconcile", "run.sql")
PARTNER_LOCK: Final = 0x52454350  # advisory, two-part: one comparison of a partner at a time
DIFFERENCES_MAX: Final = 1_000_000  # keys that are not even; more is no comparison but the wrong file
DAYS_AGAIN_MAX: Final = 31  # days behind that are compared again
_SCRATCH: Final = ("carried", "tangled", "our_part", "their_part", "compared", "found")

Tell = Callable[[str], None]


class Partner(NamedTuple):
    """What the settings say of one. tolerance_fen: amounts that differ by no more are listed and closed. roll_days: 1: what is missing may come a day later."""

    institution: str
    tolerance_fen: int = 0
    roll_days: int = 1


class Side(NamedTuple):
    """Items and money of one outcome."""

    ours_count: int
    ours_fen: int
    theirs_count: int
    theirs_fen: int


class Compared(NamedTuple):
    """A comparison. repeated: it was there already. states: how many findings are in which state. left_open: of the day before, what has not come."""

    run_no: int
    partner: str
    day: date
    file: str
    repeated: bool
    totals: Mapping[str, Side]
    states: Mapping[str, int]
    left_open: int


async def compare(
    connection: Connection, partner: Partner, day: date, actor: str, tell: Tell = lambda _step: None
) -> list[Compared]:
    """Compare the partner's newest file of a date with our books, and days behind it again whose beginnings this has changed.

    connection: its own, in autocommit mode; its session settings are changed. tell: the name of each step as it begins. Raises InputRefused
    when the day is not sealed, no file has come, its lines are gone, somebody else compares, or too much differs; nothing is changed then.
    """
    async with _alone(connection, partner.institution):
        for setting in (
            "SET TIME ZONE 'UTC'",
            "SET work_mem = '128MB'",
            "SET jit = off",
            "SET client_min_messages = warning",
        ):
            await connection.execute(setting)
        done = [await _compare(connection, partner, day, actor, tell)]
        for _ in range(DAYS_AGAIN_MAX):
            behind = done[-1].day + timedelta(days=1)
            if await _current(connection, partner.institution, behind) is None:
                break
            try:
                again = await _compare(connection, partner, behind, actor, tell)
            except InputRefused as error:
                raise InputRefused(
                    f"{done[-1].day} was compared; {behind} must be compared again and cannot be: {error}"
                ) from error
            if again.repeated:
                break
            done.append(again)
        return done


@asynccontextmanager
async def _alone(connection: Connection, partner: str) -> AsyncIterator[None]:
    values = {"space": PARTNER_LOCK, "partner": partner}
    row = await (await connection.execute(SQL["lock_partner"], values)).fetchone()
    if row is None or not row[0]:
        raise InputRefused(f"{partner} is being compared by another process")
    try:
        yield
    finally:
        if not connection.closed:
            await connection.execute(SQL["unlock_partner"], values)


async def _one(connection: Connection, query: str, values: Mapping[str, Any]) -> tuple[Any, ...] | None:
    return await (await connection.execute(SQL[query], values)).fetchone()


async def _current(connection: Connection, partner: str, day: date) -> tuple[Any, ...] | None:
    return await _one(connection, "current_run", {"partner": partner, "day": day})


async def _compare(connection: Connection, partner: Partner, day: date, actor: str, tell: Tell) -> Compared:
    institution = partner.institution
    row = await _one(connection, "read_day", {"day": day})
    if row is None or not row[2]:
        raise InputRefused(f"business day {day} is not closed yet: close it first")
    file = await _one(connection, "newest_file", {"partner": institution, "day": day})
    if file is None:
        raise InputRefused(
            f"no file of {institution} about {day} has been taken: `cardswitch reconcile take`"
        )
    file_no, name, line_count, effect_fen = file
    before = await _current(connection, institution, day - timedelta(days=1))
    carried_run = before[0] if before is not None and before[4] else None
    inputs = (file_no, carried_run, partner.tolerance_fen, partner.roll_days)
    stored = await _current(connection, institution, day)
    if stored is not None and stored[1:] == inputs:
        return await _read(connection, partner, day, stored[0], name, repeated=True)
    values = {
        "partner": institution,
        "partner_no": int(institution),
        "day": day,
        "begins_at": row[0],
        "ends_at": row[1],
        "file_no": file_no,
        "carried_run": carried_run,
        "tolerance_fen": partner.tolerance_fen,
        "roll_days": partner.roll_days,
        "actor": actor,
    }
    found = await _one(connection, "count_lines", values)
    if found != (line_count, effect_fen):
        raise InputRefused(
            f"{name}: its lines are not here any more (the server has crashed, or they are too old): take the file again"
        )
    await _set_apart(connection, values, line_count, effect_fen, tell)
    run_no = await _write(connection, values, tell)
    return await _read(connection, partner, day, run_no, name, repeated=False)


async def _set_apart(
    connection: Connection, values: dict[str, Any], line_count: int, effect_fen: int, tell: Tell
) -> None:
    """Fill the scratch tables with all that is not even; values gets what is."""
    await _clear(connection)
    tell("pair items and lines")
    await connection.execute(SQL["make_carried"], values)
    await connection.execute(SQL["make_tangled"], values)
    await _refuse_too_many(connection)
    tell("count")
    ours = await _one(connection, "count_ours", values)
    assert ours is not None
    await _make_parts(connection, values, tell)
    even_ours, even_theirs = await _even(connection, ours, (line_count, effect_fen))
    if even_ours != even_theirs:  # a line that says again what another says
        tell("find repeated lines")
        await connection.execute(SQL["add_repeated"], values)
        await _refuse_too_many(connection)
        await _make_parts(connection, values, tell)
        even_ours, even_theirs = await _even(connection, ours, (line_count, effect_fen))
    assert even_ours == even_theirs, "what is even is the same on both sides"
    tell("compare")
    await connection.execute(SQL["make_compared"], values)
    values |= {
        "ours_count": ours[0],
        "ours_fen": ours[1],
        "theirs_count": line_count,
        "theirs_fen": effect_fen,
        "even_count": even_ours[0],
        "even_fen": even_ours[1],
    }


async def _clear(connection: Connection) -> None:
    await connection.execute(f"DROP TABLE IF EXISTS {', '.join(f'pg_temp.{name}' for name in _SCRATCH)}")


async def _refuse_too_many(connection: Connection) -> None:
    row = await (await connection.execute("SELECT count(*) FROM tangled")).fetchone()
    assert row is not None
    if row[0] > DIFFERENCES_MAX:
        raise InputRefused(
            f"{row[0]:,} items differ, and more than {DIFFERENCES_MAX:,} are not written down: is it the right file?"
        )
    await connection.execute("ANALYZE tangled")


async def _make_parts(connection: Connection, values: Mapping[str, Any], tell: Tell) -> None:
    tell("set apart what differs")
    await connection.execute("DROP TABLE IF EXISTS pg_temp.our_part, pg_temp.their_part")
    await connection.execute(SQL["make_our_part"], values)
    await connection.execute(SQL["make_their_part"], values)


async def _even(
    connection: Connection, ours: tuple[Any, ...], theirs: tuple[int, int]
) -> tuple[tuple[int, int], tuple[int, int]]:
    """Number and money of what was not set apart, on either side."""
    row = await _one(connection, "count_parts", {})
    assert row is not None
    return (ours[0] - row[0], ours[1] - row[1]), (theirs[0] - row[2], theirs[1] - row[3])


async def _write(connection: Connection, values: dict[str, Any], tell: Tell) -> int:
    tell("write")
    await connection.execute("ANALYZE compared")
    await connection.execute(SQL["make_found"], values)
    await connection.execute("ANALYZE found")
    async with connection.transaction():
        row = await _one(connection, "add_run", values)
        assert row is not None
        values["run_no"] = row[0]
        for query in ("add_totals", "add_differences", "add_findings", "set_states", "set_carried_states"):
            await connection.execute(SQL[query], values)
    await _clear(connection)
    return int(row[0])


async def _read(
    connection: Connection, partner: Partner, day: date, run_no: int, name: str, *, repeated: bool
) -> Compared:
    totals = await connection.execute(SQL["totals"], {"run_no": run_no})
    sides = {row[0]: Side(*row[1:]) for row in await totals.fetchall()}
    states = await connection.execute(SQL["states"], {"run_no": run_no})
    left = await _one(connection, "left_open", {"run_no": run_no})
    assert left is not None
    return Compared(
        run_no, partner.institution, day, name, repeated, sides, dict(await states.fetchall()), left[0]
    )
