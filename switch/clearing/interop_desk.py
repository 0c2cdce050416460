"""What people ask and decide about clearing between cities: what is due, the way of a record, who has paid, the tariff."""

from collections.abc import Mapping
from datetime import date, datetime, time, timedelta
from typing import Any, Final, NamedTuple

from switch.clearing.day_files import Connection
from switch.clearing.files import parse_name
from switch.clearing.foreign import Deadline
from switch.clearing.own_cards import due_answers
from switch.domain.calendar import SHANGHAI
from switch.domain.errors import InputRefused
from switch.storage.sql import load

SQL: Final = load("switch.clearing", "interop_desk.sql")
LISTED_MAX: Final = 1_000
Figures = dict[str, Any]


class Times(NamedTuple):
    """Deadlines as the settings have them: on the day after the clearing date for FH and DF, on that of `deadline` for DT."""

    forward_by: time
    deliver_by: time
    deadline: Deadline
    fund_by: time

    def instant(self, day: date, days: int, by: time) -> datetime:
        """A time on a later day, in Shanghai."""
        return datetime.combine(day + timedelta(days), by, SHANGHAI)


async def _rows(
    connection: Connection, query: str, names: tuple[str, ...], **values: object
) -> list[Figures]:
    cursor = await connection.execute(SQL[query], values)
    return [dict(zip(names, row, strict=True)) for row in await cursor.fetchall()]


async def what_is_due(connection: Connection, times: Times, *, centre: bool) -> Figures:
    """Everything that somebody waits for, each with its instant and whether that is over. At most LISTED_MAX of a kind."""
    ((now,),) = await (await connection.execute(SQL["read_now"])).fetchall()

    def timed(lines: list[Figures], day: str, days: int, by: time) -> list[Figures]:
        for line in lines:
            line["by"] = times.instant(line[day], days, by)
            line["over"] = line["by"] <= now
        return lines

    deadline = times.deadline
    limit = {"limit": LISTED_MAX}
    ours = [
        {**one._asdict(), "clearing_date": parse_name(one.name).day} for one in await due_answers(connection)
    ]
    due: Figures = {
        "now": now,
        "answers_we_owe": timed(ours, "clearing_date", deadline.days, deadline.by),
        "answers_we_await": timed(
            await _rows(
                connection, "awaited", ("clearing_date", "records", "amount_fen", "held", "file"), **limit
            ),
            "clearing_date",
            deadline.days,
            deadline.by,
        ),
    }
    if not centre:
        return due
    forwarding = ("clearing_date", "files", "records", "amount_fen")
    answering = ("clearing_date", "member", "records", "amount_fen")
    funding = ("clearing_date", "member", "net_fen", "state", "settlement_date")
    return {
        **due,
        "to_forward": timed(
            await _rows(connection, "to_forward", forwarding, **limit), "clearing_date", 1, times.deliver_by
        ),
        "answers_cities_owe": timed(
            await _rows(connection, "to_answer", answering, **limit),
            "clearing_date",
            deadline.days,
            deadline.by,
        ),
        "to_fund": timed(
            await _rows(connection, "to_fund", funding, **limit), "settlement_date", 0, times.fund_by
        ),
    }


# ---------------------------------------------------------------- the way of a record or file

_CENTRE = (
    *("forwarded_by", "line", "amount_fen", "clearing_date", "late", "card_city", "refused", "handed_on_in"),
    *("held_on", "result", "answered_on", "answered_in", "counted_on", "passed_on_in"),
)
_ACQUIRER = (
    *("entry_no", "business_date", "amount_fen", "card_city", "forwarded_in", "held_on"),
    *("result", "decided_on", "answered_on", "answered_in"),
)
_ISSUER = (
    *("entry_no", "business_date", "amount_fen", "acquiring_city", "handed_on_in", "line", "result"),
    *("decided", "decided_on", "answered_in", "decided_in"),
)


def key_of(text: str) -> bytes:
    """PSAM number and serial as they lie in a record, from `PSAM:SERIAL`. Raises InputRefused."""
    psam, _, serial = text.partition(":")
    digits = psam + serial
    if not (
        len(psam) == 12
        and 1 <= len(serial) <= 10
        and digits.isascii()
        and digits.isdecimal()
        and int(serial) < 1 << 32
    ):
        raise InputRefused("a record is named by PSAM:SERIAL: 12 digits, a colon, the serial in decimal")
    return bytes.fromhex(psam) + int(serial).to_bytes(4)


async def way_of_record(connection: Connection, key: bytes) -> Figures:
    """Where a record has been: here as acquiring city, as the card's city, as the centre."""
    values = {
        "key": key,
        "psam": int(key[:6].hex()),
        "serial": int.from_bytes(key[6:]),
        "limit": LISTED_MAX,
    }
    return {
        "as_acquirer": await _rows(connection, "way_at_acquirer", _ACQUIRER, **values),
        "as_card_city": await _rows(connection, "way_at_issuer", _ISSUER, **values),
        "as_centre": await _rows(connection, "way_at_centre", _CENTRE, **values),
    }


async def way_of_file(connection: Connection, name: str) -> Figures:
    """What is known of a file: that we wrote it, or every time that somebody brought one of this name."""
    parse_name(name)
    taken = (
        *("file_no", "sender", "lines", "total_fen", "status", "reason", "began_at", "business_date"),
        *("lines_done", "results"),
    )
    written = ("table", "date", "receiver", "lines", "total_fen", "sm3", "created_at")
    return {
        "file": name,
        "written": await _rows(connection, "file_written", written, name=name),
        "taken": await _rows(connection, "file_taken", taken, name=name),
    }


# ---------------------------------------------------------------- money and tariff


async def positions(connection: Connection, day: date | None) -> list[Figures]:
    """Positions of a decided clearing date, by default the newest; the centre's share stands in each line. Empty: there is none."""
    names = (
        *("clearing_date", "member", "issuing_count", "issuing_fen", "acquiring_count", "acquiring_fen"),
        *("issuer_fee_fen", "fees_paid_fen", "net_fen", "state", "state_at", "actor"),
        *("settlement_date", "centre", "centre_fen"),
    )
    return await _rows(connection, "positions", names, date=day)


async def fund(connection: Connection, member: str, day: date, actor: str) -> tuple[int, bool]:
    """Note that a member's money for a date has come: its net, and whether anything changed. InputRefused when it owes nothing."""
    values = {"member": member, "date": day}
    async with connection.transaction():
        row = await (await connection.execute(SQL["lock_position"], values)).fetchone()
        if row is None:
            raise InputRefused(f"{member} has no position on {day}")
        if row[1] == "RECEIVES":
            raise InputRefused(f"{member} owes nothing for {day}")
        cursor = await connection.execute(SQL["fund"], values | {"actor": actor})
        return row[0], cursor.rowcount == 1


async def tariffs(connection: Connection) -> list[Figures]:
    """Everything that was ever in force between cities."""
    names = (
        *("valid_from", "rate_ppm", "minimum_fen", "cap_fen", "weight_issuer", "weight_centre"),
        *("weight_acquirer", "actor", "set_at"),
    )
    return await _rows(connection, "tariffs", names)


async def set_tariff(connection: Connection, terms: Mapping[str, Any], centre_id: str) -> bool:
    """Set what cities charge each other from a date on; False when just that was set before. Raises InputRefused for a date that is too early.

    terms: valid_from, rate_ppm, minimum_fen, cap_fen, the three weights, actor.
    """
    if sum(terms[f"weight_{who}"] for who in ("issuer", "centre", "acquirer")) == 0:
        raise InputRefused("weights: at least one above 0")
    async with connection.transaction():
        await connection.execute(SQL["lock_tariff"])
        for line in await tariffs(connection):
            if line["valid_from"] == terms["valid_from"]:
                if all(line[name] == value for name, value in terms.items() if name != "actor"):
                    return False
                raise InputRefused(f"another tariff is set from {terms['valid_from']} on, and it stays")
        row = await (await connection.execute(SQL["tariff_from"])).fetchone()
        assert row is not None
        if row[0] is not None and terms["valid_from"] < row[0]:
            raise InputRefused(f"purchases have been settled already: not before {row[0]}")
        known = await (await connection.execute(SQL["centre_is_known"], {"centre": centre_id})).fetchone()
        assert known is not None
        if not known[0]:
            raise InputRefused(
                f"the centre {centre_id} has a share and is not in the registry: import it first"
            )
        await connection.execute(SQL["add_tariff"], dict(terms))
    return True
