"""Which row decides, and where a request goes when none does."""

from datetime import datetime
from typing import Any

import pytest

from switch.domain.calendar import SHANGHAI
from switch.domain.decisions import Decline
from switch.messages.answers import DE39
from switch.routing.destinations import (
    CANDIDATES_MAX,
    LEDGER,
    Destination,
    RouteTable,
    TooManyCandidates,
    Way,
)
from tests.unit.routing.tables import HOSPITAL, PARTICIPANTS, ask, rows_of, table_of

TABLE = (
    "10 cards=622202 type=BALANCE REFUSE:57",
    "20 cards=622202 HOST:icbc>HOST:ccb",
    "25 cards=6228-6230 hours=22:00-06:00 REFUSE:92",
    "30 cards=6228-6230 HOST:ccb",
    "40 account=MEDICAL category=8062 HOST:social>LEDGER",
    "50 scope=HANGZHOU amount_fen=50001- REFUSE:57",
    "60 scope=HANGZHOU CITY:99990000",
    "70 issuer=99992900FFFFFFFF valid_from=2026-04-01 CITY:99990000",
    "80 account=BANK merchant=898335080620001 HOST:icbc",
    "90 account=BANK REFUSE:92",
)


def at(text: str) -> datetime:
    return datetime.fromisoformat(text).replace(tzinfo=SHANGHAI)


#   digits        what else                                              row   first destination
CASES: list[tuple[str, dict[str, Any], int, str]] = [
    ("622202", {}, 20, "HOST:icbc"),
    ("622202", {"kind": "BALANCE"}, 10, "REFUSE:57"),
    ("622201", {}, 0, "REFUSE:15"),
    ("622203", {}, 0, "REFUSE:15"),
    ("6228", {}, 30, "HOST:ccb"),
    ("623099999999", {}, 30, "HOST:ccb"),
    ("6231", {}, 0, "REFUSE:15"),
    ("6227", {}, 0, "REFUSE:15"),
    ("6229", {"at": at("2026-03-15T21:59")}, 30, "HOST:ccb"),
    ("6229", {"at": at("2026-03-15T22:00")}, 25, "REFUSE:92"),
    ("6229", {"at": at("2026-03-16T05:59")}, 25, "REFUSE:92"),
    ("6229", {"at": at("2026-03-16T06:00")}, 30, "HOST:ccb"),
    ("313350", {}, 0, "LEDGER"),
    ("313350", {"own": False}, 0, "LEDGER"),  # of our issuer, and unknown: the ledger answers 14
    ("62335", {}, 0, "LEDGER"),
    ("313350", {"account": "MEDICAL", "merchant": HOSPITAL}, 40, "HOST:social"),
    ("313350", {"account": "MEDICAL"}, 0, "LEDGER"),
    ("313350", {"account": "BANK", "merchant": HOSPITAL}, 80, "HOST:icbc"),
    ("313350", {"account": "BANK"}, 90, "REFUSE:92"),
    ("313310", {}, 60, "CITY:99990000"),
    ("313310", {"amount_fen": 50_000}, 60, "CITY:99990000"),
    ("313310", {"amount_fen": 50_001}, 50, "REFUSE:57"),
    ("312900", {}, 0, "CITY:99992900"),
    ("312900", {"at": at("2026-03-31T23:59")}, 0, "CITY:99992900"),
    ("312900", {"at": at("2026-04-01T00:00")}, 70, "CITY:99990000"),
    ("311000", {}, 0, "CITY:99991000"),
    ("000000", {}, 0, "REFUSE:15"),
    ("999999999999", {}, 0, "REFUSE:15"),
]


@pytest.mark.parametrize(("digits", "what", "row", "to"), CASES)
def test_the_first_row_that_matches_decides(digits: str, what: dict[str, Any], row: int, to: str) -> None:
    table = table_of(*TABLE)
    decision = table.decide(ask(digits, **what))
    assert (decision.row.precedence if decision.row else 0, str(decision.to[0])) == (row, to)
    explained, tried = table.explain(ask(digits, **what))
    assert explained == decision
    assert [one.row.precedence for one in tried if not one.miss] == ([row] if row else [])
    assert all(one.miss for one in tried[:-1])


ICBC = (Destination(Way.HOST, "icbc"), Destination(Way.HOST, "icbc-2"))

#   hosts of the bank  what else                                     links that there are     goes to
BOUND: list[tuple[tuple[Destination, ...] | None, dict[str, Any], set[str], str]] = [
    (ICBC, {}, {"icbc", "icbc-2"}, "HOST:icbc"),
    (ICBC, {}, {"icbc-2"}, "HOST:icbc-2"),
    (ICBC, {}, set(), "no host for this account"),
    ((), {}, {"icbc"}, "no host for this account"),  # its bank has no link here
    (None, {}, {"icbc"}, "LEDGER"),  # no bound card is meant
    (ICBC, {"merchant": HOSPITAL}, {"icbc", "ccb"}, "HOST:ccb"),  # a row goes before what is built in
    (ICBC, {"amount_fen": 50_001}, {"icbc"}, "no host for this account"),  # as row 20 says
    (ICBC, {"own": False}, {"icbc"}, "LEDGER"),  # not a card that we have
]


@pytest.mark.parametrize(("bound", "what", "links", "to"), BOUND)
def test_a_bound_bank_card_goes_to_the_hosts_of_its_bank_unless_a_row_says_otherwise(
    bound: tuple[Destination, ...] | None, what: dict[str, Any], links: set[str], to: str
) -> None:
    table = table_of(
        f"10 account=BANK merchant={HOSPITAL} HOST:ccb", "20 account=BANK amount_fen=50001- REFUSE:92"
    )
    request = ask("313350", account="BANK", bound=bound, **what)
    decision = table.decide(request)
    assert table.explain(request)[0] == decision
    chosen = decision.choose(lambda one: one.name in links)
    assert (chosen.value if isinstance(chosen, Decline) else str(chosen)) == to


def test_the_order_of_the_file_does_not_matter_only_the_precedence() -> None:
    table = RouteTable(list(reversed(rows_of(*TABLE))), PARTICIPANTS)
    for digits, what, row, _ in CASES:
        decision = table.decide(ask(digits, **what))
        assert (decision.row.precedence if decision.row else 0) == row


#   issuer's digits  acquirer    answer   (the issuer of 313320 lies in DELTA and lets its cards no further than HANGZHOU)
SCOPES = [
    ("313310", "99993350", "92"),
    ("313310", "99993351", "92"),
    ("312900", "99993350", "92"),
    ("312900", "99993351", "58"),
    ("311000", "99993351", "58"),
    ("311000", "99993350", "92"),
    ("313320", "99993350", "57"),
    ("313320", "99993351", "57"),
    ("311000", "12345678", "58"),  # an acquirer that nobody registered is ours alone
    ("622202", "99993351", "15"),
    ("313350", "99993351", ""),
]


@pytest.mark.parametrize(("digits", "acquirer", "answer"), SCOPES)
def test_cards_go_no_further_than_issuer_and_acquirer_let_them(
    digits: str, acquirer: str, answer: str
) -> None:
    chosen = table_of().decide(ask(digits, acquirer=acquirer)).choose(lambda _link: False)
    assert (DE39[chosen] if isinstance(chosen, Decline) else "") == answer


def test_a_row_does_not_open_what_the_scopes_close_and_refusals_need_no_scope() -> None:
    closed = table_of("10 issuer=99993320FFFFFFFF CITY:99990000").decide(ask("313320"))
    assert closed.refusal is Decline.CARD_OUT_OF_SCOPE
    assert table_of("10 issuer=99993320FFFFFFFF REFUSE:15").decide(ask("313320")).refusal is None


#   to                               links that are there      taken
CHOICES = [
    ("HOST:icbc>HOST:ccb>LEDGER", {"icbc", "ccb"}, "HOST:icbc"),
    ("HOST:icbc>HOST:ccb>LEDGER", {"ccb"}, "HOST:ccb"),
    ("HOST:icbc>HOST:ccb>LEDGER", set(), "LEDGER"),
    ("HOST:icbc>HOST:ccb", set(), "92"),
    ("HOST:icbc>REFUSE:57", set(), "57"),
    ("HOST:icbc>REFUSE:57", {"icbc"}, "HOST:icbc"),
    ("CITY:99993310", set(), "92"),
    ("CITY:99993310", {"99993310"}, "CITY:99993310"),
    ("REFUSE:15", {"icbc"}, "15"),
    ("LEDGER", set(), "LEDGER"),
]


@pytest.mark.parametrize(("to", "links", "taken"), CHOICES)
def test_the_first_destination_that_is_there_is_taken(to: str, links: set[str], taken: str) -> None:
    decision = table_of(f"1 {to}").decide(ask("622202"))
    chosen = decision.choose(lambda link: link.name in links)
    assert taken == (DE39[chosen] if isinstance(chosen, Decline) else str(chosen))


#   rows                                                              accounts with which cards of ours must be asked about
CONCERNS: list[tuple[tuple[str, ...], set[int]]] = [
    ((), set()),
    (("1 cards=622202 HOST:icbc", "2 scope=HANGZHOU+DELTA CITY:99990000"), set()),
    (("1 account=MEDICAL HOST:social>LEDGER",), {40}),
    (("1 account=BANK HOST:icbc",), {20}),
    (("1 cards=313350 type=LOAD REFUSE:57",), {10, 20, 40, 50}),
    (("1 scope=LOCAL account=ONLINE category=7995 REFUSE:57",), {10}),
    (("1 LEDGER",), set()),
    (("1 merchant=898335054110001 REFUSE:57",), {10, 20, 40, 50}),
]


@pytest.mark.parametrize(("rows", "accounts"), CONCERNS)
def test_a_table_says_with_which_accounts_cards_of_ours_may_go_elsewhere(
    rows: tuple[str, ...], accounts: set[int]
) -> None:
    assert table_of(*rows).own_accounts == accounts


def test_a_card_of_ours_under_a_number_of_others_is_ours() -> None:
    table = table_of("10 cards=622202 HOST:icbc", "20 account=BANK HOST:ccb")
    assert table.decide(ask("622202", own=True)).to == (Destination(Way.LEDGER),)
    assert str(table.decide(ask("622202", own=True, account="BANK")).to[0]) == "HOST:ccb"
    assert table.decide(ask("313310", own=True)).to == (Destination(Way.LEDGER),)


def test_own_money_stays_even_when_digits_became_ours_after_the_table_was_checked() -> None:
    table = table_of("10 cards=3-6 HOST:icbc")
    for own in (True, False):
        assert table.decide(ask("313350", own=own)).to == (LEDGER,)
        assert str(table.decide(ask("313350", own=own, account="BANK")).to[0]) == "HOST:icbc"
    assert str(table.decide(ask("622202")).to[0]) == "HOST:icbc"


def test_longer_digits_of_an_issuer_go_before_shorter_ones() -> None:
    table = table_of()
    issuers = [
        one._replace(bins=("3133",)) if one.issuer_id.startswith("99991000") else one
        for one in PARTICIPANTS.issuers
    ]
    table = RouteTable((), PARTICIPANTS._replace(issuers=tuple(issuers)))
    assert str(table.decide(ask("313399")).to[0]) == "CITY:99991000"
    assert str(table.decide(ask("313310")).to[0]) == "CITY:99993310"


def test_a_look_up_never_has_to_try_more_rows_than_the_bound() -> None:
    for asked in ("merchant=898335054110001", "cards=622202", "category=5411", ""):
        rows = [f"{n} {asked} amount_fen={n} HOST:icbc" for n in range(1, CANDIDATES_MAX + 1)]
        table_of(*rows)
        with pytest.raises(TooManyCandidates, match=f"row {CANDIDATES_MAX + 1}"):
            table_of(*rows, f"{CANDIDATES_MAX + 1} {asked} HOST:ccb")
        more = rows_of(*rows, f"{CANDIDATES_MAX + 1} {asked} HOST:ccb")
        slow = RouteTable(
            more, PARTICIPANTS, bounded=False
        )  # checked before the registry made it so: it serves on
        last = slow.decide(ask("622202", account="BANK", amount_fen=10**6)).row
        assert last is not None
        assert last.precedence == CANDIDATES_MAX + 1
