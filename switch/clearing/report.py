"""What a day came to, out of the clearing tables: for people and for programs."""

from datetime import date
from typing import Any

from switch.clearing.day_files import SQL, Connection, read_rows

Figures = dict[str, Any]


async def _rows(connection: Connection, query: str, day: date, names: tuple[str, ...]) -> list[Figures]:
    cursor = await connection.execute(SQL[query], {"day": day})
    return [dict(zip(names, row, strict=True)) for row in await cursor.fetchall()]


async def day_report(connection: Connection, day: date) -> Figures:
    """The clearing summary of a day whose close has at least begun; amounts in fen, dates and instants as they are stored.

    merchants: what each is owed for the day (`net_fen`; the account 2101 holds it until it is settled). positions: per
    institution. float: the float statement, debit positive. kinds: per account kind.
    """
    cursor = await connection.execute(SQL["read_day"], {"day": day})
    row = await cursor.fetchone()
    if row is None:
        return {"day": day, "state": "not begun"}
    cursor = await connection.execute("SELECT state FROM business_day WHERE business_date = %s", (day,))
    state = await cursor.fetchone()
    assert state is not None
    return {
        "day": day,
        "state": "closed" if state[0] == 2 else "being closed",
        "created_at": row[1],
        "settlement_date": row[2],
        "steps": await _rows(
            connection, "steps", day, ("step", "state", "actor", "started_at", "finished_at", "outcome")
        ),
        "merchants": await _rows(
            connection,
            "money_by_merchant",
            day,
            ("merchant", "name", "items", "debit_fen", "credit_fen", "fee_fen", "net_fen"),
        ),
        "kinds": await _rows(
            connection, "money_by_kind", day, ("account_kind", "items", "debit_fen", "credit_fen", "fee_fen")
        ),
        "positions": await _rows(
            connection,
            "lines_np",
            day,
            (
                "institution",
                "issuing_count",
                "issuing_fen",
                "acquiring_count",
                "acquiring_fen",
                "issuer_fee_fen",
                "fees_paid_fen",
                "net_fen",
            ),
        ),
        "offline": (
            await _rows(
                connection,
                "offline_totals",
                day,
                ("confirmed", "refused", "adjusted", "adjust_refused", "pending"),
            )
        )[0],
        "float": await _rows(
            connection,
            "float_lines",
            day,
            ("code", "opening_fen", "debit_fen", "credit_fen", "closing_fen"),
        ),
        "files": [row._asdict() for row in await read_rows(connection, day)],
    }


async def step_table(connection: Connection, day: date) -> list[Figures]:
    """The steps of a day's close: who, when, how often, digests in hex, and why the last try ended."""
    return await _rows(
        connection,
        "step_table",
        day,
        (
            "step",
            "ordinal",
            "state",
            "actor",
            "started_at",
            "finished_at",
            "tries",
            "error",
            "input_sha256",
            "output_sha256",
            "outcome",
        ),
    )
