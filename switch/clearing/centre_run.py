"""What an interop centre does by itself, again and again: `cardswitch interop run`. Each step once, resumable anywhere, the same bytes again.

    forward   a date whose time for FH is over: its DF are settled, one for each city of cards
    decide    a date whose answers are all there, or their time is over (no answer = accepted): nets, DT to the acquiring cities, NP to
              all that have a position and to the centre itself
    block     positions that should have been paid for by now

A date is settled in one transaction, and what was settled does not change: files are then written from the tables, as often as need be.
Dates are decided in their order. Grey records that are decided after their own date count on the next one.
"""

from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from contextlib import aclosing, asynccontextmanager
from datetime import date, datetime, timedelta
from typing import Any, Final, NamedTuple

from switch.clearing.centre import ANSWER, CENTRE_LOCK, FORWARDED, SQL, CentreTerms
from switch.clearing.close import day_folder
from switch.clearing.day_files import LINES_AT_ONCE, Connection, FileRow, inspect
from switch.clearing.files import CRLF, FileInMaking, FileName, Head, mark_complete, parse_name, sync_folder
from switch.clearing.foreign import HELD_DAYS_MAX
from switch.clearing.layouts import LAYOUTS, Value, sql_line, write_line
from switch.clearing.netting import Flow, Netting, net_positions
from switch.clearing.signatures import sign_files
from switch.domain.calendar import SHANGHAI, settlement_date
from switch.domain.errors import InputRefused

_RECORD = "upper(encode(r.raw, 'hex'))"
_ORDER = "row_number() OVER (ORDER BY r.file_no, r.line)"
_DF = sql_line(LAYOUTS["DF"], {"line_no": _ORDER, "record": _RECORD})
_DT = sql_line(
    LAYOUTS["DT"],
    {
        "line_no": _ORDER,
        "record": _RECORD,
        "result": "r.result",
        "result_date": "to_char(r.answered_on, 'YYYYMMDD')",
    },
)
LINES: Final = {
    FORWARDED: (
        f"COPY (SELECT {_DF} FROM interop_arrival a JOIN interop_record r USING (file_no)"  # noqa: S608
        " WHERE a.clearing_date = %(date)s AND r.refused IS NULL AND r.issuer_id = %(party)s ORDER BY r.file_no, r.line) TO STDOUT"
    ),
    ANSWER: (
        f"COPY (SELECT {_DT} FROM interop_answers(%(date)s) r WHERE r.member_id = %(party)s"  # noqa: S608
        " ORDER BY r.file_no, r.line) TO STDOUT"
    ),
}
POSITION: Final = tuple(field.name for field in LAYOUTS["NP"].fields[2:])


class Decided(NamedTuple):
    """A clearing date that a run has decided."""

    clearing_date: date
    unanswered: int
    nets_fen: dict[str, int]
    centre_fen: int


class Ran(NamedTuple):
    """What a run did. blocked: clearing date, member and net of positions that nobody paid for in time."""

    forwarded: tuple[date, ...]
    decided: tuple[Decided, ...]
    blocked: tuple[tuple[date, str, int], ...]
    written: tuple[str, ...]


async def run_centre(connection: Connection, terms: CentreTerms) -> Ran:
    """Do all that is due. connection: its own, in autocommit mode. Raises InputRefused while another run is at it, FolderError (disk)."""
    async with _only_run(connection):
        await connection.execute("SET TIME ZONE 'UTC'")
        # What came since the last run has no statistics yet, and the plans of this one depend on them.
        await connection.execute("ANALYZE interop_arrival, interop_record, interop_verdict, interop_hold")
        now = await _now(connection, terms)
        forwarded = [
            day for day in await _due(connection, terms, now) if await _forward(connection, day, terms)
        ]
        written: list[str] = []
        written += await _write_all(
            connection, terms
        )  # before what may take longer: cities wait for their DF
        decided: list[Decided] = []
        for (day,) in await _rows(connection, "dates_to_decide"):
            one = await _decide(connection, day, terms)
            if one is None:
                break
            decided.append(one)
        written += await _write_all(connection, terms)
        values = {"now": now, "actor": terms.actor, "fund_by": terms.fund_by}
        blocked = await _rows(connection, "block_overdue", **values)
        return Ran(tuple(forwarded), tuple(decided), tuple(sorted(blocked)), tuple(written))


async def rewrite(connection: Connection, day: date, terms: CentreTerms) -> tuple[str, ...]:
    """Compare the files of a clearing date with their digests and write again what is missing or was changed; the names written."""
    async with _only_run(connection):
        await connection.execute("SET TIME ZONE 'UTC'")
        return tuple(await _write(connection, day, terms))


@asynccontextmanager
async def _only_run(connection: Connection) -> AsyncIterator[None]:
    values = {"space": CENTRE_LOCK}
    row = await (await connection.execute(SQL["lock_run"], values)).fetchone()
    if row is None or not row[0]:
        raise InputRefused("another run of the interop centre is at work")
    try:
        yield
    finally:
        if not connection.closed:
            await connection.execute(SQL["unlock_run"], values)


async def _rows(connection: Connection, query: str, **values: object) -> list[tuple[Any, ...]]:
    return await (await connection.execute(SQL[query], values)).fetchall()


async def _now(connection: Connection, terms: CentreTerms) -> datetime:
    ((now,),) = await _rows(connection, "read_now", now=terms.now)
    assert isinstance(now, datetime)
    return now


def _last_closed(terms: CentreTerms, now: datetime) -> date:
    """The newest date for which no FH can come any more."""
    local = now.astimezone(SHANGHAI)
    passed = local.time() >= terms.forward_by
    return local.date() - timedelta(days=1 if passed else 2)


async def _due(connection: Connection, terms: CentreTerms, now: datetime) -> list[date]:
    return [day for (day,) in await _rows(connection, "dates_to_forward", last=_last_closed(terms, now))]


async def _forward(connection: Connection, day: date, terms: CentreTerms) -> bool:
    """Settle which DF a date has. False when it turns out that its time is not over: a clock that was set back."""
    async with connection.transaction():
        await connection.execute(SQL["shut_out"], {"space": CENTRE_LOCK})
        now = await _now(connection, terms)
        if day > _last_closed(terms, now):
            return False
        await connection.execute(SQL["begin_date"], {"date": day, "centre": terms.centre_id, "now": now})
        plan = [
            (str(FileName(FORWARDED, terms.centre_id, city, day)), city, lines, total_fen)
            for city, lines, total_fen in await _rows(connection, "plan_forwarded", date=day)
        ]
        await _plan(connection, day, now, plan)
    return True


async def _decide(connection: Connection, day: date, terms: CentreTerms) -> Decided | None:
    """Decide a date: None while answers may still come."""
    async with connection.transaction():
        await connection.execute(SQL["shut_out"], {"space": CENTRE_LOCK})
        now = await _now(connection, terms)
        ((waits,),) = await _rows(connection, "waits_for_answers", date=day)
        if waits and not terms.over(day, now):
            return None
        values = {"date": day, "answer_days": terms.deadline.days, "held_days": HELD_DAYS_MAX}
        unanswered = (await connection.execute(SQL["accept_unanswered"], values)).rowcount
        await connection.execute(SQL["count_late_answers"], {"date": day})
        netting = net_positions(Flow(*row) for row in await _rows(connection, "flows", date=day))
        await _add_positions(connection, day, now, netting, terms)
        end = {
            "date": day,
            "now": now,
            "settlement_date": settlement_date(day + timedelta(terms.deadline.days), terms.is_workday),
            "unanswered": unanswered,
            "centre_fen": netting.centre_fen,
        }
        await connection.execute(SQL["end_date"], end)
        plan = [
            (str(FileName(ANSWER, terms.centre_id, city, day)), city, lines, total_fen)
            for city, lines, total_fen in await _rows(connection, "plan_answers", date=day)
        ]
        nets = {position.institution: position.net_fen for position in netting.positions}
        # The centre's own share has a line too, so that a member sees the sum come to nothing.
        credits_fen = sum(max(net, 0) for net in (*nets.values(), netting.centre_fen))
        plan += [
            (str(FileName("NP", terms.centre_id, member, day)), member, len(nets) + 1, credits_fen)
            for member in (*nets, terms.centre_id)
        ]
        await _plan(connection, day, now, plan)
    return Decided(day, unanswered, nets, netting.centre_fen)


async def _add_positions(
    connection: Connection, day: date, now: datetime, netting: Netting, terms: CentreTerms
) -> None:
    for ordinal, position in enumerate(netting.positions, 1):
        values = {
            "date": day,
            "ordinal": ordinal,
            "institution": position.institution,
            "issuing_count": position.issuing_count,
            "issuing_fen": position.issuing_fen,
            "acquiring_count": position.acquiring_count,
            "acquiring_fen": position.acquiring_fen,
            "issuer_fee_fen": position.issuer_fee_fen,
            "fees_paid_fen": position.fees_paid_fen,
            "net_fen": position.net_fen,
            "state": "DUE" if position.net_fen < 0 else "RECEIVES",
            "now": now,
            "actor": terms.actor,
        }
        await connection.execute(SQL["add_position"], values)


async def _plan(
    connection: Connection, day: date, now: datetime, plan: Sequence[tuple[str, str, int, int]]
) -> None:
    if plan:
        names, parties, counts, totals = (list(column) for column in zip(*plan, strict=True))
        values = {"names": names, "parties": parties, "counts": counts, "totals": totals}
        await connection.execute(SQL["plan_file"], values | {"date": day, "now": now})


# ---------------------------------------------------------------- files


async def _write_all(connection: Connection, terms: CentreTerms) -> list[str]:
    written: list[str] = []
    for (day,) in await _rows(connection, "dates_not_written"):
        written += await _write(connection, day, terms)
    return written


async def _write(connection: Connection, day: date, terms: CentreTerms) -> list[str]:
    """Write the files of a date that are not on disk as they should be, signatures and marks among them."""
    folder = day_folder(terms.folder, day)
    names: list[str] = []
    for *fields, created_at in await _rows(connection, "files", date=day):
        row = FileRow(*fields)
        if not inspect(folder, row).fault:
            continue
        folder.joinpath(f"{row.name}.ok").unlink(missing_ok=True)
        head = Head(parse_name(row.name), created_at, row.line_count, row.total_fen)
        with FileInMaking(folder, head) as file:
            async with aclosing(_blocks(connection, day, row)) as blocks:
                async for block, lines in blocks:
                    file.add_block(block, lines)
            made = file.finish()
        sync_folder(folder)
        assert row.sm3 in (None, made.sm3), f"{row.name}: the same date has given other bytes"
        # What went out unsigned stays so.
        await sign_files(connection, folder, [made], terms.file_signer if row.sm3 is None else None)
        mark_complete(folder, [made])
        # Last, since by it the next run knows that nothing is left to do here.
        values = {"name": row.name, "sm3": made.sm3, "size": made.size}
        await connection.execute(SQL["store_digest"], values)
        names.append(row.name)
    return names


async def _blocks(connection: Connection, day: date, row: FileRow) -> AsyncGenerator[tuple[bytes, int], None]:
    """Lines of a file in blocks, each line with its CRLF."""
    query = LINES.get(row.name[:2])
    if query is None:
        lines = [f"{line}\r\n".encode() for line in await _net_lines(connection, day)]
        yield b"".join(lines), len(lines)
        return
    async with (
        connection.cursor() as cursor,
        cursor.copy(query, {"date": day, "party": row.party}) as rows,
        aclosing(_gathered(rows)) as blocks,
    ):
        async for lines in blocks:
            yield b"".join(lines).replace(b"\n", CRLF), len(lines)


async def _gathered(rows: Any) -> AsyncGenerator[list[bytes], None]:
    """COPY sends one message a row."""
    lines: list[bytes] = []
    async for data in rows:
        lines.append(bytes(data))
        if len(lines) == LINES_AT_ONCE:
            yield lines
            lines = []
    if lines:
        yield lines


async def _net_lines(connection: Connection, day: date) -> list[str]:
    """NP: all positions, and behind them the centre's."""
    rows = await _rows(connection, "positions", date=day)
    ((centre_id, centre_fen),) = await _rows(connection, "centre_share", date=day)
    rows.append((centre_id, 0, 0, 0, 0, centre_fen, 0, centre_fen))
    lines: list[dict[str, Value]] = [dict(zip(POSITION, row, strict=True)) for row in rows]
    return [write_line(LAYOUTS["NP"], {"line_no": n, **line}) for n, line in enumerate(lines, 1)]
