"""The simulator's MQTT: packets in any pieces, noise, and what a receipt lets a device forget."""

import contextlib
import random

import pytest

from terminal_sim.crypto import WorkingKeys
from terminal_sim.frames import PinPad, Terminal
from terminal_sim.mqtt import MqttLineError, Packets, packet, varint
from terminal_sim.mqtt_batches import Batches, ReceiptError, sm3

TERMINAL = Terminal("33600001", "993350054110001", bytes(16), 5)
PAD = PinPad(TERMINAL, WorkingKeys(bytes(16), bytes(range(16)), None))
OTHER_PAD = PinPad(TERMINAL, WorkingKeys(bytes(16), bytes(16), None))
RECORDS = [bytes(59) + n.to_bytes(4) + bytes(33) for n in range(1, 6)]


def test_packets_come_whole_byte_by_byte_and_with_the_next_behind() -> None:
    stream = packet(13, 0, b"") + packet(3, 2, bytes(300)) + packet(4, 0, b"\0\1")
    whole = Packets().feed(stream)
    assert [(kind, flags, len(body)) for kind, flags, body in whole] == [(13, 0, 0), (3, 2, 300), (4, 0, 2)]
    slow = Packets()
    assert [found for at in range(len(stream)) for found in slow.feed(stream[at : at + 1])] == whole


@pytest.mark.parametrize("broken", [b"\x30\xff\xff\xff\xff\x01", b"\x30" + varint(1 << 21)])
def test_a_length_beyond_the_bound_ends_the_stream(broken: bytes) -> None:
    with pytest.raises(MqttLineError):
        Packets().feed(broken)


def receipt(batch: bytes, result: str, codes: list[str], pad: PinPad | None = PAD, **changes: bytes) -> bytes:
    """EPA1, written out once more."""
    body = b"EPA1" + b"33600001" + batch[27:31] + changes.get("digest", sm3(batch)) + result.encode()
    body += len(codes).to_bytes(2)
    body += b"".join(record[59:63] + code.encode() for record, code in zip(RECORDS, codes, strict=False))
    return body + (b"\0" + bytes(8) if pad is None else b"\5" + pad.field64(body))


def handed_out(device: Batches, pad: PinPad = PAD) -> bytes:
    batch = device.next_batch(pad)
    assert batch is not None
    return batch


def full() -> Batches:
    device = Batches(TERMINAL, records_max=3)
    device.add(RECORDS)
    return device


def test_a_batch_keeps_serial_and_records_until_its_receipt_names_them() -> None:
    device = full()
    first = handed_out(device)
    assert (device.waiting, device.open_serial) == (5, 1)
    again = handed_out(device, OTHER_PAD)
    assert (again[:-8], again == first) == (first[:-8], False)
    assert device.take(receipt(again, "00", ["10", "03", "02"], OTHER_PAD), OTHER_PAD) == "00"
    assert (device.waiting, list(device.results.values())) == (2, ["10", "03", "02"])
    assert handed_out(device)[27:31] == b"\0\0\0\2"


@pytest.mark.parametrize(
    "make",
    [
        lambda batch: receipt(batch, "00", ["10"] * 3, None),
        lambda batch: receipt(batch, "00", ["10"] * 3, OTHER_PAD),
        lambda batch: receipt(batch, "00", ["10"] * 2),
        lambda batch: receipt(batch, "00", ["10"] * 3)[:-1],
        lambda batch: receipt(batch, "00", ["10"] * 3).replace(b"33600001", b"33600002"),
    ],
)
def test_a_receipt_that_cannot_be_believed_lets_nothing_be_forgotten(make: object) -> None:
    device = full()
    batch = handed_out(device)
    assert callable(make)
    with pytest.raises(ReceiptError):
        device.take(make(batch), PAD)
    assert (device.waiting, device.results) == (5, {})


def test_receipts_of_other_batches_are_passed_over() -> None:
    device = full()
    batch = handed_out(device)
    assert device.take(receipt(batch, "00", ["10"] * 3, digest=bytes(32)), PAD) == ""
    assert device.take(receipt(batch, "00", ["10"] * 3), PAD) == "00"
    assert device.take(receipt(batch, "00", ["10"] * 3), PAD) == ""


def test_what_each_batch_result_means_for_the_device() -> None:
    device = full()
    batch = handed_out(device)
    for result in ("96", "97", "30"):
        assert device.take(receipt(batch, result, []), PAD) == result
        assert (device.open_serial, device.must_sign_on) == (1, False)
    for result in ("77", "A0"):
        device.must_sign_on = False
        assert device.take(receipt(batch, result, [], None), PAD) == result
        assert (device.open_serial, device.must_sign_on) == (1, True)
    assert device.take(receipt(batch, "94", [], None), PAD) == "94"
    assert device.open_serial == 1  # nobody has signed that
    assert device.take(receipt(batch, "94", []), PAD) == "94"
    assert handed_out(device)[27:31] == b"\0\0\0\2"
    assert device.waiting == 5


def test_noise_is_no_receipt() -> None:
    dice = random.Random(3)
    device = full()
    batch = handed_out(device)
    good = receipt(batch, "00", ["10"] * 3)
    for _ in range(500):
        data = bytearray(good)
        data[dice.randrange(len(data))] ^= 1 << dice.randrange(8)
        with contextlib.suppress(ReceiptError):
            assert device.take(bytes(data[: dice.randrange(len(data) + 1)]), PAD) == ""
    assert device.waiting == 5
