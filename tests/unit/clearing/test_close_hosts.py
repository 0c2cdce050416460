"""A day in which a bank, the fund and another city decided: who owes what, in figures and files, to the fen."""

import asyncio
from collections import Counter
from collections.abc import Iterator
from datetime import date
from pathlib import Path
from typing import Any, NamedTuple

import psycopg
import pytest

from switch.clearing.close import CloseTerms, close_day
from switch.clearing.fees import FeeRule, fee_split
from switch.clearing.files import check_file
from switch.clearing.layouts import Value
from switch.domain.transactions import AccountKind, Refund, Reversal, Void
from switch.keys.opening import create_vault
from switch.keys.sealing import UnlockSecret
from switch.keys.stores import JsonKeyStore
from switch.operations.audit import audit
from switch.storage.pool import connect, connect_now
from tests.conftest import AS_MIGRATED, database_url
from tests.helpers.audited_city import CENTRE, SHARDS, City, found
from tests.helpers.city_hosts import BANK, GUESTS, Hosts, number_of, says, silent
from tests.helpers.offline import CITY, OWN

pytestmark = pytest.mark.server

ONLINE, MEDICAL = AccountKind.ONLINE, AccountKind.MEDICAL
GUEST = GUESTS[0]
BANK_RULE, ONLINE_RULE, SHOP_2 = FeeRule(3_000), FeeRule(3_800), FeeRule(5_000, cap_fen=30)

# Terminals 1 and 7 are of shops of ours (7 of shop 2, which has a rule for online accounts), 8 of a shop that the next city acquires.
# issuer, acquirer, rule, amounts in the order in which they count
FLOWS: list[tuple[str, str, FeeRule, list[int]]] = [
    (BANK, OWN, BANK_RULE, [12_345, 3_333, -3_333, 777, -777, 1_000, -1, -333, 2_500]),
    (OWN, OWN, FeeRule(0), [6_000, -1_500]),
    (CITY, OWN, SHOP_2, [2_222, 80, -80]),
    (CITY, CITY, ONLINE_RULE, [5_000]),
    (BANK, CITY, BANK_RULE, [4_321]),
    (OWN, OWN, ONLINE_RULE, [999]),
]


class ClosedCity(NamedTuple):
    """A closed day of the city."""

    url: str
    folder: Path
    day: date


async def live_a_day(city: City) -> date:
    """The amounts of FLOWS, and what leaves no money: an unknown end, a refusal, a balance."""
    hosts = Hosts(city)
    await hosts.buy(1, 12_345)
    await hosts.undo(Void, 1, 3_333, await hosts.buy(1, 3_333))
    await hosts.undo(Reversal, 2, 777, await hosts.buy(2, 777))
    refunded = await hosts.buy(3, 1_000)
    await hosts.undo(Refund, 3, 1, refunded)
    await hosts.undo(Refund, 3, 333, refunded)
    await hosts.stood_in(4, 2_500)
    of_fund = await hosts.buy(5, 6_000, account=MEDICAL)
    await hosts.undo(Refund, 5, 1_500, of_fund, MEDICAL)
    await hosts.buy(GUEST, 2_222, account=ONLINE)
    await hosts.undo(Void, GUEST, 80, await hosts.buy(GUEST, 80, account=ONLINE), ONLINE)
    await hosts.buy(GUEST, 5_000, account=ONLINE, terminal_no=8)
    await hosts.buy(6, 4_321, terminal_no=8)
    await hosts.buy(7, 55, silent(), code="68")
    await hosts.buy(7, 56, says("51"), code="51")
    await hosts.buy(7, None, says(auth="", available_fen=1))
    assert (await city.buy(7, 999))[1].answer == "00"
    await city.fold()
    return await city.close()


@pytest.fixture(scope="module")
def closed(server_url: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[ClosedCity]:
    folder = tmp_path_factory.mktemp("hosted") / "clearing"
    url = database_url(server_url, "hosted_day")
    store = JsonKeyStore(folder.parent / "keys.json")
    vault = create_vault(store, UnlockSecret(b"a key file for the tests, 32 bytes", "hkdf"), rehearsal=True)

    async def live() -> date:
        await found(url, folder)
        async with City(url, vault, folder) as city:
            return await live_a_day(city)

    with psycopg.connect(server_url, autocommit=True) as server:
        server.execute(f"CREATE DATABASE hosted_day {AS_MIGRATED}".encode())
    day = asyncio.run(live())
    yield ClosedCity(url, folder, day)
    with psycopg.connect(server_url, autocommit=True) as server:
        server.execute("DROP DATABASE hosted_day WITH (FORCE)")


def rows(closed: ClosedCity, query: str) -> list[tuple[Any, ...]]:
    with psycopg.connect(closed.url) as connection:
        return connection.execute(query.encode()).fetchall()


def lines_of(closed: ClosedCity, kind: str, receiver: str) -> list[dict[str, Value]]:
    name = f"{kind}{CENTRE}{receiver}{closed.day:%Y%m%d}001"
    lines: list[dict[str, Value]] = []
    with (closed.folder / f"{closed.day:%Y%m%d}" / name).open("rb") as stream:
        check_file(name, stream, lambda _, values: lines.append(values))
    return lines


def expected_positions() -> dict[str, list[int]]:
    """Issuing count and fen, acquiring count and fen, issuer fee, fees paid, net: from the amounts alone."""
    made: dict[str, list[int]] = {}
    for issuer, acquirer, rule, amounts in FLOWS:
        of_issuer, of_acquirer = made.setdefault(issuer, [0] * 6), made.setdefault(acquirer, [0] * 6)
        for fen in amounts:
            fee = fee_split(fen, rule)
            of_issuer[0] += 1
            of_issuer[1] -= fen
            of_issuer[4] += fee.issuer_fen
            of_acquirer[2] += 1
            of_acquirer[3] += fen
            of_acquirer[5] -= fee.issuer_fen + fee.switch_fen
    return {who: [*sums, sums[1] + sums[3] + sums[4] + sums[5]] for who, sums in made.items()}


def test_banks_and_cities_are_issuers_of_what_they_owe_and_the_operator_of_what_the_fund_owes(
    closed: ClosedCity,
) -> None:
    found_there = {
        row[0]: list(row[1:])
        for row in rows(
            closed,
            "SELECT institution_id, issuing_count, issuing_fen, acquiring_count, acquiring_fen, issuer_fee_fen, fees_paid_fen, net_fen"
            " FROM clearing_position",
        )
    }
    assert found_there == expected_positions()
    assert {BANK, CITY, OWN} == found_there.keys()


def test_every_line_is_charged_by_the_rule_of_its_account(closed: ClosedCity) -> None:
    charged = Counter(
        rows(
            closed,
            "SELECT issuer_id, acquirer_id, account_kind, effect_fen, fee_fen, issuer_fee_fen, switch_fee_fen FROM clearing_charge",
        )
    )
    kinds = [20, 40, 10, 10, 20, 10]
    assert charged == Counter(
        (issuer, acquirer, kind, fen, *fee_split(fen, rule)[:3])
        for (issuer, acquirer, rule, amounts), kind in zip(FLOWS, kinds, strict=True)
        for fen in amounts
    )


@pytest.mark.parametrize("member", [BANK, CITY, OWN])
def test_each_member_gets_its_lines_and_everybodys_positions(closed: ClosedCity, member: str) -> None:
    lines = lines_of(closed, "CM", member)
    mine = [flow for flow in FLOWS if member in flow[:2]]
    assert sorted(int(line["amount"]) for line in lines) == sorted(
        abs(fen) for *_, amounts in mine for fen in amounts
    )
    position = expected_positions()[member]
    assert sum(int(line["fee_receivable"]) for line in lines) == position[4]
    assert sum(int(line["fee_payable"]) + int(line["switching_fee"]) for line in lines) == position[5]
    assert {str(line["issuing_institution"]).strip() for line in lines} == {flow[0] for flow in mine}
    assert {str(line["institution"]): int(line["net"]) for line in lines_of(closed, "NP", member)} == {
        who: sums[-1] for who, sums in expected_positions().items()
    }


def test_a_members_line_says_which_account_and_whose_authorisation(closed: ClosedCity) -> None:
    lines = lines_of(closed, "CM", BANK)
    assert [str(line["processing_code"]) for line in lines[:4]] == ["002000", "002000", "202000", "002000"]
    assert [str(line["mti"]) for line in lines[4:8]] == ["0400", "0200", "0220", "0220"]
    assert str(lines[0]["auth_code"]) == "B00001"
    assert str(lines[0]["pan"]).strip() == number_of(1)
    assert {str(line["processing_code"]) for line in lines_of(closed, "CM", CITY)} == {
        "001000",
        "201000",
        "002000",
    }


def test_merchants_see_the_account_and_no_other_card_than_the_one_that_came(closed: ClosedCity) -> None:
    lines = lines_of(closed, "MR", "00000002")
    assert Counter(int(line["account_kind"]) for line in lines) == {20: 9, 40: 2, 10: 3}
    fees = sum(
        fee_split(fen, rule).fee_fen for at in (0, 1, 2) for rule in (FLOWS[at][2],) for fen in FLOWS[at][3]
    )
    assert sum(int(line["fee"]) for line in lines) == -fees


def test_a_bank_gets_its_share_of_fees_and_owes_what_it_approved(closed: ClosedCity) -> None:
    balance = dict(
        rows(
            closed,
            "SELECT code, sum(fen)::bigint FROM (SELECT debit_code AS code, debit_owner AS owner, amount_fen AS fen FROM posting"
            f" UNION ALL SELECT credit_code, credit_owner, -amount_fen FROM posting) AS side WHERE owner = {int(BANK)} GROUP BY code",
        )
    )
    _, owed_fen, _, _, share_fen, *_ = expected_positions()[BANK]
    assert balance == {1101: -owed_fen, 2102: -share_fen}
    float_of = dict(
        rows(closed, "SELECT code, closing_fen FROM clearing_float WHERE code IN (1101, 1102, 1103)")
    )
    assert float_of == {1101: -owed_fen, 1102: 7_222, 1103: 4_500}


def test_the_day_audits_clean(closed: ClosedCity) -> None:
    with connect_now(closed.url) as connection:
        report = audit(connection, closed.folder)
    assert [f"{one.name}: {place}" for one in report.verdicts for place in one.places] == []


async def test_files_are_written_again_identically_without_the_legs(closed: ClosedCity) -> None:
    folder = closed.folder / f"{closed.day:%Y%m%d}"
    whole = {path.name: path.read_bytes() for path in folder.iterdir()}
    for path in folder.iterdir():
        path.unlink()
    terms = CloseTerms(OWN, CENTRE, "49993350", tuple(range(SHARDS)), closed.folder, lambda _day: True)
    async with await connect(closed.url) as connection:
        await connection.execute("CREATE TEMPORARY TABLE archived AS TABLE host_leg")
        await connection.execute("DELETE FROM host_leg")
        again = await close_day(connection, closed.day, terms, "a tester")
        await connection.execute("INSERT INTO host_leg TABLE archived")
    assert len(again.rewritten) * 2 == len(whole)
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == whole
