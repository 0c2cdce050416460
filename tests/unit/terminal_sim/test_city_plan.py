"""The drawn city: the same from the same seed, and told to the switch in its own forms."""

from datetime import date
from pathlib import Path

import pytest

from switch.domain.errors import InputRefused
from switch.domain.identifiers import luhn_holds
from terminal_sim.city.house import LOCK, MARKER, claim
from terminal_sim.city.papers import describe, registry, rehearsal_keys
from terminal_sim.city.plan import CardState, FeeRule, draw_city

TODAY = date(2026, 3, 2)


def test_the_same_seed_draws_the_same_city_and_another_seed_another() -> None:
    first, again, other = (describe(draw_city(seed, 300, TODAY)) for seed in (1, 1, 2))
    assert first == again
    assert first["keys"] != other["keys"]
    assert [c["pan"] for c in first["cards"]][:20] == [c["pan"] for c in other["cards"]][:20]


def test_the_full_city_has_every_mac_algorithm_and_every_state_of_card() -> None:
    plan = draw_city(3, 6_000, TODAY)
    assert len(plan.tills) == 40
    assert len(plan.vehicles) == 20
    assert len(plan.cards) >= 2_000
    assert {terminal.mac_id for terminal in plan.tills} == {1, 2, 3, 4, 5}
    assert {terminal.mac_id for terminal in plan.guests} == {1, 2, 3, 4, 5}
    assert {card.state for card in plan.cards} == set(CardState)
    assert all(luhn_holds(card.pan) for card in plan.cards)


def test_numbers_name_one_thing_each() -> None:
    plan = draw_city(4, 6_000, TODAY)
    for numbers in (
        [terminal.terminal_id for terminal in plan.terminals],
        [*(vehicle.psam_no for vehicle in plan.vehicles), *(kiosk.psam_no for kiosk in plan.kiosks)],
        [card.pan for card in (*plan.cards, *plan.guest_cards, *plan.foreign_cards)],
        [merchant.merchant_id for merchant in plan.everybody],
    ):
        assert len(numbers) == len(set(numbers))


def test_a_replaced_card_shares_its_holder_with_the_new_one() -> None:
    plan = draw_city(5, 300, TODAY)
    old = [card for card in plan.cards if card.state is CardState.REPLACED]
    assert old
    for card in old:
        assert [c.state for c in plan.cards if c.holder is card.holder] == [
            CardState.REPLACED,
            CardState.GOOD,
        ]


def test_foreign_cards_are_not_told_to_the_switch() -> None:
    plan = draw_city(6, 300, TODAY)
    told = {card["pan"] for card in registry(plan)["cards"]}
    assert told.isdisjoint(card.pan for card in plan.foreign_cards)


def test_kiosks_take_cash_and_nobody_else_does() -> None:
    plan = draw_city(6, 6_000, TODAY)
    marked = [one["terminal_id"] for one in registry(plan)["terminals"] if one["cash_loads"]]
    assert marked == [kiosk.terminal.terminal_id for kiosk in plan.kiosks]
    assert len(marked) == 4
    assert {len(kiosk.psam_no) for kiosk in plan.kiosks} == {12}


def test_keys_appear_in_no_repr() -> None:
    plan = draw_city(7, 300, TODAY)
    secrets = [entry["components"][0] for entry in rehearsal_keys(plan)["keys"]]
    shown = repr(plan).upper()
    assert not any(secret in shown for secret in secrets)
    assert not any(f"'{card.holder.pin}'" in shown for card in plan.cards if card.holder.pin)
    assert plan.tills[0].tmk.hex().upper() not in shown


@pytest.mark.parametrize(
    ("rule", "amount_fen", "fee_fen"),
    [
        (FeeRule("ONLINE", 6_000), 83, 0),
        (FeeRule("ONLINE", 6_000), 84, 1),
        (FeeRule("ONLINE", 6_000, cap_fen=2_000), 1_000_000, 2_000),
        (FeeRule("ONLINE", 2_500, minimum_fen=1), 100, 1),
        (FeeRule("ONLINE", 2_500, minimum_fen=1), 0, 0),
        (FeeRule("ONLINE", 0, minimum_fen=500), 100, 100),
        (FeeRule("ONLINE", 6_000), -84, -1),
    ],
)
def test_fees_round_half_up_within_their_bounds_and_go_back_with_their_sign(
    rule: FeeRule, amount_fen: int, fee_fen: int
) -> None:
    assert rule.fee_fen(amount_fen) == fee_fen


def test_the_most_specific_fee_rule_counts() -> None:
    plan = draw_city(8, 300, TODAY)
    by_category = {merchant.trade.category: merchant.merchant_id for merchant in plan.merchants}
    rates = {
        category: rule.rate_ppm
        for category in ("5411", "5942", "5812")
        if (rule := plan.fee_rule(by_category[category], "ONLINE")) is not None
    }
    assert rates == {"5411": 3_800, "5942": 2_500, "5812": 6_000}


def test_only_an_empty_folder_or_an_older_city_is_cleared(tmp_path: Path) -> None:
    strange = tmp_path / "strange"
    strange.mkdir()
    (strange / "books").write_text("precious")
    with pytest.raises(InputRefused, match="something else"):
        claim(strange)
    assert (strange / "books").read_text() == "precious"
    older = tmp_path / "older"
    older.mkdir()
    (older / MARKER).write_text("{}")
    (older / "postgres").mkdir()
    with claim(older):
        assert [entry.name for entry in older.iterdir()] == [LOCK]
        with pytest.raises(InputRefused, match="alive"):
            claim(older)
