"""A loss is reported by a command, or in one process; the card is used in another."""

import json

import pytest

from tests.helpers.till import Seen, Till
from tests.scenarios.conftest import Two

pytestmark = pytest.mark.server


async def test_a_loss_reported_beside_one_process_is_known_to_the_other_at_once(two: Two, seen: Seen) -> None:
    one = await Till(two.town.new_terminal(), seen, two.one.line).sign_on()
    other = await Till(two.town.new_terminal(), seen, two.other.line).sign_on()
    card = two.town.new_card()
    held = one.pos.pre_authorisation(card, 500)
    answer = await one.ask(held)
    assert (await other.buy(card, 100)).fields[39] == "00"

    text = two.town.run("card", "lose", card.pan, "--reason", "left on a bus", "--actor", "desk 3")
    assert "purse" in text
    assert "not affected" in text
    assert card.pan not in text
    for till in (one, other):
        assert (await till.buy(card, 100)).fields[39] == "41"
        assert await till.code(till.pos.pre_authorisation(card, 1)) == "41"
        assert await till.code(till.pos.balance(card)) == "41"
    shown = json.loads(two.town.run("card", "show", card.pan, "--json"))
    assert (shown["state"], shown["report_lapsed"]) == ("LOSS_TEMP", False)

    # What was promised before the report is kept, and no more than that.
    named = f"{held.fields[60][2:8]}{held.fields[11]}{answer.fields[13]}"
    fields = {n: held.fields[n] for n in (2, 4, 22, 25, 41, 42, 49)} | {
        3: "001000",
        38: answer.fields[38],
        60: "20" + held.fields[60][2:],
        61: named,
    }

    def completion(fen: int) -> dict[int, str]:
        return fields | {4: f"{fen:012d}", 11: f"{one.pos.next_trace():06d}"}

    assert await one.code(one.raw("0200", completion(501))) == "41"
    assert await one.code(one.raw("0200", completion(500))) == "00"

    two.town.run("card", "lift", card.pan, "--reason", "found again", "--actor", "desk 3")
    assert (await other.buy(card, 100)).fields[39] == "00"


async def test_a_formal_report_is_not_lifted_without_the_holder_and_a_replaced_card_never(
    two: Two, seen: Seen
) -> None:
    till = await Till(two.town.new_terminal(), seen, two.other.line).sign_on()
    card = two.town.new_card()
    two.town.run("card", "lose", card.pan, "--formal", "--reason", "in writing")
    assert (await till.buy(card, 100)).fields[39] == "41"
    with pytest.raises(AssertionError, match="identity document"):
        two.town.run("card", "lift", card.pan, "--reason", "asked by telephone")
    two.town.run("card", "replace", card.pan, "--reason", "new card handed over")
    assert (await till.buy(card, 100)).fields[39] == "62"
    with pytest.raises(AssertionError, match="REPLACED"):
        two.town.run("card", "lift", card.pan, "--reason", "found", "--evidence", "identity document, card")
