import pytest

from switch.domain.identifiers import CardNumber
from switch.domain.transactions import PinFormat
from switch.keys.pin_blocks import (
    FORMAT_ALGORITHM,
    PinBlockError,
    clear_block,
    decrypt_pin,
    encrypt_pin,
    read_clear_block,
)
from switch.keys.primitives import Algorithm, PinKey

CARD = CardNumber("3133500100000001239")
KEY = bytes.fromhex("1BEA9314407FB4395F2C97F56B1A4F33")


def key_for(pin_format):
    return PinKey(KEY, FORMAT_ALGORITHM[pin_format])


#  clear block (no PAN)   verdict
LAYOUTS = """
    061234560FFFFFFF      unreadable
    06123456FFFFFFFF      123456
    041234FFFFFFFFFF      1234
    0C123456789012FF      123456789012
    03123FFFFFFFFFFF      unreadable
    0D1234567890123F      unreadable
    16123456FFFFFFFF      unreadable
    F6123456FFFFFFFF      unreadable
    061234A6FFFFFFFF      unreadable
    0612345FFFFFFFFF      unreadable
    041234FFFFFFFFF0      unreadable
    041234FFFFFFFFFE      unreadable
    00FFFFFFFFFFFFFF      unreadable
"""


@pytest.mark.parametrize("row", [row.split() for row in LAYOUTS.strip().splitlines()], ids=lambda row: row[0])
def test_only_blocks_that_follow_the_layout_are_read(row):
    block, verdict = bytes.fromhex(row[0]), row[1]
    if verdict != "unreadable":
        assert read_clear_block(block, PinFormat.NO_PAN, CARD) == verdict
        return
    with pytest.raises(PinBlockError) as caught:
        read_clear_block(block, PinFormat.NO_PAN, CARD)
    assert "123" not in str(caught.value)


@pytest.mark.parametrize("pin_format", list(PinFormat))
def test_another_key_or_another_card_gives_an_unreadable_block_or_another_pin(pin_format):
    block = encrypt_pin(key_for(pin_format), "123456", pin_format, CARD)
    assert decrypt_pin(key_for(pin_format), block, pin_format, CARD) == "123456"
    with pytest.raises(PinBlockError):
        decrypt_pin(PinKey(bytes(range(16)), FORMAT_ALGORITHM[pin_format]), block, pin_format, CARD)
    if pin_format is not PinFormat.NO_PAN:
        with pytest.raises(PinBlockError):
            decrypt_pin(key_for(pin_format), block, pin_format, CardNumber("6230606601007726888"))


@pytest.mark.parametrize("pin_format", list(PinFormat))
@pytest.mark.parametrize("size", [0, 7, 9, 15, 17, 24])
def test_a_block_of_another_length_is_unreadable(pin_format, size):
    with pytest.raises(PinBlockError):
        decrypt_pin(key_for(pin_format), bytes(size), pin_format, CARD)


def test_a_block_of_the_other_algorithm_is_unreadable():
    with pytest.raises(PinBlockError):
        decrypt_pin(PinKey(KEY, Algorithm.SM4), bytes(8), PinFormat.ISO_0, CARD)
    with pytest.raises(ValueError, match="do not belong together"):
        encrypt_pin(PinKey(KEY, Algorithm.TDES), "123456", PinFormat.SM4_PAN, CARD)


@pytest.mark.parametrize("pin", ["", "123", "1234567890123", "12a4", "１２３４", "12 4"])
def test_what_is_no_pin_is_not_laid_out(pin):
    with pytest.raises(ValueError, match="4 to 12 digits"):
        clear_block(pin, PinFormat.ISO_0, CARD)
