"""Every APDU of the purse's known answers, byte for byte, against the card and PSAM machines."""

import json
from pathlib import Path
from typing import Any

import pytest

from terminal_sim.card import PurseCard
from terminal_sim.crypto import Algorithm, KeyKind
from terminal_sim.personalisation import CardKeySet, CardProfile
from terminal_sim.psam import Psam
from tests.unit.terminal_sim.cards import ISSUER_ID, fixed_random, selected, send

VECTORS = json.loads((Path(__file__).parents[2] / "vectors" / "epurse.json").read_text("utf-8"))["vectors"]
KEYS = json.loads((Path(__file__).parents[2] / "vectors" / "keys.json").read_text("utf-8"))["vectors"]
FEN_MAX = 0xFFFF_FFFF


def of(*ops: str) -> list[Any]:
    return [pytest.param(v, id=v["id"]) for v in VECTORS if v["op"] in ops]


def card_for(vector: dict[str, Any]) -> PurseCard:
    given = vector["in"]
    keys = {kind: bytes.fromhex(given[kind.value]) for kind in KeyKind if kind.value in given}
    algorithm = Algorithm.SM4 if vector["alg"] == "SM4" else Algorithm.TRIPLE_DES
    own = CardKeySet(
        int(given.get("key_index", "01"), 16), int(given.get("key_version", "01"), 16), algorithm, keys
    )
    return PurseCard(
        CardProfile(given.get("asn", "03133500100000001239"), ISSUER_ID),
        [own],
        balance_fen=int(given.get("balance_before", "0"), 16),
        online_atc=int(given.get("online_atc", "0"), 16),
        offline_atc=int(given.get("offline_atc", "0"), 16),
        balance_max_fen=FEN_MAX,
        random=fixed_random(bytes.fromhex(given.get("card_random") or given["get_challenge_4"])),
    )


def psam_for(vector: dict[str, Any]) -> Psam:
    """The open vectors give the card's DPK; its national root stands in the key vectors."""
    given = vector["in"]
    algorithm = Algorithm.SM4 if vector["alg"] == "SM4" else Algorithm.TRIPLE_DES
    root = next(v for v in KEYS if v["id"] == f"KEY-{vector['alg']}-DPK-CITY")["in"]["parent_key"]
    return Psam(
        given["terminal_no"],
        {(int(given["key_version"], 16), algorithm): bytes.fromhex(root)},
        next_serial=int(given["psam_serial"], 16),
    )


@pytest.mark.parametrize("vector", of("load"))
def test_a_load_byte_for_byte(vector: dict[str, Any]) -> None:
    card, out = selected(card_for(vector)), vector["out"]
    assert send(card, out["apdu_initialize"]) == out["resp_initialize"]
    assert send(card, out["apdu_credit"]) == out["resp_credit"]
    assert send(card, out["apdu_prove"]) == out["resp_prove"]
    assert send(card, "805C000204") == out["balance_after"] + "9000"


@pytest.mark.parametrize("vector", of("purchase", "capp_purchase"))
def test_a_purchase_byte_for_byte_on_card_and_psam(vector: dict[str, Any]) -> None:
    card, psam, out = selected(card_for(vector)), psam_for(vector), vector["out"]
    assert send(card, out["apdu_initialize"]) == out["resp_initialize"]
    assert send(psam, out["apdu_psam_init"]) == out["resp_psam_init"]
    if "apdu_update_capp" in out:
        assert send(card, out["apdu_update_capp"]) == "9000"
        assert send(card, "805C000204") == vector["in"]["balance_before"] + "9000"  # and so drops it
        assert send(card, out["apdu_debit"]) == "6985"
        assert send(card, out["apdu_initialize"]) == out["resp_initialize"]
        assert send(card, out["apdu_update_capp"]) == "9000"
    assert send(card, out["apdu_debit"]) == out["resp_debit"]
    assert send(psam, out["apdu_psam_credit"]) == "9000"
    assert send(card, out["apdu_prove"]) == out["resp_prove"]
    assert send(card, "805C000204") == out["balance_after"] + "9000"
    if "capp_record_1E" in out:
        assert send(card, "00B201F400") == out["capp_record_1E"] + "9000"


@pytest.mark.parametrize("vector", of("secure_messaging_mac"))
def test_maintenance_commands_byte_for_byte(vector: dict[str, Any]) -> None:
    card, command = selected(card_for(vector)), vector["out"]["apdu"]
    if command.startswith("8418"):  # only a blocked application can be unblocked
        block = next(
            v["out"]["apdu"]
            for v in VECTORS
            if v["op"] == "secure_messaging_mac" and v["alg"] == vector["alg"]
        )
        assert send(card, "0084000004") == vector["in"]["get_challenge_4"] + "9000"
        assert send(card, block) == "9000"
    assert send(card, "0084000004") == vector["in"]["get_challenge_4"] + "9000"
    assert send(card, command) == "9000"
    assert send(card, command) != "9000"  # its challenge is spent
