"""The audit computes payouts again from the postings, and names what was changed behind everybody's back."""

from datetime import UTC, datetime, timedelta
from typing import Any

import psycopg
import pytest

from switch.clearing.settlement.merchant_files import write_merchant_files
from switch.clearing.settlement.payouts import cancel, resolve
from switch.clearing.settlement.resolving import EntryName, Part, Resolution, resolve_entry
from switch.clearing.settlement.statements import StatementTerms
from switch.clearing.settlement.terms import Terms, set_terms
from switch.ledger.bookings import Booking
from switch.ledger.chart import Event
from switch.operations.audit.checks import read_checks
from terminal_sim.custody_bank import CustodyBank, Fate
from tests.helpers.clearing_day import CENTRE, OWN
from tests.helpers.settling import BUSES, CUSTODY, GROCER, HOSPITAL, NOODLES, OTHER, Settling

pytestmark = pytest.mark.server

CHECKS = read_checks("payouts.sql")
NOW = datetime(2024, 3, 18, 9, 0, tzinfo=UTC)


def places(connection: psycopg.Connection[Any], changed: str = "") -> list[tuple[str, str]]:
    """Table and key of everything that the checks find; of those that read one table, if it is named."""
    return [
        (row[0], row[1])
        for check in CHECKS
        if not changed or check.reads(changed)
        for row in connection.execute(check.query.encode(), {}).fetchall()
    ]


def first(table: str, column: str, change: str, where: str = "true") -> str:
    """One row of a table changed."""
    return (
        f"UPDATE {table} SET {column} = {change} WHERE ctid = (SELECT min(ctid) FROM {table} WHERE {where})"
    )


CHANGES = [
    *[
        (first("settlement_line", column, f"{column} + 1"), "settlement_line")
        for column in ("carried_in_fen", "net_fen", "returned_fen", "payout_fen", "held_fen", "carried_fen")
    ],
    (first("settlement_line", "cause", "'CYCLE'"), "settlement_line"),
    (first("settlement_line", "account_no", "account_no + 1", "account_no IS NOT NULL"), "settlement_line"),
    ("DELETE FROM settlement_line WHERE cause = 'MINIMUM'", "settlement_line"),
    (first("settlement_line_day", "net_fen", "net_fen - 1"), "settlement_line_day"),
    (first("settlement_line_day", "business_date", "business_date + 1"), "settlement_line_day"),
    (first("payout_terms", "minimum_fen", "0", "minimum_fen > 0"), "settlement_line"),
    (first("payout_terms", "held_fen", "held_fen + 1", "held_fen > 0"), "settlement_line"),
    (first("payout_account", "valid_from", "valid_from + 400"), "settlement_line"),
    (
        first(
            "settlement_run",
            "last_day",
            "last_day - 1",
            "settlement_date = (SELECT max(settlement_date) FROM settlement_run)",
        ),
        "settlement_line_day",
    ),
    (first("settlement_run", "prepared_at", "prepared_at - interval '2 days'"), "settlement_run"),
    *[
        (first("payout", column, change, where), "payout")
        for column, change, where in (
            ("amount_fen", "amount_fen + 1", "true"),
            ("state", "'ORDERED'", "state = 'PAID'"),
            ("state", "'PAID'", "state = 'RETURNED'"),
            ("state", "'FUNDED'", "state = 'EXPECTED'"),
            ("state", "'CANCELLED'", "state = 'PAID'"),
            ("approved_by", "'li wei'", "state = 'PAID'"),
            ("back_on", "back_on - 1", "state = 'RETURNED'"),
            ("again_on", "settlement_date + 1", "state = 'PAID'"),
            ("order_id", "NULL", "state = 'PAID'"),
            ("party", "'12345678'", "state = 'EXPECTED'"),
        )
    ],
    (first("payout", "again_on", "NULL", "again_on IS NOT NULL"), "settlement_line"),
    (
        first(
            "payout",
            "account_no",
            "(SELECT max(a.account_no) FROM payout_account a WHERE a.party <> payout.party)",
            "account_no IS NOT NULL",
        ),
        "payout",
    ),
    (first("payout_move", "to_state", "'PAID'", "to_state = 'APPROVED'"), "payout"),
    (first("payout_move", "actor", "'wang fang'", "step = 0"), "payout"),
    ("DELETE FROM payout_move WHERE to_state = 'RETURNED'", "payout"),
    (first("posting", "amount_fen", "amount_fen + 1", "debit_code = 2101 AND credit_code = 1001"), "payout"),
    (
        first("posting", "debit_owner", "debit_owner + 1", "debit_code = 2101 AND credit_code = 1001"),
        "payout",
    ),
    (
        first("posting", "amount_fen", "amount_fen + 1", "credit_code = 2101 AND debit_code = 2001"),
        "settlement_line_day",
    ),
    (first("booking", "source", "'payout P20240318000001'", "event = 'merchant_paid_out'"), "payout"),
    (first("settlement_order", "total_fen", "total_fen + 1"), "settlement_order"),
    (first("settlement_order", "payout_count", "payout_count + 1"), "settlement_order"),
    *[
        (first("bank_statement", column, f"{column} + 1"), "bank_statement")
        for column in ("opening_fen", "closing_fen", "credit_fen", "debit_fen", "entry_count")
    ],
    (first("bank_entry", "amount_fen", "amount_fen + 1", "outcome = 'PAID'"), "bank_entry"),
    (first("bank_entry", "suspense_fen", "suspense_fen + 1", "outcome = 'AMOUNT'"), "bank_entry"),
    (first("bank_entry", "outcome", "'SEEN'", "outcome = 'UNEXPLAINED'"), "bank_entry"),
    (first("bank_entry", "outcome", "'PAID'", "outcome = 'RETURNED'"), "bank_entry"),
    (first("bank_entry", "payout_id", "NULL", "outcome = 'PAID'"), "bank_entry"),
    (first("booking", "amount_fen", "amount_fen + 1", "event = 'money_unexplained'"), "bank_entry"),
    ("DELETE FROM booking WHERE event = 'money_sent_back'", "bank_entry"),
    *[
        (first("bank_resolution", column, change, f"action = '{action}'"), "bank_resolution")
        for column, change, action in (
            ("fen", "fen + 1", "paid-by"),
            ("fen", "fen - 1", "paid-to"),
            ("fen", "fen + 1", "collection"),
            ("fen", "fen + 1", "sent-back"),
            ("action", "'paid-to'", "paid-by"),
            ("action", "'collection'", "paid-by"),
            ("payout_id", "'P20240318000001'", "collection"),
            ("other_line", "other_line + 1", "sent-back"),
            ("actor", "'wang fang'", "paid-by"),
            ("actor", "'zhao min'", "paid-by"),
            ("checker", "'zhao min'", "collection"),
            ("business_date", "business_date - 1", "paid-by"),
            ("decided_at", "decided_at + interval '3 days'", "sent-back"),
            ("line", "line + 100", "paid-by"),
        )
    ],
    ("DELETE FROM bank_resolution WHERE action = 'paid-by'", "bank_resolution"),
    ("DELETE FROM bank_resolution WHERE action = 'collection'", "bank_resolution"),
    ("DELETE FROM bank_resolution WHERE action = 'sent-back' AND fen < 0", "bank_resolution"),
    (first("bank_resolution_part", "fen", "fen + 1", "part = 1"), "bank_resolution_part"),
    (first("bank_resolution_part", "party", "'99993350'", "part = 2"), "bank_resolution_part"),
    (first("bank_resolution_part", "part", "part + 1", "part = 2"), "bank_resolution_part"),
    ("DELETE FROM bank_resolution_part WHERE part = 2", "bank_resolution"),
    (
        first("posting", "credit_owner", "credit_owner + 1", "(debit_code, credit_code) = (1001, 1102)"),
        "bank_resolution_part",
    ),
    (
        first("booking", "actor", "'sun lei'", "event = 'money_sent_back' AND source LIKE 'bank-resolved %'"),
        "bank_resolution",
    ),
    (first("booking", "source", "'bank-resolved 1/999'", "source LIKE 'bank-resolved %'"), "bank_resolution"),
    (first("bank_entry", "outcome", "'SEEN'", "outcome = 'FUNDED'"), "payout"),
    (first("settlement_file", "net_fen", "net_fen + 1"), "settlement_file"),
    (first("settlement_file", "payout_id", "'P20240318000001'"), "settlement_file"),
]


async def settled(city: Settling) -> None:
    """Two settlement dates with everything that can become of a payout."""
    await set_terms(
        city.pg, NOODLES, Terms(minimum_fen=10**9), valid_from=city.first, actor="li wei", reason="as agreed"
    )
    await set_terms(
        city.pg,
        HOSPITAL,
        Terms(held_fen=500, held_reason="a dispute"),
        valid_from=city.first,
        actor="li wei",
        reason="as agreed",
    )
    await city.trade()
    await city.pay(
        Booking(Event.BANK_PURCHASE, 5_000, int(OTHER), 1, "case 1"),
        Booking(Event.MEDICAL_PURCHASE_FUND, 700, 0, 4, "case 2"),
    )
    await city.close()
    day = await city.settle()
    ids = dict(await city.rows("SELECT party, payout_id FROM payout"))
    bank = CustodyBank(CUSTODY, 10**8)
    path = city.folder / "settlement" / f"{day:%Y%m%d}" / f"O{day:%Y%m%d}001.xml"
    bank.order(path.read_bytes(), {ids[GROCER]: Fate.RETURNED, ids[BUSES]: Fate.LESS})
    bank.move(ids[OTHER], 1, "a part of it")
    bank.move("", 99, "a stranger")
    bank.move("", -98)
    if ids[OTHER].startswith("C"):
        bank.move(ids[OTHER], await city.one("SELECT amount_fen FROM payout WHERE party = %s", OTHER))
    await write_merchant_files(city.pg, day, city.folder, actor="li wei")
    paper = city.folder / "paper.xml"
    paper.write_bytes(bank.statement(NOW))
    await city.take(paper)
    await resolve_odd(city, bank, ids["FUND"])
    await city.trade(10)
    await city.pay(Booking(Event.MEDICAL_PURCHASE_FUND, 300, 0, 4, "case 3"))
    await city.close()
    made = await city.prepare()
    await city.approve(made.settlement_date)
    again = await city.one("SELECT payout_id FROM payout WHERE party = %s AND state = 'APPROVED'", GROCER)
    await city.order(made.settlement_date)
    await resolve(city.pg, again, "REJECTED", actor="li wei", checker="wang fang", reason="AC04")
    fund = await city.one("SELECT payout_id FROM payout WHERE party = 'FUND' AND state = 'EXPECTED'")
    await cancel(city.pg, fund, actor="li wei", reason="it pays by the month")
    assert made.settlement_date == day + timedelta(days=1)


async def resolve_odd(city: Settling, bank: CustodyBank, collection: str) -> None:
    """Each way in which an entry leaves suspense."""
    fund = await city.one("SELECT amount_fen FROM payout WHERE payout_id = %s", collection)
    bank.move("", 90, "NP of the centre")
    bank.move("", -70, "to a city")
    bank.move("", fund, "the fund, without its number")
    bank.move("", 55, "a mistake")
    bank.move("", -55, "the mistake goes back")
    bank.move("", 33, "a stranger, for ever")
    paper = city.folder / "paper.xml"
    paper.write_bytes(bank.statement(NOW))
    await city.take(paper)
    name = await city.one("SELECT statement_id FROM bank_statement ORDER BY statement_no DESC LIMIT 1")
    for line, asked in (
        (1, Resolution("paid-by", (Part(OTHER, 100), Part(CENTRE, -10)))),
        (2, Resolution("paid-to", (Part(CENTRE),))),
        (3, Resolution("collection", payout_id=collection)),
        (4, Resolution("sent-back", other=EntryName(name, 5))),
    ):
        terms = StatementTerms(OWN, (0, 1), 1 << 24)
        two = {"actor": "li wei", "checker": "wang fang", "reason": "advice 4711"}
        await resolve_entry(city.pg, EntryName(name, line), asked, terms, **two)


async def test_one_value_changed_is_found_and_named(city: Settling, postgres_url: str) -> None:
    await settled(city)
    with psycopg.connect(postgres_url) as other:
        assert places(other) == []
        other.rollback()
        for table, name in other.execute(
            "SELECT conrelid::regclass::text, conname FROM pg_constraint WHERE contype IN ('c', 'f', 'u')"
            " AND connamespace = 'public'::regnamespace AND conparentid = 0 AND conislocal AND coninhcount = 0"
            " AND conrelid::regclass::text ~ '^(settlement|payout|bank|booking|posting$)' ORDER BY contype DESC"
        ).fetchall():
            other.execute(f"ALTER TABLE {table} DROP CONSTRAINT {name} CASCADE".encode())
        other.execute("SET session_replication_role = replica")  # past the triggers
        other.commit()
        missed = []
        for change, table in CHANGES:
            assert other.execute(change.encode()).rowcount, change
            named = places(other, change.removeprefix("DELETE FROM ").removeprefix("UPDATE ").split()[0])
            other.rollback()
            other.execute("SET session_replication_role = replica")
            if not any(place[0] == table for place in named):
                missed.append((change, named))
    assert missed == []
