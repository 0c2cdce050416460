"""The simulator's own cryptography against the known answers."""

import json
from pathlib import Path
from typing import Any

import pytest

from terminal_sim import crypto
from terminal_sim.crypto import Algorithm, Block, CheckValueError

VECTORS = Path(__file__).parents[2] / "vectors"
hx = bytes.fromhex


def load(suite: str) -> dict[str, Any]:
    loaded: dict[str, Any] = json.loads((VECTORS / f"{suite}.json").read_text("utf-8"))
    return loaded


def pick(suite: str, *ops: str) -> list[Any]:
    found = [v for v in load(suite)["vectors"] if v["op"] in ops]
    assert found
    return [pytest.param(v, id=v["id"]) for v in found]


def algorithm(vector: dict[str, Any]) -> Algorithm:
    return Algorithm.SM4 if vector["alg"] == "SM4" else Algorithm.TRIPLE_DES


@pytest.mark.parametrize("vector", pick("mac", "mac_all"))
def test_all_five_terminal_macs_and_the_single_des_form(vector: dict[str, Any]) -> None:
    given, out = vector["in"], vector["out"]
    data = hx(given["data"])
    triple, single, sm4 = hx(given["key_3des"]), hx(given["key_des"]), hx(given["key_sm4"])
    assert crypto.terminal_mac(1, triple).field64(data).decode() == out["cup_ecb_3des_field64"]
    assert crypto.terminal_mac(1, single).field64(data).decode() == out["cup_ecb_des_field64"]
    assert crypto.terminal_mac(2, triple).field64(data) == hx(out["x99_block"])
    assert crypto.terminal_mac(2, single).field64(data) == hx(out["x99_block"])
    assert crypto.terminal_mac(3, triple).field64(data) == hx(out["x919_block"])
    assert crypto.terminal_mac(4, sm4).field64(data).decode() == out["cup_ecb_sm4_field64"]
    assert crypto.terminal_mac(5, sm4).field64(data) == hx(out["sm4_cbc_field64"])


def test_published_terminal_macs() -> None:
    published = {v["id"]: v for v in load("mac")["published"]}
    for name, mac_id, out in (
        ("PUB-CUP-1", 1, "field64"),
        ("PUB-CUP-2", 1, "field64"),
        ("PUB-X99", 2, "block"),
        ("PUB-X919", 3, "block"),
    ):
        case = published[name]
        field64 = crypto.terminal_mac(mac_id, hx(case["in"]["key"])).field64(hx(case["in"]["data"]))
        assert field64 in (case["out"][out].encode(), hx(case["out"][out]))
    for name in ("PUB-SM4CBC-1", "PUB-SM4CBC-2"):
        case = published[name]["in"]
        chained = Block(Algorithm.SM4, hx(case["key"])).chain(hx(case["data"]), hx(case["iv"]))
        assert chained == hx(published[name]["out"]["block"])


def test_a_mac_object_gives_the_same_answer_every_time() -> None:
    for mac_id in crypto.MAC_ALGORITHM:
        mac = crypto.terminal_mac(mac_id, bytes(range(16)))
        assert mac.field64(b"one") == mac.field64(b"one") != mac.field64(b"two")


@pytest.mark.parametrize("vector", pick("pin", "pin_block"))
def test_pin_blocks(vector: dict[str, Any]) -> None:
    pin, pan = vector["in"]["pin"], vector["in"]["pan"]
    triple, sm4, out = hx(vector["in"]["key_3des"]), hx(vector["in"]["key_sm4"]), vector["out"]
    assert crypto.clear_pin_block(pin, pan, 8) == hx(out["iso0_clear"])
    assert crypto.clear_pin_block(pin, None, 8) == hx(out["nopan_clear"])
    assert crypto.clear_pin_block(pin, pan, 16) == hx(out["sm4_clear"])
    assert crypto.pin_block(Algorithm.TRIPLE_DES, triple, pin, pan) == hx(out["iso0_cipher_3des"])
    assert crypto.pin_block(Algorithm.TRIPLE_DES, triple, pin, None) == hx(out["nopan_cipher_3des"])
    assert crypto.pin_block(Algorithm.SM4, sm4, pin, pan) == hx(out["sm4_cipher"])


@pytest.mark.parametrize("pin", ["123", "1234567890123", "12a4", "", "１２３４"])
def test_a_pin_outside_four_to_twelve_digits_makes_no_block(pin: str) -> None:
    with pytest.raises(ValueError, match="4 to 12"):
        crypto.clear_pin_block(pin, None, 8)


@pytest.mark.parametrize("vector", pick("keys", "diversify", "diversify_path"))
def test_diversification(vector: dict[str, Any]) -> None:
    given, out, alg = vector["in"], vector["out"], algorithm(vector)
    key = hx(given.get("parent_key") or given["root_key"])
    if "parent_kcv" in out:
        assert crypto.check_value(alg, key) == hx(out["parent_kcv"])
    for diversifier in given.get("path") or [given["diversifier"]]:
        key = crypto.diversify(alg, key, hx(diversifier))
    assert key == hx(out.get("child_key") or out["key"])
    if "child_kcv" in out:
        assert crypto.check_value(alg, key) == hx(out["child_kcv"])


@pytest.mark.parametrize("vector", pick("keys", "kcv"))
def test_check_values(vector: dict[str, Any]) -> None:
    assert crypto.check_value(algorithm(vector), hx(vector["in"]["key"])) == hx(vector["out"]["kcv"])


@pytest.mark.parametrize("vector", pick("keys", "wrap_working_keys"))
def test_working_keys_unwrap_with_and_without_track_key(vector: dict[str, Any]) -> None:
    given, out, alg = vector["in"], vector["out"], algorithm(vector)
    tmk = hx(given["tmk"])
    short = crypto.unwrap_working_keys(alg, tmk, hx(out["field62_40"]))
    full = crypto.unwrap_working_keys(alg, tmk, hx(out["field62_60"]))
    assert (short.pin, short.mac, short.track) == (hx(given["PIK"]), hx(given["MAK"]), None)
    assert full.track == hx(given["TDK"])
    assert given["PIK"].lower() not in repr(full).lower()


@pytest.mark.parametrize("damage", [0, 16, 20, 39])
def test_a_changed_bit_in_the_key_bundle_is_found(damage: int) -> None:
    vector = next(v for v in load("keys")["vectors"] if v["op"] == "wrap_working_keys")
    bundle = bytearray(hx(vector["out"]["field62_40"]))
    bundle[damage] ^= 1
    with pytest.raises(CheckValueError):
        crypto.unwrap_working_keys(algorithm(vector), hx(vector["in"]["tmk"]), bytes(bundle))


@pytest.mark.parametrize("length", [0, 24, 41, 52])
def test_a_key_bundle_of_another_length_is_refused(length: int) -> None:
    with pytest.raises(CheckValueError):
        crypto.unwrap_working_keys(Algorithm.SM4, bytes(16), bytes(length))


def test_published_purse_walk_throughs() -> None:
    published = {v["id"]: v for v in load("epurse")["published"]}
    load_case, purchase = published["PUB-LOAD"], published["PUB-PURCHASE"]
    alg = Algorithm.TRIPLE_DES
    key = crypto.session_key(alg, hx(load_case["in"]["DLK"]), crypto.load_seed(hx("11223344"), 0))
    assert key == hx(load_case["out"]["SESLK"])
    for name in ("MAC1", "MAC2"):
        assert crypto.purse_mac(alg, key, hx(load_case["in"][f"{name.lower()}_input"])) == hx(
            load_case["out"][name]
        )
    seed = crypto.purchase_seed(hx("11223344"), 0, hx("00000001"))
    key = crypto.session_key(alg, hx(purchase["in"]["DPK"]), seed)
    assert key == hx(purchase["out"]["SESPK"])
    for name in ("MAC1", "MAC2"):
        assert crypto.purse_mac(alg, key, hx(purchase["in"][f"{name.lower()}_input"])) == hx(
            purchase["out"][name]
        )


@pytest.mark.parametrize("vector", pick("epurse", "verify_tac"))
def test_wrong_tacs_are_wrong(vector: dict[str, Any]) -> None:
    given = vector["in"]
    computed = crypto.tac(algorithm(vector), hx(given["DTK"]), hx(given["tac_input"]))
    assert (computed == hx(given["TAC"])) is vector["out"]["valid"]


@pytest.mark.parametrize("vector", pick("epurse", "load", "purchase", "capp_purchase"))
def test_purse_seeds_session_keys_macs_and_tacs(vector: dict[str, Any]) -> None:
    given, out, alg = vector["in"], vector["out"], algorithm(vector)
    card_random = hx(given["card_random"])
    if vector["op"] == "load":
        seed, card_key, session = crypto.load_seed(card_random, int(given["online_atc"], 16)), "DLK", "SESLK"
    else:
        atc = int(given["offline_atc"], 16)
        seed, card_key, session = (
            crypto.purchase_seed(card_random, atc, hx(given["psam_serial"])),
            "DPK",
            "SESPK",
        )
    assert seed == hx(out["session_seed"])
    key = crypto.session_key(alg, hx(given[card_key]), seed)
    assert key == hx(out[session])
    assert crypto.purse_mac(alg, key, hx(out["mac1_input"])) == hx(out["MAC1"])
    assert crypto.purse_mac(alg, key, hx(out["mac2_input"])) == hx(out["MAC2"])
    assert crypto.tac(alg, hx(given["DTK"]), hx(out["tac_input"])) == hx(out["TAC"])


@pytest.mark.parametrize("vector", pick("epurse", "secure_messaging_mac"))
def test_secure_messaging_macs(vector: dict[str, Any]) -> None:
    given = vector["in"]
    mac = crypto.secure_messaging_mac(
        algorithm(vector),
        hx(given["DAMK"]),
        hx(given["get_challenge_4"]),
        hx(given["header"]),
        hx(given["data"]),
    )
    assert mac == hx(vector["out"]["MAC"])


def test_nothing_prints_a_key() -> None:
    assert "00" * 8 not in repr(Block(Algorithm.SM4, bytes(16)))
