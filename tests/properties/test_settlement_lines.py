"""Whatever parties are owed and whatever their terms are, a settlement date's lines are the rule's, and no fen is lost."""

import random
from datetime import date, timedelta
from pathlib import Path
from typing import Any

import pytest
from psycopg import AsyncConnection

from switch.clearing.settlement.prepare import Share, divide
from switch.clearing.settlement.terms import Terms, set_terms
from switch.keys.software_vault import SoftwareVault
from switch.ledger.bookings import Booking
from switch.ledger.chart import Event
from tests.helpers.offline import tac_vault as made_vault
from tests.helpers.settling import OTHER, OWN, Settling

pytestmark = pytest.mark.server
MERCHANTS = 60


@pytest.fixture
def vault(tmp_path: Path) -> SoftwareVault:
    return made_vault(tmp_path)


def some_terms(source: random.Random, day: date) -> Terms:
    held = source.choice((0, 0, 1, 500, 10**6))
    everything = source.random() < 0.15
    cycle, cycle_day = source.choice(
        (("DAILY", None), ("WEEKLY", source.randint(1, 7)), ("MONTHLY", source.randint(1, 28)))
    )
    return Terms(
        source.choice((0, 1, 400, 10**7)),
        cycle,
        cycle_day,
        everything,
        0 if everything else held,
        source.choice((None, day, day + timedelta(days=1), day + timedelta(days=9)))
        if everything or held
        else None,
        "a dispute" if everything or held else "",
    )


def in_force(terms: Terms, day: date) -> Terms:
    ended = terms.held_until is not None and terms.held_until < day
    return terms._replace(held_all=False, held_fen=0) if ended else terms


def in_cycle(terms: Terms, day: date) -> bool:
    return terms.cycle == "DAILY" or terms.cycle_day == (
        day.isoweekday() if terms.cycle == "WEEKLY" else day.day
    )


async def test_lines_are_the_rules_and_nothing_is_lost(
    pg: AsyncConnection[Any], vault: SoftwareVault, tmp_path: Path
) -> None:
    seed = random.randrange(10**9)
    source = random.Random(seed)
    city = Settling(pg, vault, tmp_path / "clearing")
    await city.found()
    await pg.execute(
        "INSERT INTO merchant (merchant_id, name, category, acquirer_id)"
        " SELECT '9933500541' || lpad(n::text, 5, '7'), 'Shop ' || n, '5411', %s FROM generate_series(5, %s) AS n",
        (OWN, MERCHANTS),
    )
    parties = dict(await city.rows("SELECT merchant_no, merchant_id FROM merchant ORDER BY 1"))
    terms: dict[str, Terms] = {}
    accounts = set()
    for party in parties.values():
        if source.random() < 0.8:
            await city.account(party)
            accounts.add(party)
        if source.random() < 0.8:
            terms[party] = some_terms(source, city.first)
            await set_terms(
                pg, party, terms[party], valid_from=city.first, actor="li wei", reason="as agreed"
            )
    carried = dict.fromkeys(parties.values(), 0)
    paid_fen = total_fen = 0
    for turn in range(2):
        owed = {
            number: source.choice((0, 1, 399, 500, 10**6)) * source.choice((1, 1, 1, -1))
            for number in parties
        }
        await city.pay(
            *(
                Booking(Event.BANK_PURCHASE, fen, int(OTHER), number, f"case {turn} {number}")
                if fen > 0
                else Booking(Event.CHARGEBACK_BANK, -fen, number, int(OTHER), f"case {turn} {number}")
                for number, fen in owed.items()
                if fen
            )
        )
        await city.close()
        made = await city.prepare()
        day = made.settlement_date
        lines = {
            row[0]: (row[1], Share(*row[2:]))
            for row in await city.rows(
                "SELECT party, carried_in_fen + net_fen, payout_fen, held_fen, carried_fen, cause FROM settlement_line"
                " WHERE settlement_date = %s AND kind = 'MERCHANT'",
                day,
            )
        }
        for number, party in parties.items():
            fen = carried[party] + owed[number]
            rule = in_force(terms.get(party, Terms()), day)
            want = divide(
                fen, rule, is_merchant=True, has_account=party in accounts, in_cycle=in_cycle(rule, day)
            )
            if carried[party] or owed[number]:
                assert lines[party] == (fen, want), (party, seed)
            else:
                assert party not in lines
            carried[party] = want.held_fen + want.carried_fen
            paid_fen += want.payout_fen
        total_fen += sum(owed.values())
        assert total_fen == paid_fen + sum(carried.values())
