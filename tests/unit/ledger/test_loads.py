"""Loads, as tables that a card specialist can review."""

from datetime import UTC, date, datetime

import pytest

from switch.domain.decisions import Decline
from switch.domain.identifiers import CardNumber, asn_of
from switch.domain.money import FIELD4_MAX, Fen
from switch.domain.transactions import Load, LoadSource, PurseLoadData
from switch.ledger import loads
from switch.ledger.load_states import Held, Loading, LoadState, Payer, Purse, PurseLoad, Reason
from switch.ledger.rules import Account, Card, CardStatus, Facts, Movement, Ruling

NOW = datetime(2026, 11, 23, 4, 0, tzinfo=UTC)
PAN = CardNumber("3133500100000001239")
HOLDER, CARD_NO, AGENT, SERIAL = 7, 9, 99993350, 500
ONLINE = HOLDER * 100 + 10
MAX_FEN = 100_000
CARDS = {
    "ok": Card(CardStatus.ACTIVE, date(2020, 1, 1), date(2030, 1, 1), None),
    "ready": Card(CardStatus.READY, date(2020, 1, 1), date(2030, 1, 1), None),
    "lost": Card(CardStatus.LOSS_TEMP, date(2020, 1, 1), date(2030, 1, 1), NOW),
    "damaged": Card(CardStatus.DAMAGED, date(2020, 1, 1), date(2030, 1, 1), None),
    "expired": Card(CardStatus.ACTIVE, date(2020, 1, 1), date(2026, 11, 22), None),
    "replaced": Card(CardStatus.REPLACED, date(2020, 1, 1), date(2030, 1, 1), None),
}
SOURCES = {
    "cash": LoadSource.CASH,
    "own": LoadSource.ONLINE,
    "bound": LoadSource.BOUND_BANK,
    "other": LoadSource.OTHER_BANK,
}


def facts_of(
    *,
    card: str = "ok",
    desk: str = "cash",
    mac1: str = "good",
    atc: int = 3,
    balance_fen: int = 1_000,
    account: bool = True,
    purse: bool = True,
) -> Facts:
    """What a batch would have read. desk: whether the terminal takes cash. atc: the counter that the shadow stands at."""
    facts = Facts(NOW, NOW.date(), serial=SERIAL, card=CARDS.get(card), holder_id=HOLDER)
    facts.account = Account(ONLINE, balance_fen, False, None, 0) if account else None
    facts.purse = Purse(CARD_NO, 0, atc) if purse else None
    facts.purse_max_fen = MAX_FEN
    facts.loading = Loading(
        AGENT,
        takes_cash=desk == "cash",
        card_proven=mac1 == "good",
        credit=lambda _at: b"55" if mac1 == "good" else None,
    )
    return facts


def request_of(
    fen: int = 100, *, source: str = "cash", atc: int = 3, on_card: int = 0, random: bytes = b"rand"
) -> Load:
    data = PurseLoadData(
        asn_of(PAN), bytes(8), 1, 1, 4, Fen(on_card), atc, random, bytes(4), bytes.fromhex("335000000017")
    )
    return Load(PAN, SOURCES[source], Fen(fen), None, data, "051")


def told(ruling: Ruling) -> str:
    return ruling.decline.name if ruling.decline else "APPROVED"


#   source  desk  card      amount  on card  mac1  counter  in account  answer
CASES = """
    cash    cash  ok           100        0  good        3        1000  APPROVED
    cash    cash  ok           100        0  good        4        1000  APPROVED
    cash    till  ok           100        0  good        3        1000  TERMINAL_NO_CASH
    own     till  ok           100        0  good        3        1000  APPROVED
    own     till  ok          1000        0  good        3        1000  APPROVED
    own     till  ok          1001        0  good        3        1000  FUNDS_INSUFFICIENT
    bound   cash  ok           100        0  good        3        1000  NO_ROUTE
    other   cash  ok           100        0  good        3        1000  NO_ROUTE
    cash    cash  ok             0        0  good        3        1000  AMOUNT_INVALID
    cash    till  lost           0        0  bad         2        1000  AMOUNT_INVALID
    cash    till  lost         100        0  bad         2        1000  TERMINAL_NO_CASH
    cash    cash  lost         100   100000  bad         2        1000  CARD_LOST
    cash    cash  ready        100        0  good        3        1000  CARD_NOT_ACTIVE
    cash    cash  damaged      100        0  good        3        1000  CARD_RESTRICTED
    cash    cash  replaced     100        0  good        3        1000  CARD_RESTRICTED
    cash    cash  expired      100        0  good        3        1000  CARD_EXPIRED
    cash    cash  unknown      100        0  good        3        1000  CARD_UNKNOWN
    cash    cash  ok        100000        0  good        3        1000  APPROVED
    cash    cash  ok        100001        0  good        3        1000  LIMIT_AMOUNT
    cash    cash  ok             1   100000  bad         2        1000  LIMIT_AMOUNT
    cash    cash  ok           100        0  bad         2        1000  CARD_UNPROVEN
    cash    cash  ok           100        0  good        2        1000  LOAD_REPLAYED
    own     cash  ok          1001        0  bad         3        1000  CARD_UNPROVEN
    own     cash  ok          1001        0  good        2        1000  LOAD_REPLAYED
    cash    cash  ok           100        0  good    65534        1000  APPROVED
    cash    cash  ok           100        0  good    65535        1000  CARD_UNPROVEN
"""


@pytest.mark.parametrize("line", [line for line in CASES.splitlines() if line.strip()])
def test_purse_load_table(line: str) -> None:
    source, desk, card, amount, on_card, mac1, atc, in_account, answer = line.split()
    facts = facts_of(card=card, desk=desk, mac1=mac1, balance_fen=int(in_account))
    request = request_of(int(amount), source=source, atc=int(atc), on_card=int(on_card))
    ruling = loads.load(request, facts)
    assert told(ruling) == answer
    approved = answer == "APPROVED"
    assert facts.account is not None
    assert facts.account.balance_fen == int(in_account) - (int(amount) if approved and source == "own" else 0)
    assert facts.purse is not None
    assert facts.purse.loaded_fen == (int(amount) if approved else 0)
    assert (ruling.field55, ruling.effect_fen, ruling.movement) == (b"55" if approved else b"", 0, None)
    if approved:
        (moved,) = facts.load_moves
        payer = (2001, ONLINE) if source == "own" else (1002, AGENT)
        assert (moved.debit, moved.credit, moved.load.entry_no) == (payer, (2002, CARD_NO), SERIAL)
    else:
        assert not facts.load_moves


def test_a_card_without_purse_or_without_account_is_57() -> None:
    assert told(loads.load(request_of(), facts_of(purse=False))) == "ACCOUNT_NOT_PERMITTED"
    assert told(loads.load(request_of(source="own"), facts_of(account=False))) == "ACCOUNT_NOT_PERMITTED"
    assert told(loads.load(request_of(), facts_of(account=False))) == "APPROVED"


def test_a_key_that_is_gone_when_mac2_is_made_takes_nothing() -> None:
    facts = facts_of()
    assert facts.loading is not None
    facts.loading = facts.loading._replace(credit=lambda _at: None)
    assert told(loads.load(request_of(source="own"), facts)) == "CARD_UNPROVEN"
    assert (facts.account, facts.loads, facts.load_moves) == (Account(ONLINE, 1_000, False, None, 0), {}, [])


def test_a_source_that_was_asked_between_check_and_authorise_is_debited_as_it_says() -> None:
    facts, request = facts_of(), request_of(source="bound")
    assert loads.check(request, facts) is None
    facts.load_moves.clear()
    assert told(loads.authorise(request, facts, Payer(1101, 88))) == "APPROVED"
    assert facts.load_moves[0].debit == (1101, 88)
    assert facts.loads[SERIAL].debit_owner == 88
    # Meanwhile another terminal has loaded the card at the same counter: the host must be told that its money comes back.
    assert told(loads.authorise(request_of(random=b"othr"), facts, Payer(1101, 88))) == "LOAD_REPLAYED"


#   the loads of the card, oldest first: counter, state, a good TAC came late; the counter that comes now; what they are after
CONTACTS = """
    3 AUTHORISED -                                  3  REVERSED
    3 AUTHORISED -                                  4  LOADED
    3 AUTHORISED -                                  9  LOADED
    3 SUSPENSE -                                    3  RETURNED
    3 SUSPENSE -                                    4  LOADED
    3 CONFIRMED -                                   4  CONFIRMED
    3 REVERSED -                                    3  REVERSED
    3 REVERSED -                                    4  LOADED
    3 REVERSED - 3 AUTHORISED -                     4  REVERSED LOADED
    3 REVERSED - 3 CONFIRMED -                      4  REVERSED CONFIRMED
    3 SUSPENSE proven 3 AUTHORISED -                4  LOADED REVERSED
    3 SUSPENSE proven 3 AUTHORISED -                3  RETURNED REVERSED
    3 SUSPENSE - 3 CONFIRMED -                      4  RETURNED CONFIRMED
    3 SUSPENSE - 3 SUSPENSE -                       4  RETURNED LOADED
    3 REVERSED - 3 RETURNED -                       4  REVERSED LOADED
    2 SUSPENSE - 3 AUTHORISED -                     4  LOADED LOADED
    2 SUSPENSE - 3 AUTHORISED -                     3  LOADED REVERSED
"""
HELD = {
    LoadState.AUTHORISED: Held.FLOAT,
    LoadState.CONFIRMED: Held.FLOAT,
    LoadState.LOADED: Held.FLOAT,
    LoadState.REVERSED: Held.SOURCE,
    LoadState.RETURNED: Held.SOURCE,
}


def a_load(
    number: int, atc: int, state: LoadState, *, proven: bool = False, held: Held | None = None
) -> PurseLoad:
    return PurseLoad(
        number,
        NOW.date(),
        CARD_NO,
        atc,
        "335000000017",
        bytes(8),
        1,
        4,
        1,
        number.to_bytes(4),
        100,
        0,
        NOW,
        4,
        1002,
        AGENT,
        state,
        Reason.REQUEST,
        HELD.get(state, Held.SUSPENSE) if held is None else held,
        proven,
    )


@pytest.mark.parametrize("line", [line for line in CONTACTS.splitlines() if line.strip()])
def test_what_a_card_proves_when_it_comes(line: str) -> None:
    before, after = line.rsplit("  ", 1)
    words = before.split()
    counter = int(words.pop())
    facts = facts_of(atc=min(counter, 3))
    for place in range(0, len(words), 3):
        atc, state, proven = words[place : place + 3]
        one = a_load(place + 1, int(atc), LoadState[state], proven=proven == "proven")
        facts.loads[one.entry_no] = one
    old = dict(facts.loads)
    in_float = sum(one.amount_fen for one in old.values() if one.held == Held.FLOAT)
    assert facts.purse is not None
    facts.purse.loaded_fen = in_float
    assert told(loads.load(request_of(atc=counter, random=b"new!"), facts)) == "APPROVED"
    assert [LoadState(one.state).name for one in old.values()] == after.split()
    held = sum(one.amount_fen for one in facts.loads.values() if one.held == Held.FLOAT)
    assert facts.purse.loaded_fen == held
    assert facts.purse.online_atc == counter
    lines = [moved.line for moved in facts.load_moves]
    assert lines == list(range(len(lines)))


def test_an_initialize_that_was_approved_once_is_good_for_nothing_else() -> None:
    for state in (LoadState.AUTHORISED, LoadState.REVERSED, LoadState.SUSPENSE):
        facts = facts_of()
        one = a_load(1, 3, state)
        facts.loads[1] = one
        assert told(loads.load(request_of(random=one.card_random), facts)) == "LOAD_REPLAYED"
        assert (one.state, facts.load_moves) == (state, [])


def test_what_people_declared_loaded_gives_way_to_the_card() -> None:
    facts = facts_of()
    facts.loads[1] = one = a_load(1, 3, LoadState.SUSPENSE)
    loads.move(one, LoadState.LOADED, Reason.OPERATOR, facts, "li wei")
    assert facts.purse is not None
    assert (facts.purse.loaded_fen, facts.purse.online_atc) == (100, 3)
    facts.serial += 1
    assert told(loads.load(request_of(50, random=b"new!"), facts)) == "APPROVED"
    assert (one.state, facts.purse.loaded_fen) == (LoadState.RETURNED, 50)


def test_money_that_cannot_go_back_to_its_account_waits_in_suspense_and_a_debt_is_a_claim_there() -> None:
    facts = facts_of(balance_fen=99)
    one = a_load(1, 3, LoadState.AUTHORISED)
    one.debit_code, one.debit_owner = 2001, ONLINE
    facts.loads[1] = one
    facts.card = CARDS["ok"]._replace(status=CardStatus.CANCELLED)
    loads.move(one, LoadState.REVERSED, Reason.REVERSAL, facts)
    assert facts.load_moves[-1].credit == (2201, 0)
    facts.card = CARDS["ok"]
    loads.move(one, LoadState.LOADED, Reason.CARD_AHEAD, facts)
    assert (facts.load_moves[-1].debit, facts.load_moves[-1].credit) == ((2201, 0), (2002, CARD_NO))
    assert facts.account is not None
    assert facts.account.balance_fen == 99


#   desk  card  amount      in account    answer
TOP_UPS = """
    cash  ok           100          1000  APPROVED
    till  ok           100          1000  TERMINAL_NO_CASH
    cash  ok             0          1000  AMOUNT_INVALID
    cash  lost         100          1000  CARD_LOST
    cash  ok  999999999999             0  APPROVED
    cash  ok  999999999999             1  LIMIT_AMOUNT
"""


@pytest.mark.parametrize("line", [line for line in TOP_UPS.splitlines() if line.strip()])
def test_top_up_table(line: str) -> None:
    desk, card, amount, in_account, answer = line.split()
    facts = facts_of(card=card, desk=desk, balance_fen=int(in_account))
    fen = int(amount)
    ruling = loads.load(Load(PAN, LoadSource.CASH, Fen(fen), None, None, "051"), facts)
    assert told(ruling) == answer
    assert facts.account is not None
    if answer == "APPROVED":
        assert ruling.movement == Movement((1002, AGENT), (2001, ONLINE), fen)
        assert facts.account.balance_fen == int(in_account) + fen <= FIELD4_MAX
    else:
        assert (ruling.movement, facts.account.balance_fen) == (None, int(in_account))
    assert ruling.decline is not Decline.MALFUNCTION
