"""Every decline that a till can meet in an online payment, over the wire, as a table a card specialist could review."""

import json

import psycopg
import pytest

from switch.domain.identifiers import luhn_digit
from switch.domain.transactions import AccountKind
from switch.messages.message import Message
from terminal_sim.frames import CardData
from tests.helpers.till import Seen, Till, stored
from tests.helpers.town import OPENING_FEN, PIN, pan_of
from tests.scenarios.conftest import Two

pytestmark = pytest.mark.server

UNKNOWN = "313350019999999999"  # without its check digit


async def till_of(two: Two, seen: Seen, mac_id: int = 5) -> Till:
    return await Till(two.town.new_terminal(mac_id), seen, two.one.line).sign_on()


def is_decline(answer: Message) -> bool:
    """A decline shows no authorisation code and no clearing date, and has a reference of its own."""
    return not {15, 38, 54} & answer.fields.keys() and 37 in answer.fields


@pytest.mark.parametrize(
    ("kind", "account", "amount_fen", "code"),
    [
        ("plain", AccountKind.ONLINE, OPENING_FEN, "00"),
        ("plain", AccountKind.ONLINE, OPENING_FEN + 1, "51"),
        ("plain", AccountKind.ONLINE, 0, "13"),
        ("plain", AccountKind.MEDICAL, 1, "57"),
        ("plain", AccountKind.PURSE, 1, "40"),
        ("plain", AccountKind.BANK, 1, "57"),
        ("not active", AccountKind.ONLINE, 1, "21"),
        ("lost", AccountKind.ONLINE, 1, "41"),
        ("damaged", AccountKind.ONLINE, 1, "62"),
        ("expired", AccountKind.ONLINE, 1, "54"),
        ("expired", AccountKind.ONLINE, 0, "13"),
        ("medical only", AccountKind.ONLINE, 1, "57"),
        ("medical only", AccountKind.MEDICAL, OPENING_FEN, "00"),
        ("pin", AccountKind.ONLINE, 1, "55"),
    ],
)
async def test_purchase(
    two: Two, seen: Seen, kind: str, account: AccountKind, amount_fen: int, code: str
) -> None:
    till = await till_of(two, seen)
    town = two.town
    card = town.new_card(kind)
    town._free[kind].append(
        int(card.pan[8:18])
    )  # special cards are few, and only "plain" ones lose money here
    if kind in ("plain", "medical only"):
        town._free[kind].pop()
    purchase = till.pos.purchase(card, amount_fen, account=account)
    answer = await till.ask(purchase)
    assert answer.fields[39] == code
    assert (code == "00") != is_decline(answer)
    assert stored(await till.ask(purchase, two.other.line)) == stored(answer)


async def test_a_card_that_nobody_has_is_14_and_so_is_one_without_its_check_digit(
    two: Two, seen: Seen
) -> None:
    till = await till_of(two, seen)
    wrong = str((int(luhn_digit(UNKNOWN)) + 1) % 10)
    for last in (luhn_digit(UNKNOWN), wrong):
        answer = await till.buy(CardData(UNKNOWN + last), 100)
        assert answer.fields[39] == "14"
        assert is_decline(answer)


async def test_cash_withdrawal_is_57_and_a_deposit_or_an_unknown_code_is_40(two: Two, seen: Seen) -> None:
    till = await till_of(two, seen)
    card = two.town.new_card()
    for code, expected in (("011000", "57"), ("211000", "40"), ("991000", "40")):
        purchase = till.pos.purchase(card, 100)
        request = purchase._replace(fields=purchase.fields | {3: code})
        answer = await till.ask(request)
        assert answer.fields[39] == expected
        assert stored(await till.ask(request, two.other.line)) == stored(answer)


@pytest.mark.parametrize("mac_id", [1, 2, 3, 4, 5])
async def test_pins_of_every_kind_of_terminal(two: Two, seen: Seen, mac_id: int) -> None:
    till = await till_of(two, seen, mac_id)
    card = two.town.new_card("pin")
    assert (await till.buy(card, 100, pin=PIN)).fields[39] == "00"
    assert (await till.buy(card, 100, pin="654321")).fields[39] == "55"
    assert (await till.buy(card, 100)).fields[39] == "55"
    if mac_id <= 3:
        assert (await till.buy(card, 100, pin=PIN, with_pan=False)).fields[39] == "00"
    answer = await till.ask(till.pos.balance(card, pin=PIN))
    left = OPENING_FEN - (200 if mac_id <= 3 else 100)
    assert answer.fields[54] == "".join(f"10{kind}156C{left:012d}" for kind in ("01", "02"))


async def test_a_pin_block_that_opens_to_no_pin_is_99_and_does_not_count_as_a_wrong_pin(
    two: Two, seen: Seen
) -> None:
    till = await till_of(two, seen, 1)
    card = two.town.new_card("pin")
    for number in range(8):
        purchase = till.pos.purchase(card, 100, pin=PIN)
        spoilt = purchase._replace(fields=purchase.fields | {52: bytes([number]) * 8})
        assert await till.code(spoilt) == "99"
    assert (await till.buy(card, 100, pin=PIN)).fields[39] == "00"


async def test_six_wrong_pins_over_both_processes_block_and_a_right_one_between_forgets_them(
    two: Two, seen: Seen
) -> None:
    till = await till_of(two, seen)
    card = two.town.new_card("pin")
    lines = (two.one.line, two.other.line)
    for turn in range(5):
        assert (await till.buy(card, 100, lines[turn % 2], pin="000000")).fields[39] == "55"
    assert (await till.buy(card, 100, pin=PIN)).fields[39] == "00"
    wrong = [till.pos.purchase(card, 100, pin="000000") for _ in range(6)]
    for turn, request in enumerate(wrong):
        assert await till.code(request, lines[turn % 2]) == "55"
        assert await till.code(request, lines[turn % 2 - 1]) == "55"  # a repeat is not another try
    for pin in (PIN, "000000", None):
        assert (await till.buy(card, 100, pin=pin)).fields[39] == "75"


async def test_a_balance_shows_ledger_and_available_and_needs_the_pin(two: Two, seen: Seen) -> None:
    till = await till_of(two, seen)
    card = two.town.new_card()
    assert (await till.buy(card, 1_234)).fields[39] == "00"
    request = till.pos.balance(card)
    answer = await till.ask(request)
    assert answer.fields[54] == "1001156C000000008766" + "1002156C000000008766"
    assert not {4, 15, 38} & answer.fields.keys()
    assert (await till.buy(card, 1)).fields[39] == "00"
    assert (await till.ask(request, two.other.line)).fields[54] == answer.fields[54]  # what was told then
    with_pin = two.town.new_card("pin")
    assert await till.code(till.pos.balance(with_pin)) == "55"
    assert await till.code(till.pos.balance(with_pin, pin=PIN)) == "00"


async def test_voids_that_cannot_be(two: Two, seen: Seen) -> None:
    till = await till_of(two, seen)
    card = two.town.new_card()
    assert (await till.buy(card, 1_000)).fields[39] == "00"
    receipt = till.pos.batch.receipts[0]
    void = till.pos.void(receipt)
    for changes, code in (
        ({4: "000000000999"}, "64"),
        ({37: "000000000000"}, "25"),
        ({38: "ZZZZZZ"}, "25"),
        ({61: void.fields[61][:6] + "999999" + void.fields[61][12:]}, "25"),
        ({61: "000099" + void.fields[61][6:]}, "25"),
        ({2: two.town.card_in_the_shard_of(card).pan}, "25"),
    ):
        other = till.pos.void(receipt)
        answer = await till.ask(other._replace(fields=other.fields | changes))
        assert answer.fields[39] == code, changes
        assert is_decline(answer)
    assert await till.code(void) == "00"
    assert await till.code(till.pos.void(receipt)) == "12"
    declined = await till.buy(card, OPENING_FEN + 1)
    again = void.fields | {
        4: f"{OPENING_FEN + 1:012d}",
        11: f"{till.pos.next_trace():06d}",
        37: declined.fields[37],
        61: f"{till.pos.batch_no:06d}{declined.fields[11]}{declined.fields[13]}",
    }
    assert await till.code(till.raw("0200", again)) == "12"  # there is nothing to void


async def test_a_void_belongs_to_its_terminal_and_its_batch(two: Two, seen: Seen) -> None:
    till, neighbour = await till_of(two, seen), await till_of(two, seen)
    card = two.town.new_card()
    assert (await till.buy(card, 1_000)).fields[39] == "00"
    receipt = till.pos.batch.receipts[0]
    fields = till.pos.void(receipt).fields | {41: neighbour.terminal.terminal_id}
    assert await neighbour.code(neighbour.raw("0200", fields)) == "25"
    assert await till.code(till.pos.settlement()) == "00"
    assert await till.code(till.pos.batch_end(balanced=True)) == "00"
    await till.sign_on()
    assert await till.code(till.pos.void(receipt)) == "12"
    assert await till.code(till.pos.refund(receipt, 400)) == "00"  # of any batch


async def test_refunds_add_up_to_the_original_at_most_whichever_process_they_come_by(
    two: Two, seen: Seen
) -> None:
    till = await till_of(two, seen)
    card = two.town.new_card()
    assert (await till.buy(card, 1_000)).fields[39] == "00"
    receipt = till.pos.batch.receipts[0]
    codes = []
    for turn in range(5):
        line = (two.one.line, two.other.line)[turn % 2]
        codes.append(await till.code(till.pos.refund(receipt, 300), line))
    assert codes == ["00", "00", "00", "64", "64"]
    assert await till.code(till.pos.refund(receipt, 0)) == "13"
    assert await till.code(till.pos.refund(receipt, 100)) == "00"
    assert await till.code(till.pos.refund(receipt, 1)) == "64"
    assert await till.code(till.pos.void(receipt)) == "12"
    wrong = till.pos.refund(receipt, 1)
    assert await till.code(wrong._replace(fields=wrong.fields | {37: "000000000000"})) == "25"
    assert (await till.buy(card, OPENING_FEN)).fields[39] == "00"


async def test_a_loss_reported_counts_from_its_instant_in_every_process(two: Two, seen: Seen) -> None:
    till = await till_of(two, seen)
    card = two.town.new_card()
    approved = till.pos.purchase(card, 100)
    first = await till.ask(approved)
    assert first.fields[39] == "00"
    assert (await till.buy(card, 100, two.other.line)).fields[39] == "00"
    document = {
        "format": "citizen-card-registry",
        "version": 1,
        "cards": [
            {
                "pan": card.pan,
                "valid_from": "2024-01-01",
                "valid_through": "2044-01-01",
                "state": "LOSS_FORMAL",
            }
        ],
    }
    file = two.town.folder / "loss.json"
    file.write_text(json.dumps(document))
    two.town.run("registry", "import", str(file))
    for line in (two.one.line, two.other.line):
        assert (await till.buy(card, 100, line)).fields[39] == "41"
    assert stored(await till.ask(approved)) == stored(first)
    receipt = till.pos.batch.receipts[0]
    assert await till.code(till.pos.void(receipt)) == "00"  # back to its holder, lost card or not


async def test_a_frozen_account_is_62(two: Two, seen: Seen) -> None:
    till = await till_of(two, seen)
    card = two.town.new_card()
    with psycopg.connect(two.town.database_url) as connection:
        connection.execute(
            "UPDATE account SET frozen = true FROM card_route r WHERE r.pan = %s AND r.shard = account.shard"
            " AND r.holder_id = account.holder_id",
            [card.pan],
        )
    for line in (two.one.line, two.other.line):
        assert (await till.buy(card, 1, line)).fields[39] == "62"


def test_card_numbers_of_the_town_pass_their_check_digit() -> None:
    assert pan_of(7)[-1] == luhn_digit(pan_of(7)[:-1])
