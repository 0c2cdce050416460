"""PIN blocks: clear layouts, strict reading, and encryption under a PIN key.

* ISO_0: ISO 9564-1 format 0 (ANSI X9.8 with PAN): length byte, PIN, F fill to 8 bytes, XOR 0000 ‖ the 12 digits left
  of the PAN's check digit; 3DES.
* NO_PAN: the same block without the XOR; 3DES.
* SM4_PAN: filled with F to 16 bytes, XOR 10 zero bytes ‖ the same 6 bytes of PAN; SM4.

A block that does not decrypt to length 4..12, decimal PIN digits and F fill raises PinBlockError: answer 99. The
error never says more, and the PIN is never in it. Clear PINs exist only inside the vault, for one call.
"""

from switch.domain.errors import PeerError
from switch.domain.identifiers import CardNumber
from switch.domain.transactions import PinFormat
from switch.keys.primitives import Algorithm, PinKey, block_cipher

PIN_DIGITS_MIN, PIN_DIGITS_MAX = 4, 12
FORMAT_ALGORITHM = {
    PinFormat.ISO_0: Algorithm.TDES,
    PinFormat.NO_PAN: Algorithm.TDES,
    PinFormat.SM4_PAN: Algorithm.SM4,
}
assert FORMAT_ALGORITHM.keys() == set(PinFormat)


class PinBlockError(PeerError):
    """A PIN block that cannot be a PIN block: wrong key, wrong PAN or wrong layout. Answer 99, no PIN try counted."""


def pan_digits(card: CardNumber) -> str:
    """The twelve digits left of the check digit, as they enter the block."""
    return card.reveal()[:-1][-12:]


def _pan_mask(pin_format: PinFormat, card: CardNumber) -> int:
    return 0 if pin_format is PinFormat.NO_PAN else int(pan_digits(card), 16)


def block_bytes(pin_format: PinFormat) -> int:
    """Length of a block of this format: 8 or 16 bytes."""
    return FORMAT_ALGORITHM[pin_format].block_bytes


def clear_block(pin: str, pin_format: PinFormat, card: CardNumber) -> bytes:
    """Lay out a clear PIN block, 8 or 16 bytes. ValueError unless the PIN is 4 to 12 decimal digits."""
    if not (PIN_DIGITS_MIN <= len(pin) <= PIN_DIGITS_MAX and pin.isascii() and pin.isdecimal()):
        raise ValueError("PIN must be 4 to 12 digits")
    size = block_bytes(pin_format)
    filled = f"{len(pin):02X}{pin}".ljust(size * 2, "F")
    return (int(filled, 16) ^ _pan_mask(pin_format, card)).to_bytes(size)


def read_clear_block(block: bytes, pin_format: PinFormat, card: CardNumber) -> str:
    """The PIN in a clear block, or PinBlockError."""
    size = block_bytes(pin_format)
    if len(block) != size:
        raise PinBlockError("PIN block has the wrong length")
    digits = f"{int.from_bytes(block) ^ _pan_mask(pin_format, card):0{size * 2}X}"
    length = int(digits[:2], 16)
    pin, fill = digits[2 : 2 + length], digits[2 + length :]
    if not (PIN_DIGITS_MIN <= length <= PIN_DIGITS_MAX and pin.isdecimal() and not fill.strip("F")):
        raise PinBlockError("PIN block is not readable")
    return pin


def encrypt_pin(key: PinKey, pin: str, pin_format: PinFormat, card: CardNumber) -> bytes:
    """An encrypted PIN block; ValueError when key and format are of different algorithms."""
    if key.algorithm is not FORMAT_ALGORITHM[pin_format]:
        raise ValueError("PIN format and key algorithm do not belong together")
    return block_cipher(key).encrypt(clear_block(pin, pin_format, card))


def decrypt_pin(key: PinKey, block: bytes, pin_format: PinFormat, card: CardNumber) -> str:
    """The clear PIN of an encrypted block, or PinBlockError. The caller forgets it at once."""
    if key.algorithm is not FORMAT_ALGORITHM[pin_format]:
        raise PinBlockError("PIN block format does not belong to the terminal's keys")
    if len(block) != block_bytes(pin_format):
        raise PinBlockError("PIN block has the wrong length")
    return read_clear_block(block_cipher(key).decrypt(block), pin_format, card)
