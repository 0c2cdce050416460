"""The city's bank: what the switch is told of it and what it has in its own books are one thing."""

import json
from datetime import date
from pathlib import Path

from switch.registry.import_files import Faults, Source, read_files
from switch.settings import HostSettings
from terminal_sim.city import bank
from terminal_sim.city.papers import registry, rehearsal_keys
from terminal_sim.city.plan import CardState, draw_city
from terminal_sim.host.command import read_secrets

TODAY = date(2026, 3, 2)


def test_a_quarter_of_the_good_cards_have_a_bank_card_each_the_same_from_the_same_seed() -> None:
    plan = draw_city(7, 300, TODAY)
    bound = bank.bound_cards(plan)
    good = [card for card in plan.cards if card.state is CardState.GOOD]
    assert len(bound) == -(-len(good) // bank.BOUND_EVERY)
    assert len({one.number for one in bound}) == len({one.card.pan for one in bound}) == len(bound)
    again = draw_city(7, 300, TODAY)
    assert bank.bindings(plan) == bank.bindings(again)
    assert bank.secrets(plan) == bank.secrets(again) != bank.secrets(draw_city(8, 300, TODAY))
    assert bound[0].number not in repr(bound)


def test_every_binding_leads_to_an_account_and_can_be_read_by_the_switch(tmp_path: Path) -> None:
    plan = draw_city(7, 300, TODAY)
    accounts = {account.pan for account in bank.accounts(plan)}
    assert [one["bank_card"] in accounts for one in bank.bindings(plan)] == [True] * len(accounts)
    path, faults = tmp_path / "city.json", Faults()
    path.write_text(json.dumps(registry(plan)), encoding="utf-8")
    rows = [row for row in read_files([Source(path)], faults) if row.kind.name == "bindings"]
    assert faults.found == []
    assert len(rows) == len(accounts)


def test_switch_and_bank_read_the_same_keys(tmp_path: Path) -> None:
    plan = draw_city(7, 300, TODAY)
    path = tmp_path / "keys.json"
    path.write_text(json.dumps(rehearsal_keys(plan)))
    assert read_secrets(path, bank.BANK, bank.MAC_ID) == bank.secrets(plan)
    assert HostSettings.model_validate(bank.host_settings(9583)).institution == bank.BANK
