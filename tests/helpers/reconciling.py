"""A bank with questions that it has decided, straight in the tables, and its files about them. A scenario has the real way."""

from collections.abc import Iterable, Sequence
from datetime import date, datetime, timedelta
from pathlib import Path
from typing import Any, NamedTuple

from psycopg import AsyncConnection

from switch.clearing.reconcile.run import Compared, Partner, compare
from switch.clearing.reconcile.take import TakeTerms, take_partner_file
from switch.domain.calendar import SHANGHAI
from switch.ledger.days import open_day
from terminal_sim.host.day_file import Item, write_file
from tests.helpers.clearing_day import CENTRE, add_participants, record_96
from tests.helpers.days import make_days

BANK, CITY = "01020000", "99993311"
TERMS = TakeTerms(frozenset({BANK, CITY}), CENTRE, "a tester")
APPROVED, DECLINED, NOT_SENT, UNKNOWN, STOOD_IN = 1, 2, 3, 4, 5

Pg = AsyncConnection[Any]


class Leg(NamedTuple):
    """A question to the bank. after_s: when it ended, in seconds of its day."""

    number: int
    amount_fen: int
    state: int = APPROVED
    service: int = 1
    after_s: int = 60

    @property
    def pan(self) -> str:
        return f"622848{self.number:013d}"

    @property
    def rrn(self) -> str:
        return f"R{self.number:011d}"

    @property
    def trace(self) -> int:
        return self.number % 999_999 + 1

    def sent(self, day: date) -> str:
        return f"{self.asked_at(day):%m%d%H%M%S}"

    def asked_at(self, day: date) -> datetime:
        return begins_at(day) + timedelta(seconds=self.after_s - 1)

    def item(self, day: date, **changes: Any) -> Item:
        """The line of it in the bank's file."""
        line = Item("0200", self.sent(day), self.trace, self.pan, self.amount_fen, self.rrn)
        return line._replace(**changes)

    def reversal(self, day: date, **changes: Any) -> Item:
        """The line that undoes it."""
        line = self.item(day, mti="0420", sent="0101000000", trace=self.trace + 500_000)
        return line._replace(original=(self.sent(day), self.trace), **changes)


def begins_at(day: date) -> datetime:
    return datetime(day.year, day.month, day.day, 23, tzinfo=SHANGHAI) - timedelta(days=1)


async def found_bank(pg: Pg, days: int = 3) -> list[date]:
    """Participants, and so many sealed days before the open one, the oldest first."""
    await make_days(pg, 1)
    today = await open_day(pg)
    assert today is not None
    await add_participants(pg)
    await pg.execute(
        "INSERT INTO institution (institution_id, name, role) VALUES (%s, 'First Bank', 'BANK'), (%s, 'Next City', 'CITY')",
        (BANK, CITY),
    )
    # The first days of an installation may begin earlier than their cut-off.
    found = [today.day - timedelta(days=back) for back in range(days + 2, 2, -1)]
    for day in found:
        await pg.execute(
            "INSERT INTO business_day (business_date, begins_at, ends_at, state, sealed_at) VALUES (%s, %s, %s, 2, %s)",
            (day, begins_at(day), begins_at(day + timedelta(days=1)), begins_at(day + timedelta(days=1))),
        )
    return found


async def ask(pg: Pg, day: date, legs: Iterable[Leg], *, partner: str = BANK) -> None:
    """Questions that ended on a day."""
    rows = [
        (
            *(day, one.number, one.pan, one.amount_fen, one.rrn, int(partner), one.service, one.sent(day)),
            *(one.trace, one.asked_at(day), one.state, one.asked_at(day) + timedelta(seconds=1)),
        )
        for one in legs
    ]
    async with pg.cursor() as cursor:
        await cursor.executemany(
            "INSERT INTO host_leg (shard, business_date, leg_no, terminal_no, batch_no, stan, merchant_no, terminal_id, merchant_id, kind, account_kind,"
            " pan, amount_fen, entry_mode, rrn, host, debit_code, debit_owner, service, step, transmitted, trace, asked_at, gives_up_at, state, ended_at, ended_by)"
            " SELECT 0, v.day, v.n, 1, 1, v.n, 1, '33500001', '993350054110001', 1, 20, v.pan, v.fen, '051', v.rrn, 'bank', 1101, v.owner, v.service,"
            " CASE v.state WHEN 5 THEN 3 ELSE 2 END, v.sent, v.trace, v.asked, v.asked + interval '25 s', v.state, v.ended, v.n + 5000000"
            " FROM (SELECT %s::date, %s::bigint, %s, %s::bigint, %s, %s::bigint, %s::smallint, %s, %s::integer, %s::timestamptz, %s::smallint, %s::timestamptz)"
            " AS v (day, n, pan, fen, rrn, owner, service, sent, trace, asked, state, ended)",
            rows,
        )


async def tell(pg: Pg, day: date, leg: Leg, amount_fen: int | None = None, *, number: int = 0) -> Item:
    """What the bank is told on a day about a leg: to undo it, or to give an amount back. Returns its line, as the leg's own day is this one."""
    back = amount_fen is not None
    number = number or leg.number + 700_000
    at = begins_at(day) + timedelta(seconds=leg.after_s + 30)
    sent = f"{at:%m%d%H%M%S}"
    await pg.execute(
        "INSERT INTO host_outbox (shard, outbox_no, leg_no, host, step, service, reason, amount_fen, entry_no, rrn, transmitted, trace, created_at, due_at)"
        " VALUES (0, %s, %s, 'bank', %s, %s, %s, %s, %s, %s, %s, %s, %s, %s)",
        (
            *(number, leg.number, 3 if back else 5, 2 if back else leg.service, "" if back else "98"),
            *(leg.amount_fen if amount_fen is None else amount_fen, number, leg.rrn, sent),
            *(number % 999_999 + 1, at, at),
        ),
    )
    line = Item("0220" if back else "0420", sent, number % 999_999 + 1, leg.pan, leg.amount_fen, leg.rrn)
    line = line._replace(original=(leg.sent(day), leg.trace))
    return line._replace(amount_fen=amount_fen, code="202000") if amount_fen is not None else line


async def send(
    pg: Pg, folder: Path, day: date, items: Sequence[Item], *, sequence: int = 1, sender: str = BANK
) -> str:
    """The bank's file of a day, taken; its name."""
    path = write_file(folder, sender, CENTRE, day, items, sequence=sequence)
    receipt = await take_partner_file(pg, path, TERMS)
    assert (receipt.status, receipt.reason) == ("00", "")
    return receipt.file


async def compared(
    pg: Pg, day: date, *, tolerance_fen: int = 0, roll_days: int = 1, partner: str = BANK
) -> Compared:
    """The comparison of a day."""
    (first, *_) = await compare(pg, Partner(partner, tolerance_fen, roll_days), day, "a tester")
    return first


def counts(done: Compared) -> dict[str, tuple[int, int]]:
    """Items of either side by outcome."""
    return {name: (side.ours_count, side.theirs_count) for name, side in done.totals.items() if any(side)}


async def rows(pg: Pg, query: str, *values: Any) -> list[tuple[Any, ...]]:
    return await (await pg.execute(query.encode(), values)).fetchall()


async def findings(pg: Pg, day: date) -> list[tuple[Any, ...]]:
    """Outcome, state and money of either side of all that was ever found on a date."""
    return await rows(
        pg,
        "SELECT outcome, differs, state, ours_fen, theirs_fen FROM reconcile_difference WHERE business_date = %s"
        " ORDER BY outcome, ours_fen, theirs_fen, difference_no",
        day,
    )


async def pay_city(pg: Pg, day: date, card: int, atc: int, amount_fen: int, *, issuer: str = CITY) -> Item:
    """A record of another city's card that was paid on a day; its line in that city's file."""
    raw = record_96(card, atc, amount_fen, 4_000 + atc)
    pan = raw[6:16].hex()[1:]
    await pg.execute(
        "INSERT INTO foreign_verdict (entry_no, business_date, original_entry, original_date, decided_at, result, issuer_id, merchant_no, terminal_no, batch_no,"
        " amount_fen, balance_fen, atc, psam_serial, record_serial, record_kind, happened_at, raw)"
        " VALUES (%(n)s, %(day)s, %(n)s, %(day)s - 1, %(at)s, '00', %(city)s, 1, 1, 1, %(fen)s, 5000, %(atc)s, %(serial)s, 1, 0, '2024-03-15 08:15:30', %(raw)s)",
        {
            "n": 9_000_000 + card * 1_000 + atc,
            "day": day,
            "at": begins_at(day) + timedelta(seconds=9),
            "city": issuer,
            "fen": amount_fen,
            "atc": atc,
            "serial": 4_000 + atc,
            "raw": raw,
        },
    )
    line = Item("0320", "0315081530", 1, pan, amount_fen, "X00000000000", "005000")
    return line._replace(offline=f"{atc:04X}{4_000 + atc:08X}")


async def say(pg: Pg, *moves: int) -> None:
    """A statement STMT-1 of the custody bank, each of whose entries lies in suspense: above zero what came."""
    credit, debit = sum(fen for fen in moves if fen > 0), -sum(fen for fen in moves if fen < 0)
    await pg.execute(
        "INSERT INTO bank_statement (kind, statement_id, sm3, created_at, opening_fen, closing_fen, entry_count, credit_fen, debit_fen, taken_by)"
        " VALUES ('camt.053', 'STMT-1', decode(repeat('00', 32), 'hex'), now(), 0, %s, %s, %s, %s, 'a tester')",
        (credit - debit, len(moves), credit, debit),
    )
    for line, fen in enumerate(moves, 1):
        await pg.execute(
            "INSERT INTO bank_entry (statement_no, line, bank_ref, end_to_end_id, remittance, amount_fen, is_credit, is_booked, reason_code,"
            " outcome, suspense_fen) SELECT statement_no, %s, '', '', '', %s, %s, true, '', 'UNEXPLAINED', %s"
            " FROM bank_statement WHERE statement_id = 'STMT-1'",
            (line, abs(fen), fen > 0, fen),
        )
