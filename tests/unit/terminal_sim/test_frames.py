"""Requests of the golden frames, made by the terminal's own builders from their keys and fields."""

import json
from datetime import date
from pathlib import Path
from typing import Any

import pytest

from switch.domain.transactions import AccountKind, Kind
from switch.messages.codec import decode
from terminal_sim import frames
from terminal_sim.crypto import WorkingKeys
from terminal_sim.frames import CardData, Detail, OriginalRef, PinPad, Terminal, Totals
from terminal_sim.pos import Pos
from terminal_sim.pos_batch import Receipt

GOLDEN = json.loads((Path(__file__).parents[2] / "vectors" / "iso8583.json").read_text("utf-8"))
FRAMES = {v["id"]: v for v in GOLDEN["vectors"]}
MAC_IDS = {"CUP-ECB-3DES": 1, "X9.9-DES-CBC": 2, "X9.19-3DES": 3, "CUP-ECB-SM4": 4, "SM4-CBC-MAC": 5}
hx = bytes.fromhex


def terminal_of(number: str, mac_id: int) -> tuple[Terminal, PinPad]:
    keys = GOLDEN["terminals"][number]
    terminal = Terminal(number, GOLDEN["merchant"], hx(keys["tmk"]), mac_id)
    return terminal, PinPad(terminal, WorkingKeys(hx(keys["PIK"]), hx(keys["MAK"]), None))


def golden_terminal(name: str) -> tuple[dict[str, Any], Terminal, PinPad]:
    vector = FRAMES[name]
    return vector, *terminal_of(vector["terminal"], MAC_IDS[vector["mac_algorithm"] or "CUP-ECB-3DES"])


def batch_and_trace(vector: dict[str, Any]) -> dict[str, Any]:
    return {"batch_no": int(vector["fields"]["60"][2:8]), "trace": int(vector["fields"].get("11", "0"))}


def card_of(vector: dict[str, Any]) -> CardData:
    return CardData(vector["fields"]["2"], vector["fields"].get("23", ""), vector["fields"].get("14", ""))


def assert_golden(vector: dict[str, Any], made: bytes) -> None:
    assert made.hex().upper() == vector["frame"]


@pytest.mark.parametrize("name", ["ISO-01-SIGNON-REQ", "ISO-20-SM4-SIGNON-REQ"])
def test_sign_on(name: str) -> None:
    vector = FRAMES[name]
    terminal, _ = terminal_of(vector["terminal"], 5 if "SM4" in name else 1)
    fields = frames.sign_on_fields(terminal, terminal.sign_on_mode, **batch_and_trace(vector))
    assert_golden(vector, frames.pack(terminal, "0800", fields, None))


def test_echo_and_sign_off() -> None:
    vector, terminal, pad = golden_terminal("ISO-02-ECHO-REQ")
    fields = frames.management_fields(terminal, "301", batch_no=2, trace=None)
    assert_golden(vector, frames.pack(terminal, "0820", fields, None))
    vector, terminal, pad = golden_terminal("ISO-22-SIGNOFF-REQ")
    fields = frames.management_fields(terminal, "002", **batch_and_trace(vector))
    assert_golden(vector, frames.pack(terminal, "0820", fields, pad))


@pytest.mark.parametrize("name", ["ISO-16-BLACKLIST-REQ", "ISO-17-PARAM-REQ"])
def test_downloads(name: str) -> None:
    vector, terminal, pad = golden_terminal(name)
    fields = frames.management_fields(
        terminal,
        vector["fields"]["60"][8:11],
        **batch_and_trace(vector),
        field62=hx(vector["fields"]["62"]),
    )
    assert_golden(vector, frames.pack(terminal, "0800", fields, pad))


@pytest.mark.parametrize(
    "name",
    [
        "ISO-04-PURCHASE-REQ",
        "ISO-05-TIMEOUT-REQ",
        "ISO-08-MEDICAL-REQ",
        "ISO-19-X919-PURCHASE-REQ",
        "ISO-19-X99-PURCHASE-REQ",
        "ISO-20-SM4-PURCHASE-REQ",
        "ISO-20-SM4-CUPMAC-REQ",
    ],
)
def test_purchases_under_all_five_macs(name: str) -> None:
    vector, terminal, pad = golden_terminal(name)
    fields = vector["fields"]
    made = frames.build_purchase(
        terminal,
        pad,
        card_of(vector),
        int(fields["4"]),
        **batch_and_trace(vector),
        pin=vector.get("clear_pin"),
        account=AccountKind(int(fields["3"][2:4])),
        entry=fields["22"][:2],
    )
    assert_golden(vector, made)


def test_balance() -> None:
    vector, terminal, pad = golden_terminal("ISO-03-BALANCE-REQ")
    fields = frames.balance_fields(
        terminal, pad, card_of(vector), **batch_and_trace(vector), pin=vector["clear_pin"]
    )
    assert_golden(vector, frames.pack(terminal, "0200", fields, pad))


def purchase_pos(day: date = date(2024, 3, 15)) -> tuple[Pos, Receipt]:
    """A terminal in batch 2 that made the golden purchase ISO-04."""
    request, terminal, pad = golden_terminal("ISO-04-PURCHASE-REQ")
    pos = Pos(terminal, batch_no=2, next_trace=5, today=lambda: day)
    pos.pin_pad = pad
    made = pos.purchase(card_of(request), 1403, pin=request["clear_pin"])
    assert_golden(request, pos.pack(made))
    answer = pos.take(made, hx(FRAMES["ISO-04-PURCHASE-RSP"]["frame"])[2:])
    assert answer.receipt is not None
    return pos, answer.receipt


def test_void_follows_from_the_answer_of_the_purchase() -> None:
    pos, receipt = purchase_pos()
    pos.next_trace()
    void = pos.void(receipt)
    assert_golden(FRAMES["ISO-06-VOID-REQ"], pos.pack(void))
    answer = pos.take(void, hx(FRAMES["ISO-06-VOID-RSP"]["frame"])[2:])
    assert answer.approved
    assert receipt.voided
    assert pos.batch.accounts == Totals(1403, 1, 1403, 1)


def test_refund_of_an_older_batch() -> None:
    vector, terminal, pad = golden_terminal("ISO-07-REFUND-REQ")
    original = frames.purchase_fields(terminal, pad, card_of(vector), 1403, batch_no=1, trace=5, pin="123456")
    fields = frames.refund_fields(
        original, OriginalRef(1, 5, "0101"), 201, rrn=vector["fields"]["37"], **batch_and_trace(vector)
    )
    assert_golden(vector, frames.pack(terminal, "0220", fields, pad))


def test_reversal_after_a_lost_answer() -> None:
    vector, terminal, pad = golden_terminal("ISO-05-TIMEOUT-REQ")
    pos = Pos(terminal, batch_no=2, next_trace=6, today=lambda: date(2024, 3, 15))
    pos.pin_pad = pad
    request = pos.purchase(card_of(vector), 123465, pin=vector["clear_pin"], entry="07")
    assert_golden(vector, pos.pack(request))
    owed = pos.give_up(request)
    assert owed is not None
    assert_golden(FRAMES["ISO-05-REVERSAL-REQ"], pos.pack(owed))
    assert pos.take(owed, hx(FRAMES["ISO-05-REVERSAL-RSP"]["frame"])[2:]).approved
    assert not pos.reversals


def test_offline_upload_settlement_and_batch_end() -> None:
    vector, terminal, pad = golden_terminal("ISO-13-OFFLINE-REQ")
    pos = Pos(terminal, batch_no=2, next_trace=17)
    pos.pin_pad = pad
    packed = hx(vector["fields"]["62"])[1:]
    for at in range(0, len(packed), 96):
        pos.store_record(packed[at : at + 96])
    request = pos.upload()
    assert request is not None
    assert_golden(vector, pos.pack(request))
    assert pos.take(request, hx(FRAMES["ISO-13-OFFLINE-RSP"]["frame"])[2:]).approved
    assert pos.results() == {0x0B: "10", 0x0C: "10", 0x0D: "10"}
    assert pos.batch.purse == Totals(500, 3)

    pos.batch.accounts, pos.batch.purse = Totals(44613, 2, 1604, 2), Totals(500, 3, 5001, 2)
    assert_golden(FRAMES["ISO-14-SETTLE-REQ"], pos.pack(pos.settlement()))
    assert_golden(FRAMES["ISO-15-BATCHEND-REQ"], pos.pack(pos.batch_end(balanced=True)))


def test_counts_stop_at_999() -> None:
    assert Totals(5, 1000, 7, 1_000_000).digits() == "000000000005999000000000007999"


def test_a_detail_upload_has_its_shape_and_its_bound() -> None:
    terminal, pad = terminal_of("33500001", 1)
    details = [Detail(n, "3133500100000001239", 100 + n) for n in range(1, 9)]
    fields = frames.detail_fields(terminal, details, batch_no=2, trace=30)
    message = decode(frames.pack(terminal, "0320", fields, pad)[2:])
    assert len(message.fields[48]) == 322
    assert message.fields[48][:42] == "08" + "00" + "000001" + "03133500100000001239" + "000000000101"


def test_a_terminal_in_training_says_so_in_the_header() -> None:
    plain, _ = terminal_of("33500001", 1)
    training = Terminal("33500001", plain.merchant_id, plain.tmk, training=True)
    fields = frames.management_fields(training, "301", batch_no=2, trace=None)
    assert frames.pack(training, "0820", fields, None)[7:13].hex() == "613110310001"


def test_pin_block_without_pan_sets_field_53() -> None:
    terminal, pad = terminal_of("33500001", 1)
    fields = frames.purchase_fields(
        terminal, pad, CardData("3133500100000001239"), 1, batch_no=2, trace=1, pin="123456", with_pan=False
    )
    assert fields[53] == "1600000000000000"


def test_nothing_prints_a_pan_or_a_key() -> None:
    pos, receipt = purchase_pos()
    shown = repr(
        (
            pos,
            receipt,
            pos.terminal,
            CardData("3133500100000001239"),
            pos.reversal(pos.purchase(CardData("3133500100000001239"), 5), "06"),
        )
    )
    assert "3133500100000001239" not in shown
    assert pos.terminal.tmk.hex() not in shown.lower()
    assert receipt.kind is Kind.PURCHASE
