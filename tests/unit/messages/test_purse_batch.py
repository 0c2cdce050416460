"""EPB1 and EPA1: read as packed by the simulator, and every broken form refused by name."""

import random
from pathlib import Path

import pytest

from switch.domain.errors import FormatError
from switch.messages.purse_batch import BATCH_BYTES_MAX, read_batch, receipt_body, serial_named
from terminal_sim.crypto import WorkingKeys
from terminal_sim.frames import PinPad, Terminal
from terminal_sim.mqtt_batches import pack_batch, read_receipt, sm3

TERMINAL = Terminal("33600001", "993350054110001", bytes(16), 5)
PAD = PinPad(TERMINAL, WorkingKeys(bytes(16), bytes(range(16)), None))
RECORDS = [bytes([n]) * 96 for n in range(3)]


def test_a_batch_is_read_as_the_terminal_packed_it() -> None:
    payload = pack_batch(TERMINAL, PAD, 7, RECORDS)
    batch = read_batch(payload)
    assert (batch.terminal_id, batch.merchant_id, batch.serial) == (
        TERMINAL.terminal_id,
        TERMINAL.merchant_id,
        7,
    )
    assert list(batch.records) == RECORDS
    assert (batch.mac_id, batch.mac) == (5, PAD.field64(batch.signed))
    assert batch.signed + bytes([batch.mac_id]) + batch.mac == payload
    assert "33600001" in repr(batch)
    assert RECORDS[1].hex() not in repr(batch)


def test_its_digest_is_of_the_content_and_not_of_the_key() -> None:
    other = PinPad(TERMINAL, WorkingKeys(bytes(16), bytes(16), None))
    first, again = (pack_batch(TERMINAL, pad, 7, RECORDS) for pad in (PAD, other))
    assert first != again
    assert read_batch(first).digest == read_batch(again).digest == sm3(first[:-9])
    assert read_batch(pack_batch(TERMINAL, PAD, 8, RECORDS)).digest != read_batch(first).digest


def test_the_largest_batch_is_as_large_as_the_settings_must_allow() -> None:
    payload = pack_batch(TERMINAL, PAD, 0xFFFFFFFF, [bytes(96)] * 2_000)
    assert len(payload) == BATCH_BYTES_MAX == 192_042
    assert len(read_batch(payload).records) == 2_000


@pytest.mark.parametrize(
    ("broken", "rule"),
    [
        (b"", "shorter"),
        (b"EPB1", "shorter"),
        (pack_batch(TERMINAL, PAD, 7, RECORDS)[:-1], "length"),
        (pack_batch(TERMINAL, PAD, 7, RECORDS) + b"\0", "length"),
        (b"EPB2" + pack_batch(TERMINAL, PAD, 7, RECORDS)[4:], "EPB1"),
        (pack_batch(TERMINAL, PAD, 7, [])[:33] + bytes(200), "records"),
        (pack_batch(TERMINAL, PAD, 7, [bytes(96)] * 2_001), "records"),
        (
            pack_batch(TERMINAL, PAD, 7, RECORDS)[:4] + b"\xff" + pack_batch(TERMINAL, PAD, 7, RECORDS)[5:],
            "ASCII",
        ),
    ],
)
def test_another_form_is_refused_with_the_rule_that_it_breaks(broken: bytes, rule: str) -> None:
    with pytest.raises(FormatError, match=rule):
        read_batch(broken)


def test_noise_is_refused_and_nothing_else_happens() -> None:
    dice = random.Random(4)
    good = pack_batch(TERMINAL, PAD, 7, RECORDS)
    for _ in range(2_000):
        data = bytearray(good)
        for _ in range(dice.randint(1, 4)):
            data[dice.randrange(60)] = dice.randrange(256)
        del data[dice.randrange(len(data), len(data) + 40) :]
        try:
            read_batch(bytes(data))
        except FormatError:
            assert serial_named(bytes(data)) >= 0


def test_a_receipt_is_read_by_the_terminal_as_it_was_built() -> None:
    payload = pack_batch(TERMINAL, PAD, 7, RECORDS)
    body = receipt_body(TERMINAL.terminal_id, 7, payload, "00", b"\0\0\0\x0110" + b"\0\0\0\x0203")
    receipt = read_receipt(body + bytes([5]) + PAD.field64(body))
    assert (receipt.terminal_id, receipt.serial, receipt.result) == ("33600001", 7, "00")
    assert receipt.digest == sm3(payload)
    assert receipt.results == ((b"\0\0\0\x01", "10"), (b"\0\0\0\x02", "03"))
    assert PAD.mac_holds(receipt.signed, receipt.mac)


def test_the_worked_example_in_the_documents_is_right() -> None:
    text = (Path(__file__).parents[3] / "docs/mqtt.md").read_text(encoding="utf-8")
    block = text.split("## 5 A worked example", 1)[1].split("```")[1]
    parts: dict[str, str] = {}
    name = ""
    for line in block.strip().splitlines():
        name = line[:15].strip() or name
        parts[name] = parts.get(name, "") + line[15:].strip()
    batch = bytes.fromhex(parts["EPB1, head"] + parts["EPB1, record"] + parts["EPB1, MAC"])
    pad = PinPad(TERMINAL, WorkingKeys(bytes(16), bytes.fromhex("0123456789ABCDEFFEDCBA9876543210"), None))
    record = bytes.fromhex(parts["EPB1, record"])
    assert pack_batch(TERMINAL, pad, 7, [record]) == batch
    assert read_batch(batch).records == (record,)
    receipt = "".join(parts[name] for name in parts if name.startswith("EPA1"))
    body = receipt_body(TERMINAL.terminal_id, 7, batch, "00", record[59:63] + b"10")
    assert body + bytes([5]) + pad.field64(body) == bytes.fromhex(receipt)
    assert parts["SM3 of EPB1"] == sm3(batch).hex().upper()
