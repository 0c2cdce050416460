"""What may go to a host, and what every end of a question means, as tables."""

from datetime import date, datetime

import pytest

from switch.domain.calendar import SHANGHAI
from switch.domain.decisions import Decline
from switch.domain.hosts import (
    HostAnswer,
    HostDown,
    HostKey,
    HostOutcome,
    HostService,
    HostStep,
    HostTimeout,
    Refusal,
    Unknown,
)
from switch.domain.identifiers import CardNumber
from switch.domain.money import Fen
from switch.domain.transactions import (
    AccountKind,
    Balance,
    Kind,
    Original,
    PinEntry,
    PinFormat,
    PreAuthorisation,
    Purchase,
    Refund,
    Reversal,
    Void,
)
from switch.ledger import legs, rules
from switch.ledger.leg_state import HostAsk, Leg, LegState, StandIn, StandInTerms, Tell
from switch.ledger.legs import LegEnd
from switch.ledger.rules import Account, Card, Entry, Facts, Movement

PAN = CardNumber("3133500100000000009")
NOW = datetime(2026, 11, 23, 12, 0, tzinfo=SHANGHAI)
TODAY = date(2026, 11, 23)
KEY = HostKey("1123120000", 42)
PIN = PinEntry(b"\0" * 8, PinFormat.ISO_0)
ASK = HostAsk("bank", HostService.PURCHASE, 1101, 1_020_000, PAN, "33600001", "993350054110001", 15.0)
BANK = AccountKind.BANK


def facts(**more: object) -> Facts:
    made = Facts(NOW, TODAY, serial=77, merchant_no=3, holder_id=9)
    made.card = Card(1, date(2024, 1, 1), date(2034, 1, 1), None)
    for name, value in more.items():
        setattr(made, name, value)
    return made


def leg(service: HostService = HostService.PURCHASE, **more: object) -> Leg:
    made = Leg(
        50,
        TODAY,
        "bank",
        int(service),
        int(HostStep.FINANCIAL),
        1101,
        1_020_000,
        500,
        "632712000001",
        *KEY,
        0,
    )
    for name, value in more.items():
        setattr(made, name, value)
    return made


def answered(code: str, auth_code: str = "", available_fen: Fen | None = None) -> HostAnswer:
    return HostAnswer(KEY, code, auth_code, "", None, "1124", available_fen, "")


# ---------------------------------------------------------------------- asking


def test_what_goes_to_a_host_is_written_down_first():
    ruling = legs.intend(Purchase(PAN, BANK, Fen(500), PIN, "051"), facts(), ASK, None)
    assert (ruling.decline, ruling.answer, ruling.movement, ruling.tells) == (None, "09", None, ())
    made = ruling.leg
    assert made is not None
    assert (made.leg_no, made.host, made.state, made.amount_fen) == (77, "bank", LegState.ASKED, 500)
    assert (made.transmitted, made.trace) == ("1123120000", 78)
    assert made.gives_up_at is not None
    assert (made.gives_up_at - NOW).total_seconds() == 25.0


LOST = Card(1, date(2024, 1, 1), date(2034, 1, 1), NOW)
FROZEN = Account(940, 0, True, None, 0)
PURCHASE = Purchase(PAN, BANK, Fen(500), None, "052")


@pytest.mark.parametrize(
    ("request_", "state", "decline"),
    [
        (PURCHASE._replace(amount_fen=Fen(0)), {}, Decline.AMOUNT_INVALID),
        (PURCHASE, {"card": LOST}, Decline.CARD_LOST),
        (PURCHASE, {"card": None}, Decline.CARD_UNKNOWN),
        (PURCHASE, {"card": None, "holder_id": 0}, None),  # another city's card is known to its city
        (PURCHASE, {"account": FROZEN}, Decline.CARD_RESTRICTED),
        (Balance(PAN, BANK, None, "052"), {}, None),
        (Balance(PAN, BANK, None, "052"), {"card": LOST}, Decline.CARD_LOST),
        (PreAuthorisation(PAN, BANK, Fen(500), None, "052"), {}, Decline.NOT_SUPPORTED),
    ],
)
def test_what_may_go_to_a_host(request_, state, decline):
    assert legs.intend(request_, facts(**state), ASK, None).decline is decline


# ---------------------------------------------------------------------- standing in

TERMS = StandInTerms(500, 1200, 3)


@pytest.mark.parametrize(
    ("amount_fen", "pin", "fen", "count", "approved"),
    [
        (500, None, 0, 0, True),
        (501, None, 0, 0, False),
        (500, PIN, 0, 0, False),  # nobody here can check it
        (500, None, 700, 2, True),
        (500, None, 701, 2, False),
        (1, None, 0, 3, False),
    ],
)
def test_standing_in_ends_at_three_limits(amount_fen, pin, fen, count, approved):
    standing = StandIn("bank", fen, count)
    ask = ASK._replace(stand_in=TERMS)
    ruling = legs.intend(Purchase(PAN, BANK, Fen(amount_fen), pin, "052"), facts(), ask, standing)
    if not approved:
        assert (ruling.decline, standing.changed) == (Decline.HOST_DOWN, False)
        return
    assert ruling.movement == Movement((1101, 1_020_000), (2101, 3), amount_fen)
    assert (standing.outstanding_fen, standing.outstanding_count) == (fen + amount_fen, count + 1)
    assert ruling.leg is not None
    assert (ruling.leg.state, ruling.leg.step, ruling.leg.ended_by) == (LegState.STOOD_IN, 3, 77)
    assert ruling.tells == (Tell(ruling.leg, HostStep.ADVICE, 1, "", amount_fen),)


def test_nobody_stands_in_for_a_balance():
    ask = ASK._replace(service=HostService.BALANCE, stand_in=TERMS)
    ruling = legs.intend(Balance(PAN, BANK, None, "052"), facts(), ask, StandIn("bank"))
    assert ruling.decline is Decline.HOST_DOWN


# ---------------------------------------------------------------------- the end

#   what the link said                          answer  state                reason of the reversal
ENDS: list[tuple[HostOutcome | Decline | None, str, LegState, str]] = [
    (answered("00", "A1B2C3"), "00", LegState.APPROVED, ""),
    (answered("51"), "51", LegState.DECLINED, ""),
    (answered("75"), "38", LegState.DECLINED, ""),
    (answered("A0"), "05", LegState.DECLINED, ""),  # a terminal would sign on again
    (answered("77"), "05", LegState.DECLINED, ""),
    (answered("94"), "05", LegState.DECLINED, ""),
    (answered("68"), "98", LegState.DECLINED, "96"),  # what lies behind the host may have done it
    (answered("96"), "96", LegState.DECLINED, "96"),
    (HostTimeout(KEY, Unknown.SILENT), "68", LegState.UNKNOWN, "98"),
    (HostTimeout(KEY, Unknown.LINE_LOST), "68", LegState.UNKNOWN, "98"),
    (HostTimeout(KEY, Unknown.MAC_WRONG), "68", LegState.UNKNOWN, "A0"),
    (HostTimeout(KEY, Unknown.UNUSABLE), "68", LegState.UNKNOWN, "96"),
    (HostDown(KEY, Refusal.BREAKER), "91", LegState.NOT_SENT, ""),
    (Decline.PIN_UNREADABLE, "99", LegState.NOT_SENT, ""),
    (None, "68", LegState.UNKNOWN, "98"),
]
DE39 = {Decline.HOST_SILENT: "68", Decline.HOST_DOWN: "91", Decline.PIN_UNREADABLE: "99"}


@pytest.mark.parametrize(("said", "answer", "state", "reason"), ENDS)
def test_every_end_of_a_question(said, answer, state, reason):
    asked = leg()
    ruling = legs.end(LegEnd(PAN, BANK, Fen(500), said), facts(), asked, batch_open=True)
    told = ruling.answer or ("00" if ruling.decline is None else DE39[ruling.decline])
    assert (told, asked.state, asked.ended_by, asked.changed) == (answer, state, 77, True)
    assert [tell.reason for tell in ruling.tells] == [reason] * bool(reason)
    assert (ruling.movement is not None) == (answer == "00")
    assert ruling.rrn == asked.rrn


def test_a_balance_never_has_to_be_undone():
    asked = leg(HostService.BALANCE)
    ruling = legs.end(LegEnd(PAN, BANK, Fen(0), None), facts(), asked, batch_open=True)
    assert (ruling.decline, ruling.tells) == (Decline.HOST_SILENT, ())


def test_an_approval_after_the_totals_were_counted_is_taken_back():
    asked = leg()
    ruling = legs.end(LegEnd(PAN, BANK, Fen(500), answered("00")), facts(), asked, batch_open=False)
    assert (ruling.decline, ruling.movement) == (Decline.BATCH_FROZEN, None)
    assert [(tell.step, tell.reason) for tell in ruling.tells] == [(HostStep.REVERSAL_ADVICE, "06")]


# ---------------------------------------------------------------------- afterwards


def entry(kind: Kind = Kind.PURCHASE, **more: object) -> Entry:
    made = Entry(
        50,
        TODAY,
        int(kind),
        920,
        PAN.reveal(),
        500,
        500,
        "00",
        "632712000001",
        "A1B2C3",
        NOW,
        b"d" * 32,
        None,
    )
    for name, value in more.items():
        setattr(made, name, value)
    return made


ORIGINAL = Original(1, 50, 11, 23)


def test_a_refund_goes_back_to_who_paid_and_the_host_is_told():
    bound = leg(state=int(LegState.APPROVED), ended_by=50)
    state = facts(original=entry(), leg=bound)
    ruling = rules.refund(Refund(PAN, BANK, Fen(200), ORIGINAL, "632712000001", "052"), state)
    assert ruling.movement == Movement((2101, 3), (1101, 1_020_000), 200)
    assert [(tell.service, tell.amount_fen, tell.reason) for tell in ruling.tells] == [
        (HostService.RETURN, 200, "")
    ]


def test_a_void_of_a_host_s_purchase_cannot_be_reversed():
    bound = leg(state=int(LegState.APPROVED), ended_by=50)
    voided = entry(undone_by=60)
    void = entry(Kind.VOID, entry_no=60, effect_fen=-500, original_entry=50, original_date=TODAY)
    state = facts(original=void, leg=bound, entry_of={50: voided}.get)
    request = Reversal(PAN, BANK, Fen(500), ORIGINAL, Kind.VOID, "98", "052", "202000")
    assert rules.reversal(request, state).decline is Decline.NOT_APPLICABLE


def test_a_void_of_another_city_s_card_is_known_by_its_number():
    bound = leg(state=int(LegState.APPROVED), ended_by=50, debit_code=1102)
    original = entry(account_id=None)
    request = Void(PAN, AccountKind.ONLINE, Fen(500), ORIGINAL, "632712000001", "A1B2C3", "052")
    state = facts(original=original, leg=bound, holder_id=0, card=None)
    assert rules.void(request, state, 1).movement == Movement((2101, 3), (1102, 1_020_000), 500)
    other = CardNumber("3133500100000000017")
    state = facts(original=entry(account_id=None), leg=bound, holder_id=0, card=None)
    assert rules.void(request._replace(card=other), state, 1).decline is Decline.ORIGINAL_UNKNOWN
