"""The rules of the online account, as tables that a card specialist can review."""

from datetime import UTC, date, datetime, timedelta

import pytest

from switch.domain.decisions import Decline
from switch.domain.identifiers import CardNumber
from switch.domain.money import Fen
from switch.domain.transactions import AccountKind, Balance, Kind, Original, Purchase, Refund, Reversal, Void
from switch.ledger import rules
from switch.ledger.rules import Account, Card, CardStatus, Entry, Facts, Movement

NOW = datetime(2026, 11, 23, 4, 0, tzinfo=UTC)
TODAY = date(2026, 11, 23)
PAN = CardNumber("3133500100000001239")
HOLDER = 7
ONLINE = HOLDER * 100 + 10
ACTIVE = Card(CardStatus.ACTIVE, date(2020, 1, 1), date(2030, 1, 1), None)
CARDS = {
    "ok": ACTIVE,
    "unknown": None,
    "ready": ACTIVE._replace(status=CardStatus.READY),
    "damaged": ACTIVE._replace(status=CardStatus.DAMAGED),
    "replaced": ACTIVE._replace(status=CardStatus.REPLACED),
    "cancelled": ACTIVE._replace(status=CardStatus.CANCELLED),
    "lost": ACTIVE._replace(status=CardStatus.LOSS_TEMP, lost_at=NOW),
    "lost soon": ACTIVE._replace(status=CardStatus.LOSS_TEMP, lost_at=NOW + timedelta(milliseconds=1)),
    "expired": ACTIVE._replace(valid_through=date(2026, 11, 22)),
    "last day": ACTIVE._replace(valid_through=date(2026, 11, 23)),
}
RIGHT, WRONG = b"r" * 16, b"w" * 16


def an_account(
    balance_fen: int = 100, *, pin: bytes | None = None, failures: int = 0, frozen: bool = False
) -> Account:
    return Account(ONLINE, balance_fen, frozen, pin, failures)


def some_facts(account: Account | None, card: Card | None = ACTIVE, **more: object) -> Facts:
    facts = Facts(
        now=NOW, today=TODAY, serial=99, merchant_no=5, card=card, account=account, holder_id=HOLDER
    )
    for name, value in more.items():
        setattr(facts, name, value)
    return facts


def a_purchase(amount_fen: int = 100, account: AccountKind = AccountKind.ONLINE) -> Purchase:
    return Purchase(PAN, account, Fen(amount_fen), None, "051")


def an_entry(kind: Kind = Kind.PURCHASE, amount_fen: int = 100, answer: str = "00", **more: object) -> Entry:
    sign = {Kind.PURCHASE: 1}.get(kind, -1) if answer == "00" else 0
    entry = Entry(
        entry_no=50,
        business_date=date(2026, 11, 23),
        kind=kind,
        account_id=ONLINE,
        pan=PAN.reveal(),
        amount_fen=amount_fen,
        effect_fen=sign * amount_fen,
        answer=answer,
        rrn="632712000001",
        auth_code="000001",
        decided_at=NOW,
        digest=b"d" * 32,
        extra=None,
    )
    for name, value in more.items():
        setattr(entry, name, value)
    return entry


ORIGINAL = Original(1, 50, 11, 23)

#   card        pin set   pin came    failures  amount  balance  answer
PURCHASES = """
    ok          no        none        0         100     100      APPROVED
    ok          no        none        0         101     100      FUNDS_INSUFFICIENT
    ok          no        none        0         0       100      AMOUNT_INVALID
    unknown     no        none        0         0       100      AMOUNT_INVALID
    unknown     no        none        0         100     100      CARD_UNKNOWN
    ready       no        none        0         100     100      CARD_NOT_ACTIVE
    damaged     no        none        0         100     100      CARD_RESTRICTED
    replaced    no        none        0         100     100      CARD_RESTRICTED
    cancelled   no        none        0         100     100      CARD_RESTRICTED
    lost        yes       wrong       0         101     100      CARD_LOST
    lost-soon   no        none        0         100     100      APPROVED
    expired     yes       wrong       0         101     100      CARD_EXPIRED
    last-day    no        none        0         100     100      APPROVED
    ok          yes       none        0         100     100      PIN_WRONG
    ok          yes       right       0         100     100      APPROVED
    ok          yes       right       5         100     100      APPROVED
    ok          yes       wrong       0         100     100      PIN_WRONG
    ok          yes       wrong       0         101     100      PIN_WRONG
    ok          yes       wrong       5         100     100      PIN_WRONG
    ok          yes       right       6         100     100      PIN_BLOCKED
    ok          yes       wrong       6         100     100      PIN_BLOCKED
    ok          yes       none        6         100     100      PIN_BLOCKED
    ok          yes       unreadable  0         100     100      PIN_UNREADABLE
    ok          yes       unreadable  6         100     100      PIN_BLOCKED
    ok          no        unreadable  0         100     100      PIN_UNREADABLE
    ok          no        wrong       0         100     100      APPROVED
"""


@pytest.mark.parametrize("line", [line for line in PURCHASES.splitlines() if line.strip()])
def test_purchase_table(line: str) -> None:
    card, pin_set, came, failures, amount, balance, answer = line.split()
    account = an_account(int(balance), pin=RIGHT if pin_set == "yes" else None, failures=int(failures))
    pin = {"right": RIGHT, "wrong": WRONG}.get(came)
    facts = some_facts(account, CARDS[card.replace("-", " ")], pin=pin, pin_unreadable=came == "unreadable")
    ruling = rules.purchase(a_purchase(int(amount)), facts)
    assert (ruling.decline.name if ruling.decline else "APPROVED") == answer
    if ruling.decline is None:
        assert account.balance_fen == int(balance) - int(amount)
        assert ruling.movement == Movement((2001, ONLINE), (2101, 5), int(amount))
        assert ruling.effect_fen == int(amount)
    else:
        assert account.balance_fen == int(balance)
        assert ruling.movement is None
        assert ruling.effect_fen == 0


def test_wrong_pins_are_counted_to_the_block_and_forgotten_by_a_right_one() -> None:
    account = an_account(pin=RIGHT)
    for _ in range(5):
        rules.purchase(a_purchase(1), some_facts(account, pin=WRONG))
    rules.purchase(a_purchase(1), some_facts(account, pin=RIGHT))
    assert account.pin_failures == 0
    answers = [rules.purchase(a_purchase(1), some_facts(account, pin=WRONG)).decline for _ in range(7)]
    assert answers == [Decline.PIN_WRONG] * 6 + [Decline.PIN_BLOCKED]
    assert account.pin_failures == 6


def test_below_the_no_pin_limit_a_pin_may_be_missing_but_not_wrong() -> None:
    account = an_account(pin=RIGHT)
    assert rules.purchase(a_purchase(50), some_facts(account, no_pin_limit_fen=50)).decline is None
    assert (
        rules.purchase(a_purchase(50), some_facts(account, pin=WRONG, no_pin_limit_fen=50)).decline
        is Decline.PIN_WRONG
    )
    assert (
        rules.purchase(a_purchase(50), some_facts(account, no_pin_limit_fen=49)).decline is Decline.PIN_WRONG
    )


@pytest.mark.parametrize(
    ("kind", "account", "answer"),
    [
        (AccountKind.BANK, None, Decline.NO_ROUTE),
        (AccountKind.PURSE, None, Decline.NOT_SUPPORTED),
        (AccountKind.MEDICAL, None, Decline.ACCOUNT_NOT_PERMITTED),
        (AccountKind.ONLINE, an_account(frozen=True), Decline.CARD_RESTRICTED),
    ],
)
def test_accounts_that_cannot_be_asked(kind: AccountKind, account: Account | None, answer: Decline) -> None:
    assert rules.purchase(a_purchase(account=kind), some_facts(account)).decline is answer


def test_balance_shows_ledger_and_available_and_asks_for_the_pin() -> None:
    ask = Balance(PAN, AccountKind.ONLINE, None, "052")
    assert rules.balance(ask, some_facts(an_account(pin=RIGHT))).decline is Decline.PIN_WRONG
    ruling = rules.balance(ask, some_facts(an_account(77)))
    assert [tuple(figure) for figure in ruling.balances] == [(10, 1, 77), (10, 2, 77)]


#   original            card       amount  rrn    batch  answer
VOIDS = {
    "approved": (an_entry, "ok", 100, "632712000001", 1, None),
    "card lost meanwhile": (an_entry, "lost", 100, "632712000001", 1, None),
    "other batch": (an_entry, "ok", 100, "632712000001", 2, Decline.NOT_APPLICABLE),
    "unknown": (lambda: None, "ok", 100, "632712000001", 1, Decline.ORIGINAL_UNKNOWN),
    "other reference": (an_entry, "ok", 100, "632712000002", 1, Decline.ORIGINAL_UNKNOWN),
    "part of it": (an_entry, "ok", 99, "632712000001", 1, Decline.ORIGINAL_AMOUNT),
    "declined": (lambda: an_entry(answer="51"), "ok", 100, "632712000001", 1, Decline.NOT_APPLICABLE),
    "voided before": (lambda: an_entry(undone_by=60), "ok", 100, "632712000001", 1, Decline.NOT_APPLICABLE),
    "refunded in part": (
        lambda: an_entry(refunded_fen=1),
        "ok",
        100,
        "632712000001",
        1,
        Decline.NOT_APPLICABLE,
    ),
    "a void": (lambda: an_entry(Kind.VOID), "ok", 100, "632712000001", 1, Decline.NOT_APPLICABLE),
    "somebody else's": (
        lambda: an_entry(account_id=810),
        "ok",
        100,
        "632712000001",
        1,
        Decline.ORIGINAL_UNKNOWN,
    ),
}


@pytest.mark.parametrize("name", VOIDS)
def test_void_table(name: str) -> None:
    make, card, amount, rrn, batch, answer = VOIDS[name]
    account, original = an_account(0), make()
    request = Void(PAN, AccountKind.ONLINE, Fen(amount), Original(batch, 50, 11, 23), rrn, "000001", "051")
    ruling = rules.void(request, some_facts(account, CARDS[card], original=original), 1)
    assert ruling.decline is answer
    assert account.balance_fen == (100 if answer is None else 0)
    if answer is None:
        assert ruling.effect_fen == -100
        assert original.undone_by == 99


def test_refunds_add_up_to_the_original_and_no_fen_more() -> None:
    account, original = an_account(0), an_entry()

    def refund(amount_fen: int) -> Decline | None:
        request = Refund(PAN, AccountKind.ONLINE, Fen(amount_fen), ORIGINAL, original.rrn, "051")
        return rules.refund(request, some_facts(account, original=original)).decline

    assert [refund(60), refund(41), refund(40), refund(1), refund(0)] == [
        None,
        Decline.ORIGINAL_AMOUNT,
        None,
        Decline.ORIGINAL_AMOUNT,
        Decline.AMOUNT_INVALID,
    ]
    assert account.balance_fen == 100


@pytest.mark.parametrize(
    ("original", "kind", "answer"),
    [
        (an_entry(undone_by=60), AccountKind.ONLINE, Decline.NOT_APPLICABLE),
        (an_entry(answer="51"), AccountKind.ONLINE, Decline.NOT_APPLICABLE),
        (an_entry(Kind.REFUND), AccountKind.ONLINE, Decline.NOT_APPLICABLE),
        (an_entry(), AccountKind.MEDICAL, Decline.NOT_APPLICABLE),
        (an_entry(), AccountKind.PURSE, Decline.NOT_APPLICABLE),
        (None, AccountKind.ONLINE, Decline.ORIGINAL_UNKNOWN),
    ],
)
def test_refunds_that_are_refused(original: Entry | None, kind: AccountKind, answer: Decline) -> None:
    request = Refund(PAN, kind, Fen(10), ORIGINAL, "632712000001", "051")
    assert rules.refund(request, some_facts(an_account(), original=original)).decline is answer


def test_a_refund_to_a_cancelled_card_waits_in_suspense() -> None:
    account = an_account(0)
    request = Refund(PAN, AccountKind.ONLINE, Fen(10), ORIGINAL, "632712000001", "051")
    ruling = rules.refund(request, some_facts(account, CARDS["cancelled"], original=an_entry()))
    assert ruling.movement == Movement((2101, 5), (2201, 0), 10)
    assert account.balance_fen == 0


def a_reversal(amount_fen: int = 100, of: Kind = Kind.PURCHASE) -> Reversal:
    return Reversal(PAN, AccountKind.ONLINE, Fen(amount_fen), ORIGINAL, of, "98", "051", "001000")


REVERSALS = {
    "approved": (an_entry, a_reversal(), False, None, 100),
    "declined": (lambda: an_entry(answer="51"), a_reversal(), False, None, 0),
    "unknown": (lambda: None, a_reversal(), False, Decline.ORIGINAL_UNKNOWN, 0),
    "other amount": (an_entry, a_reversal(99), False, Decline.ORIGINAL_AMOUNT, 0),
    "in a closed batch": (an_entry, a_reversal(), True, Decline.NOT_APPLICABLE, 0),
    "voided": (lambda: an_entry(undone_by=60), a_reversal(), False, Decline.NOT_APPLICABLE, 0),
    "refunded": (lambda: an_entry(refunded_fen=1), a_reversal(), False, Decline.NOT_APPLICABLE, 0),
    "of another kind": (an_entry, a_reversal(of=Kind.VOID), False, Decline.NOT_APPLICABLE, 0),
    "of another card": (
        lambda: an_entry(pan="3133500100000045673"),
        a_reversal(),
        False,
        Decline.NOT_APPLICABLE,
        0,
    ),
}


@pytest.mark.parametrize("name", REVERSALS)
def test_reversal_table(name: str) -> None:
    make, request, closed, answer, back = REVERSALS[name]
    account, original = an_account(0), make()
    ruling = rules.reversal(request, some_facts(account, original=original, original_batch_closed=closed))
    assert ruling.decline is answer
    assert account.balance_fen == back
    assert ruling.effect_fen == -back
    if original is not None:
        assert ruling.rrn == original.rrn


def test_a_reversed_void_debits_again_and_its_purchase_lives() -> None:
    purchase = an_entry(undone_by=51)
    void = an_entry(Kind.VOID, entry_no=51, original_entry=50)
    account = an_account(100)
    facts = some_facts(account, original=void, entry_of={50: purchase}.get)
    ruling = rules.reversal(a_reversal(of=Kind.VOID), facts)
    assert (ruling.decline, ruling.effect_fen, account.balance_fen, purchase.undone_by) == (
        None,
        100,
        0,
        None,
    )


def test_a_void_stands_when_its_money_is_spent() -> None:
    purchase = an_entry(undone_by=51)
    void = an_entry(Kind.VOID, entry_no=51, original_entry=50)
    account = an_account(99)
    facts = some_facts(account, original=void, entry_of={50: purchase}.get)
    assert rules.reversal(a_reversal(of=Kind.VOID), facts).decline is Decline.NOT_APPLICABLE
    assert (account.balance_fen, purchase.undone_by) == (99, 51)
