"""The simulator's own SM2 against the known answers and against its mistakes."""

from typing import Any

import pytest

from terminal_sim import sm2
from tests.unit.terminal_sim.test_crypto import hx, pick


@pytest.mark.parametrize("vector", pick("sm", "sm2_sign"))
def test_signatures_of_others_hold_and_changed_ones_do_not(vector: dict[str, Any]) -> None:
    given, out = vector["in"], vector["out"]
    signature = hx(out["r"]) + hx(out["s"])
    public, message = hx(given["public_key"]), hx(given["message"])
    sm2.verify(public, message, signature)
    for changed in (
        signature[:-1] + bytes([signature[-1] ^ 1]),
        signature[:32] + bytes(32),
        signature + b"0",
    ):
        with pytest.raises(sm2.Sm2Error):
            sm2.verify(public, message, changed)
    with pytest.raises(sm2.Sm2Error):
        sm2.verify(public, message + b"0", signature)


@pytest.mark.parametrize("vector", pick("sm", "sm2_encrypt_C1C3C2"))
def test_envelopes_open_with_the_private_key_and_no_changed_one_does(vector: dict[str, Any]) -> None:
    given = vector["in"]
    private = int(given["private_key"], 16)
    cipher = hx(vector["out"]["cipher"])
    assert sm2.decrypt(private, cipher) == hx(given["message"])
    for at in (0, 1, 64, 65, 97, len(cipher) - 1):
        with pytest.raises(sm2.Sm2Error):
            sm2.decrypt(private, cipher[:at] + bytes([cipher[at] ^ 1]) + cipher[at + 1 :])
    with pytest.raises(sm2.Sm2Error):
        sm2.decrypt(private + 1, cipher)


def test_a_drawn_pair_shows_only_its_public_half() -> None:
    pair = sm2.draw()
    assert len(pair.public) == 65
    assert str(pair.private) not in repr(pair)
