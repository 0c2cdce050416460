"""Pre-authorisation and what can follow it, as tables that a card specialist can review."""

from datetime import UTC, date, datetime, timedelta

import pytest

from switch.domain.calendar import SHANGHAI
from switch.domain.decisions import Decline
from switch.domain.identifiers import CardNumber
from switch.domain.money import Fen
from switch.domain.transactions import (
    AccountKind,
    Completion,
    CompletionVoid,
    Kind,
    Original,
    PreAuthorisation,
    PreAuthorisationVoid,
    Reversal,
)
from switch.ledger import holds, rules
from switch.ledger.rules import Account, Card, CardStatus, Entry, Facts, Hold, Movement, Ruling

NOW = datetime(2026, 11, 23, 4, 0, tzinfo=UTC)
PAN = CardNumber("3133500100000001239")
HOLDER, MERCHANT = 7, 5
ONLINE = HOLDER * 100 + 10
ACTIVE = Card(CardStatus.ACTIVE, date(2020, 1, 1), date(2030, 1, 1), None)
LOST = ACTIVE._replace(status=CardStatus.LOSS_TEMP, lost_at=NOW)
OPENED, TAKEN = 50, 60  # entry numbers of the pre-authorisation and its completion
NAMES_HOLD, NAMES_COMPLETION = Original(1, 1, 11, 23), Original(1, 2, 11, 23)


class Story:
    """One account in memory, decided one request after the other as the book does."""

    def __init__(self, balance_fen: int = 1_000, *, card: Card = ACTIVE) -> None:
        self.account = Account(ONLINE, balance_fen, False, None, 0)
        self.entries: dict[int, Entry] = {}
        self.facts = Facts(NOW, NOW.date(), merchant_no=MERCHANT, card=card, holder_id=HOLDER)
        self.facts.account = self.account
        self.facts.entry_of = self.entries.get

    @property
    def hold(self) -> Hold:
        return self.facts.holds[OPENED]

    @property
    def money(self) -> tuple[int, int]:
        """Balance and what of it is frozen."""
        return self.account.balance_fen, self.account.held_fen

    def booked(self, number: int, kind: Kind, fen: int, ruling: Ruling, request_no: int = 0) -> Ruling:
        """Keep a ruling as the journal would."""
        if ruling.decline is None:
            original = ruling.original.entry_no if ruling.original else None
            self.entries[number] = Entry(
                number,
                NOW.date(),
                kind,
                ONLINE,
                PAN.reveal(),
                fen,
                ruling.effect_fen,
                "00",
                f"R{request_no or number:011d}",
                "CODE01" if ruling.auth_code is None else ruling.auth_code,
                NOW,
                b"d" * 32,
                None,
                NOW.date() if original else None,
                original,
            )
        return ruling

    def open(self, fen: int = 400, account: AccountKind = AccountKind.ONLINE) -> Ruling:
        self.facts.serial = OPENED
        ruling = holds.pre_authorise(PreAuthorisation(PAN, account, Fen(fen), None, "051"), self.facts)
        return self.booked(OPENED, Kind.PRE_AUTHORISATION, fen, ruling)

    def complete(self, fen: int, number: int = TAKEN, code: str = "CODE01", advice: bool = False) -> Ruling:
        self.facts.serial, self.facts.original = number, self.entries.get(OPENED)
        request = Completion(PAN, AccountKind.ONLINE, Fen(fen), NAMES_HOLD, code, "051", advice)
        return self.booked(number, Kind.COMPLETION, fen, holds.complete(request, self.facts))

    def void(self, fen: int = 400, number: int = 70, code: str = "CODE01") -> Ruling:
        self.facts.serial, self.facts.original = number, self.entries.get(OPENED)
        request = PreAuthorisationVoid(PAN, AccountKind.ONLINE, Fen(fen), NAMES_HOLD, code, "051")
        ruling = holds.void_pre_authorisation(request, self.facts)
        return self.booked(number, Kind.PRE_AUTHORISATION_VOID, fen, ruling)

    def void_completion(self, fen: int, number: int = 80, open_batch: int = 1) -> Ruling:
        self.facts.serial, self.facts.original = number, self.entries.get(TAKEN)
        request = CompletionVoid(
            PAN, AccountKind.ONLINE, Fen(fen), NAMES_COMPLETION, f"R{TAKEN:011d}", "CODE01", "051"
        )
        ruling = holds.void_completion(request, self.facts, open_batch)
        return self.booked(number, Kind.COMPLETION_VOID, fen, ruling)

    def reverse(self, number: int, kind: Kind, fen: int, *, closed: bool = False) -> Ruling:
        self.facts.serial, self.facts.original = 90 + number, self.entries[number]
        self.facts.original_batch_closed = closed
        request = Reversal(PAN, AccountKind.ONLINE, Fen(fen), NAMES_HOLD, kind, "98", "051", "000000")
        return rules.reversal(request, self.facts, holds.undo)

    def spend(self, fen: int) -> None:
        self.account.balance_fen -= fen


def told(ruling: Ruling) -> str:
    return ruling.decline.name if ruling.decline else "APPROVED"


#   account  card    balance  amount  answer
OPENINGS = """
    ONLINE   ok         1000    1000  APPROVED
    ONLINE   ok         1000    1001  FUNDS_INSUFFICIENT
    ONLINE   ok         1000       0  AMOUNT_INVALID
    ONLINE   lost       1000    1001  CARD_LOST
    MEDICAL  ok         1000       1  ACCOUNT_NOT_PERMITTED
    PURSE    ok         1000       1  ACCOUNT_NOT_PERMITTED
    MEDICAL  lost       1000       1  CARD_LOST
    BANK     ok         1000       1  NO_ROUTE
"""


@pytest.mark.parametrize("line", [line for line in OPENINGS.splitlines() if line.strip()])
def test_pre_authorisation_table(line: str) -> None:
    account, card, balance, amount, answer = line.split()
    story = Story(int(balance), card=LOST if card == "lost" else ACTIVE)
    assert told(story.open(int(amount), AccountKind[account])) == answer
    approved = answer == "APPROVED"
    assert story.money == (int(balance), int(amount) if approved else 0)
    assert bool(story.facts.holds) == approved


#   held  balance  card  amount  answer              balance after
COMPLETIONS = """
    400      1000  ok       400  APPROVED                      600
    400      1000  ok         1  APPROVED                      999
    400      1000  ok       460  APPROVED                      540
    400      1000  ok       461  LIMIT_AMOUNT                 1000
    400      1000  ok         0  AMOUNT_INVALID               1000
    400       459  ok       460  FUNDS_INSUFFICIENT            459
    400       460  ok       460  APPROVED                        0
    400       400  ok       401  FUNDS_INSUFFICIENT            400
    400      1000  lost     400  APPROVED                      600
    400      1000  lost     401  CARD_LOST                    1000
    100      1000  ok       115  APPROVED                      885
    100      1000  ok       116  LIMIT_AMOUNT                 1000
    3        1000  ok         3  APPROVED                      997
    3        1000  ok         4  LIMIT_AMOUNT                 1000
"""


@pytest.mark.parametrize("line", [line for line in COMPLETIONS.splitlines() if line.strip()])
def test_completion_table(line: str) -> None:
    held, balance, card, amount, answer, after = line.split()
    story = Story(int(balance))
    assert story.open(int(held)).decline is None
    story.facts.card = LOST if card == "lost" else ACTIVE
    ruling = story.complete(int(amount))
    assert told(ruling) == answer
    approved = answer == "APPROVED"
    assert story.money == (int(after), 0 if approved else int(held))
    if approved:
        assert ruling.movement == Movement((2001, ONLINE), (2101, MERCHANT), int(amount))
        assert (ruling.effect_fen, ruling.auth_code) == (int(amount), "CODE01")
        assert (story.hold.ended_by, story.hold.completed_by) == (TAKEN, TAKEN)


def test_a_hold_ends_once_and_what_comes_then_is_12() -> None:
    for first in ("complete", "void"):
        story = Story()
        story.open()
        assert told(story.complete(400) if first == "complete" else story.void()) == "APPROVED"
        after = story.money
        assert told(story.complete(400, number=61)) == "NOT_APPLICABLE"
        assert told(story.void(number=71)) == "NOT_APPLICABLE"
        assert told(story.reverse(OPENED, Kind.PRE_AUTHORISATION, 400)) == "NOT_APPLICABLE"
        assert story.money == after


def test_a_wrong_code_amount_or_holder_frees_nothing() -> None:
    story = Story()
    story.open()
    assert told(story.void(code="CODE02")) == "ORIGINAL_UNKNOWN"
    assert told(story.complete(400, code="CODE02")) == "ORIGINAL_UNKNOWN"
    assert told(story.void(fen=399)) == "ORIGINAL_AMOUNT"
    story.facts.holder_id = HOLDER + 1
    assert told(story.complete(400)) == "ORIGINAL_UNKNOWN"
    assert story.money == (1_000, 400)


#   placed, in Shanghai      the last instant         the first after it
DAYS = """
    2026-11-23T12:00:00      2026-12-23T23:59:59      2026-12-24T00:00:00
    2026-11-23T00:00:00      2026-12-23T23:59:59      2026-12-24T00:00:00
    2026-11-23T23:59:59      2026-12-23T23:59:59      2026-12-24T00:00:00
    2027-02-01T08:00:00      2027-03-03T23:59:59      2027-03-04T00:00:00
    2028-02-01T08:00:00      2028-03-02T23:59:59      2028-03-03T00:00:00
"""


@pytest.mark.parametrize("line", [line for line in DAYS.splitlines() if line.strip()])
def test_thirty_days_are_counted_without_the_first_and_with_the_whole_of_the_last(line: str) -> None:
    placed, last, over = (datetime.fromisoformat(text).replace(tzinfo=SHANGHAI) for text in line.split())
    assert holds.expiry_of(placed) == over
    for now, answer in ((last, "APPROVED"), (over, "ORIGINAL_UNKNOWN")):
        story = Story()
        story.facts.now = placed
        story.open()
        story.facts.now = now
        assert told(story.complete(400)) == answer
        story.facts.now = placed


def test_an_expired_hold_is_released_once_and_the_next_due_one_is_named() -> None:
    story = Story()
    story.open()
    later = Hold(51, NOW.date(), ONLINE, 100, 100, NOW + timedelta(days=90))
    story.facts.holds[51] = later
    story.account.held_fen += 100
    over = story.hold.expires_at
    holds.release_expired(story.account, story.facts.holds.values(), over - timedelta(microseconds=1))
    assert (story.money, story.account.holds_due) == ((1_000, 500), over)
    for _ in range(2):
        holds.release_expired(story.account, story.facts.holds.values(), over)
        assert (story.money, story.account.holds_due) == ((1_000, 100), later.expires_at)
    assert (story.hold.ended_by, later.ended_by) == (holds.EXPIRED, None)


def test_a_reversed_or_voided_completion_freezes_again_and_can_be_completed_again() -> None:
    for undo in ("reversal", "void"):
        story = Story()
        story.open(400)
        story.complete(300)
        assert story.money == (700, 0)
        if undo == "reversal":
            ruling = story.reverse(TAKEN, Kind.COMPLETION, 300)
        else:
            ruling = story.void_completion(300)
        assert (told(ruling), ruling.effect_fen) == ("APPROVED", -300)
        assert ruling.movement == Movement((2101, MERCHANT), (2001, ONLINE), 300)
        assert story.money == (1_000, 400)
        assert told(story.complete(460, number=61)) == "APPROVED"
        assert story.money == (540, 0)


def test_freezing_again_takes_what_the_holder_has_left_and_the_answer_is_the_same() -> None:
    story = Story(400)
    story.open(400)
    story.complete(300)
    story.spend(60)  # of the 100 that were set free
    assert told(story.reverse(TAKEN, Kind.COMPLETION, 300)) == "APPROVED"
    assert story.money == (340, 340)
    assert told(story.complete(341, number=61)) == "FUNDS_INSUFFICIENT"
    assert told(story.complete(340, number=61)) == "APPROVED"
    assert story.money == (0, 0)


def test_a_completion_is_voided_once_whole_and_in_its_batch() -> None:
    story = Story()
    story.open()
    story.complete(300)
    assert told(story.void_completion(299)) == "ORIGINAL_AMOUNT"
    assert told(story.void_completion(300, open_batch=2)) == "NOT_APPLICABLE"
    assert told(story.void_completion(300)) == "APPROVED"
    assert told(story.void_completion(300, number=81)) == "NOT_APPLICABLE"
    assert story.money == (1_000, 400)


def test_a_reversed_completion_void_takes_the_money_again_unless_the_hold_has_gone_another_way() -> None:
    story = Story()
    story.open()
    story.complete(300)
    story.void_completion(300)
    assert told(story.reverse(80, Kind.COMPLETION_VOID, 300)) == "APPROVED"
    assert story.money == (700, 0)
    assert (story.hold.ended_by, story.entries[TAKEN].undone_by) == (TAKEN, None)

    story = Story()
    story.open()
    story.complete(300)
    story.void_completion(300)
    story.complete(400, number=61)
    assert told(story.reverse(80, Kind.COMPLETION_VOID, 300)) == "NOT_APPLICABLE"
    assert story.money == (600, 0)


def test_a_completion_counts_again_when_its_void_is_reversed_after_the_last_day() -> None:
    for voided_late in (False, True):
        story = Story()
        story.open()
        story.complete(300)
        over = story.hold.expires_at
        if voided_late:
            story.facts.now = over
        story.void_completion(300)
        story.facts.now = over
        holds.release_expired(story.account, story.facts.holds.values(), over)
        assert (story.money, story.hold.ended_by) == ((1_000, 0), holds.EXPIRED)
        assert told(story.reverse(80, Kind.COMPLETION_VOID, 300)) == "APPROVED"
        assert (story.money, story.hold.ended_by) == ((700, 0), TAKEN)
        assert story.entries[TAKEN].undone_by is None
        assert told(story.void_completion(300, number=81)) == "APPROVED"
        assert (story.money, story.hold.ended_by) == ((1_000, 0), holds.EXPIRED)


def test_after_the_last_day_a_completion_does_not_count_again_without_money_or_promise() -> None:
    for what_went in ("money", "promise"):
        story = Story()
        story.open()
        story.complete(300)
        story.facts.now = story.hold.expires_at
        story.void_completion(300)
        if what_went == "money":
            story.spend(701)
        else:
            assert told(story.reverse(OPENED, Kind.PRE_AUTHORISATION, 400)) == "APPROVED"
        before = story.money
        assert told(story.reverse(80, Kind.COMPLETION_VOID, 300)) == "NOT_APPLICABLE"
        assert (story.money, story.entries[TAKEN].undone_by) == (before, 80)


def test_a_reversed_void_freezes_again_and_a_late_one_does_not() -> None:
    story = Story()
    story.open()
    story.void()
    assert story.money == (1_000, 0)
    assert told(story.reverse(70, Kind.PRE_AUTHORISATION_VOID, 400, closed=True)) == "APPROVED"
    assert story.money == (1_000, 400)

    story = Story()
    story.open()
    story.void()
    story.facts.now = story.hold.expires_at
    assert told(story.reverse(70, Kind.PRE_AUTHORISATION_VOID, 400)) == "APPROVED"
    assert (story.money, story.hold.ended_by) == ((1_000, 0), holds.EXPIRED)


def test_setting_a_hold_free_is_never_too_late_but_money_of_a_closed_batch_stays() -> None:
    story = Story()
    story.open()
    assert told(story.reverse(OPENED, Kind.PRE_AUTHORISATION, 400, closed=True)) == "APPROVED"
    assert story.money == (1_000, 0)
    story = Story()
    story.open()
    story.complete(300)
    assert told(story.reverse(TAKEN, Kind.COMPLETION, 300, closed=True)) == "NOT_APPLICABLE"
    assert story.money == (700, 0)


def test_a_completion_undone_for_a_cancelled_card_goes_to_suspense_and_its_hold_stays_ended() -> None:
    story = Story()
    story.open()
    story.complete(300)
    story.facts.card = ACTIVE._replace(status=CardStatus.CANCELLED)
    ruling = story.reverse(TAKEN, Kind.COMPLETION, 300)
    assert ruling.movement == Movement((2101, MERCHANT), (2201, 0), 300)
    assert (story.money, story.hold.ended_by) == ((700, 0), 90 + TAKEN)


def test_frozen_money_buys_nothing_else() -> None:
    story = Story(1_000)
    story.open(700)
    purchase = rules.Purchase(PAN, AccountKind.ONLINE, Fen(301), None, "051")
    assert rules.purchase(purchase, story.facts).decline is Decline.FUNDS_INSUFFICIENT
    assert rules.purchase(purchase._replace(amount_fen=Fen(300)), story.facts).decline is None
    assert story.money == (700, 700)
    ruling = rules.balance(rules.Balance(PAN, AccountKind.ONLINE, None, "051"), story.facts)
    assert [figure.amount_fen for figure in ruling.balances] == [700, 0]


def test_an_account_has_a_hundred_holds_and_no_more() -> None:
    story = Story()
    for number in range(holds.HOLDS_MAX):
        story.facts.holds[1_000 + number] = Hold(
            1_000 + number, NOW.date(), ONLINE, 1, 1, NOW + timedelta(days=1)
        )
    assert told(story.open(1)) == "LIMIT_COUNT"
