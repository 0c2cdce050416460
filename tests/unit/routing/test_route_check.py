"""A table is checked as a whole: what keeps it out, and what an operator is only told."""

import time

import pytest

from switch.routing.destinations import LEDGER, Row
from switch.routing.route_check import Known
from tests.unit.routing.tables import KNOWN, PARTICIPANTS, checked, checked_rows

#   rows                                                                              what the fault says, or nothing
FAULTS: list[tuple[tuple[str, ...], list[str]]] = [
    ((), []),
    (("10 cards=622202 HOST:icbc", "20 cards=6222 HOST:ccb"), []),
    (("10 cards=6222 HOST:icbc", "20 cards=622202 HOST:ccb"), ["row 20: precedence: is never reached: 10 takes all of it"]),
    (("10 cards=6222 HOST:icbc", "20 cards=6222 HOST:ccb"), ["row 20: precedence: is never reached: 10 takes all of it"]),
    (("10 cards=6222 account=ONLINE HOST:icbc", "20 cards=6222 HOST:ccb"), []),
    (("10 cards=6222 type=BALANCE+PURCHASE HOST:icbc", "20 cards=62220 type=BALANCE HOST:ccb"), ["row 20: precedence: is never reached: 10 takes all of it"]),
    # several together
    (("10 cards=6222 hours=00:00-12:00 HOST:icbc", "20 cards=6222 hours=12:00-24:00 HOST:ccb", "30 cards=6222 REFUSE:15"),
     ["row 30: precedence: is never reached: 10, 20 together take all of it"]),
    (("10 cards=6222 hours=22:00-06:00 HOST:icbc", "20 cards=6222 hours=06:00-22:00 HOST:ccb", "30 cards=62220 REFUSE:15"),
     ["row 30: precedence: is never reached: 10, 20 together take all of it"]),
    (("10 cards=6222 hours=22:00-06:00 HOST:icbc", "20 cards=6222 hours=06:01-22:00 HOST:ccb", "30 cards=6222 REFUSE:15"), []),
    (("10 cards=6222 amount_fen=-1000 HOST:icbc", "20 cards=6222 amount_fen=1001- HOST:ccb", "30 cards=6222 REFUSE:15"),
     ["row 30: precedence: is never reached: 10, 20 together take all of it"]),
    (("10 cards=6222 amount_fen=-1000 HOST:icbc", "20 cards=6222 amount_fen=1002- HOST:ccb", "30 cards=6222 REFUSE:15"), []),
    (("10 cards=62220-62224 HOST:icbc", "20 cards=62225-62229 HOST:ccb", "30 cards=6222 REFUSE:15"),
     ["row 30: precedence: is never reached: 10, 20 together take all of it"]),
    (("10 cards=6222 valid_to=2026-06-30 HOST:icbc", "20 cards=6222 valid_from=2026-07-01 HOST:ccb", "30 cards=6222 REFUSE:15"),
     ["row 30: precedence: is never reached: 10, 20 together take all of it"]),
    (("10 cards=6222 valid_to=2026-06-30 HOST:icbc", "30 cards=6222 REFUSE:15"), []),
    (("10 cards=0-4 account=BANK HOST:icbc", "20 cards=5-9 account=BANK HOST:ccb", "30 account=BANK REFUSE:92"),
     ["row 30: precedence: is never reached: 10, 20 together take all of it"]),
    # issuers and circles are card numbers too
    (("10 scope=HANGZHOU CITY:99990000", "20 issuer=99993310FFFFFFFF CITY:99993310"),
     ["row 20: precedence: is never reached: 10 takes all of it"]),
    (("10 issuer=99993310FFFFFFFF CITY:99993310", "20 cards=3133101 REFUSE:15"),
     ["row 20: precedence: is never reached: 10 takes all of it"]),
    (("10 issuer=99993310FFFFFFFF CITY:99993310", "20 scope=HANGZHOU+DELTA CITY:99990000"), []),
    # merchants
    (("10 account=BANK merchant=898335054110001 HOST:icbc", "20 account=BANK HOST:ccb"), []),
    (("10 account=BANK HOST:ccb", "20 account=BANK merchant=898335054110001 HOST:icbc"),
     ["row 20: precedence: is never reached: 10 takes all of it"]),
    (("10 account=BANK merchant=898335080620001 HOST:ccb", "20 account=BANK merchant=898335054110001 HOST:icbc"), []),
    (("10 account=BANK category=5400-5499 HOST:ccb", "20 account=BANK category=5411 HOST:icbc"),
     ["row 20: precedence: is never reached: 10 takes all of it"]),
    # crossing ranges
    (("10 cards=622200-622250 HOST:icbc", "20 cards=622240-622299 HOST:ccb"), ["row 20: cards: a range crosses one of row 10"]),
    (("20 cards=622200-622250 HOST:icbc", "10 cards=622240-622299 HOST:ccb"), ["row 20: cards: a range crosses one of row 10"]),
    (("10 cards=622200-622250 account=BANK HOST:icbc", "20 cards=622240-622299 account=ONLINE HOST:ccb"), []),
    (("10 cards=622200-622250+622240-622299 HOST:icbc",), []),
    # strangers
    (("10 issuer=99999999FFFFFFFF HOST:icbc",), ["row 10: issuer: is no registered card issuer"]),
    (("10 account=BANK merchant=000000000000000 HOST:icbc",), ["row 10: merchant: is no registered merchant"]),
    (("10 cards=6222 CITY:12345678",), ["row 10: to: CITY:12345678 is no registered institution of role CITY or CENTRE"]),
    # own money
    (("10 HOST:icbc",), ["row 10: to: takes requests on own online accounts or purses, whose money is in the ledger: name account or cards"]),
    (("10 cards=31 account=ONLINE HOST:icbc>LEDGER",), ["row 10: to: takes requests on own online accounts or purses, whose money is in the ledger: name account or cards"]),
    (("10 scope=LOCAL LEDGER", "20 cards=3 HOST:icbc"), []),
    (("10 scope=LOCAL account=ONLINE+PURSE LEDGER", "20 HOST:icbc"), []),
    (("10 scope=LOCAL account=ONLINE LEDGER", "20 HOST:icbc"),
     ["row 20: to: takes requests on own online accounts or purses, whose money is in the ledger: name account or cards"]),
    (("10 cards=313350 LEDGER", "20 cards=3 HOST:icbc"), []),
    (("10 account=BANK HOST:icbc", "20 account=MEDICAL HOST:social>LEDGER"), []),
    (("10 merchant=898335054110001 type=LOAD HOST:icbc",),
     ["row 10: to: takes requests on own online accounts or purses, whose money is in the ledger: name account or cards"]),
    (("10 category=7995 REFUSE:57",), []),
    (("10 scope=LOCAL REFUSE:57",), ["no request of our own issuer 99993350FFFFFFFF would reach the ledger"]),
    (("10 REFUSE:15",), ["no request of our own issuer 99993350FFFFFFFF would reach the ledger"]),
    (("10 scope=LOCAL type=BALANCE LEDGER", "20 scope=LOCAL REFUSE:57"), []),
    (("10 scope=LOCAL hours=00:00-12:00 REFUSE:57", "20 scope=LOCAL hours=12:00-24:00 REFUSE:92"),
     ["no request of our own issuer 99993350FFFFFFFF would reach the ledger"]),
]  # fmt: skip


@pytest.mark.parametrize(("rows", "faults"), FAULTS)
def test_what_is_wrong_with_a_table_is_named(rows: tuple[str, ...], faults: list[str]) -> None:
    assert checked(*rows)[0] == faults


WARNINGS = [
    ("10 cards=6222 HOST:abc", "row 10: HOST:abc is not set up: passed over, or answered 92"),
    ("10 cards=6222 LEDGER", "row 10: LEDGER answers 14 to cards that are not ours"),
    ("10 cards=6222 valid_to=2026-03-14 HOST:icbc", "row 10: is no longer valid"),
    ("10 cards=6222 valid_to=2026-03-15 HOST:icbc", ""),
    ("10 cards=6222 scope=DELTA HOST:icbc", "row 10: matches no card: issuer, scope and cards exclude each other"),
    ("10 issuer=99993310FFFFFFFF scope=DELTA HOST:icbc", "row 10: matches no card: issuer, scope and cards exclude each other"),
    ("10 cards=6222 HOST:icbc", ""),
]  # fmt: skip


@pytest.mark.parametrize(("row", "warning"), WARNINGS)
def test_what_an_operator_should_look_at_is_told(row: str, warning: str) -> None:
    faults, warned = checked(row)
    assert (faults, "".join(map(str, warned))) == ([], warning)


def test_a_registry_without_an_own_issuer_is_told() -> None:
    others = tuple(one for one in PARTICIPANTS.issuers if not one.own)
    known = Known(PARTICIPANTS._replace(issuers=others), KNOWN.cities, KNOWN.merchants, KNOWN.hosts)
    _, warned = checked(known=known)
    assert [str(one) for one in warned] == ["no issuer is ours: see card_issuers in the registry"]


def _rows(count: int, kind: str) -> list[Row]:
    """Large tables: the first two an operator could have, the others nobody should."""
    step = 10**12 // count
    bins = [((n * step, n * step + step - 1),) for n in range(count)]
    bank = frozenset({20})
    if kind == "a row for each bin":
        return [Row(n + 1, (LEDGER,), cards=bins[n], accounts=bank) for n in range(count)]
    if kind == "half bins, half merchants":
        half = count // 2
        rows = [Row(n + 1, (LEDGER,), cards=bins[n], accounts=bank) for n in range(half)]
        return rows + [Row(half + n + 1, (LEDGER,), merchant=f"{n:015d}") for n in range(half)]
    if kind == "ranges that cross":
        return [Row(n + 1, (LEDGER,), cards=((n * 10, 10**11 + n * 10),)) for n in range(count)]
    if kind == "ranges in ranges":
        return [Row(n + 1, (LEDGER,), cards=((n, 10**12 - 1 - n),)) for n in range(count)]
    assert kind == "every row over every card"
    return [
        Row(
            n + 1,
            (LEDGER,),
            merchant=f"{n % 101:015d}",
            amount_fen=(n, n + 10**9),
            category=(n * 7 % 5_000, n * 7 % 5_000 + 3_000),
            minutes=(n % 700, n % 700 + 600),
        )
        for n in range(count)
    ]


@pytest.mark.parametrize("kind", ["a row for each bin", "half bins, half merchants"])
def test_a_table_of_ten_thousand_rows_can_be_checked(kind: str) -> None:
    rows = _rows(10_000, kind)
    known = KNOWN._replace(merchants=frozenset(row.merchant for row in rows))
    faults, _ = checked_rows(rows, known)
    assert faults == []


@pytest.mark.parametrize("kind", ["ranges that cross", "ranges in ranges", "every row over every card"])
def test_a_table_made_to_be_hard_is_refused_and_not_worked_at_for_ever(kind: str) -> None:
    rows = _rows(10_000, kind)
    known = KNOWN._replace(merchants=frozenset(row.merchant for row in rows))
    begun_s = time.monotonic()
    faults, _ = checked_rows(rows, known)
    assert faults
    assert time.monotonic() - begun_s < 300  # not a speed: without the bound it would be hours
