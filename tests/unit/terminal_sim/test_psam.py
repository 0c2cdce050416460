"""The PSAM's order of commands, status words and serial."""

import pytest

from terminal_sim.crypto import Algorithm
from terminal_sim.psam import Psam
from tests.unit.terminal_sim.cards import ASN, ISSUER_ID, make_psam, send


def init(**changes: str) -> str:
    parts = {
        "random": "AABBCCDD",
        "atc": "0001",
        "amount": "000000C8",
        "tti": "06",
        "moment": "20240315081530",
        "version": "01",
        "algorithm": "00",
        "asn": ASN[-16:],
        "issuer": ISSUER_ID.hex(),
    } | changes
    return "8070000024" + "".join(parts.values()) + "08"


def test_the_serial_advances_with_every_init_sam_also_of_failed_purchases() -> None:
    psam = make_psam(next_serial=0x10)
    assert send(psam, init())[:8] == "00000010"
    assert send(psam, init())[:8] == "00000011"
    assert send(psam, "807200000400000000") == "9302"
    assert send(psam, init())[:8] == "00000012"
    psam.reset()
    assert send(psam, init())[:8] == "00000013"


def test_the_last_serial_is_used_and_then_no_more() -> None:
    psam = make_psam(next_serial=0xFFFF_FFFF)
    assert send(psam, init())[:8] == "FFFFFFFF"
    assert send(psam, init()) == "9402"


@pytest.mark.parametrize(
    ("command", "status"),
    [
        (init(tti="02"), "6A80"),
        (init(version="09"), "9403"),
        (init(algorithm="01"), "9403"),
        (init(version="01", algorithm="04"), "9403"),
        ("8070000004AABBCCDD08", "6700"),
        ("807001002400", "6700"),
        ("8070010004AABBCCDD", "6A86"),
        ("8072000004AABBCCDD", "6985"),
        ("807200000300AABB", "6700"),
        ("0070000000", "6E00"),
        ("8084000004", "6D00"),
    ],
)
def test_status_words(command: str, status: str) -> None:
    psam = make_psam()
    assert send(psam, command) == status
    assert psam.next_serial == 1


def test_anything_between_init_and_credit_drops_the_purchase() -> None:
    psam = make_psam()
    assert send(psam, init()).endswith("9000")
    assert send(psam, "8084000004") == "6D00"
    assert send(psam, "8072000004AABBCCDD") == "6985"


def test_a_number_has_twelve_digits_and_a_missing_maintenance_root_is_an_error() -> None:
    with pytest.raises(ValueError, match="12 digits"):
        Psam("1", {})
    with pytest.raises(KeyError):
        Psam("335000000017", {}).maintenance_command(1, Algorithm.SM4, ISSUER_ID, ASN, bytes(4), bytes(4))
