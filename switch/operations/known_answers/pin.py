"""Suite `pin`: PIN blocks."""

from switch.domain.identifiers import CardNumber
from switch.domain.transactions import PinFormat
from switch.keys.pin_blocks import (
    PinBlockError,
    clear_block,
    decrypt_pin,
    encrypt_pin,
    pan_digits,
    read_clear_block,
)
from switch.keys.primitives import Algorithm, BlockCipher, PinKey
from switch.operations.known_answers.vector import Checker, Outs, Vector, VectorError, hexes

_FORMATS = {"nopan": PinFormat.NO_PAN, "iso0": PinFormat.ISO_0, "sm4": PinFormat.SM4_PAN}


def pin_block(vector: Vector) -> Outs:
    """Clear and encrypted blocks of one PIN; each is also read back."""
    pin, card = vector.text("pin"), CardNumber(vector.text("pan"))
    keys = {
        Algorithm.TDES: PinKey(vector.octets("key_3des"), Algorithm.TDES),
        Algorithm.SM4: PinKey(vector.octets("key_sm4"), Algorithm.SM4),
    }
    outs = {"pan12": pan_digits(card)}
    for name, pin_format in _FORMATS.items():
        key = keys[Algorithm.SM4 if pin_format is PinFormat.SM4_PAN else Algorithm.TDES]
        cipher = encrypt_pin(key, pin, pin_format, card)
        if decrypt_pin(key, cipher, pin_format, card) != pin:
            raise VectorError(f"{name}: the block does not read back")
        outs[f"{name}_clear"] = hexes(clear_block(pin, pin_format, card))
        outs["sm4_cipher" if name == "sm4" else f"{name}_cipher_3des"] = hexes(cipher)
    return outs


def pin_block_reject(vector: Vector) -> Outs:
    """Whether a clear block is one."""
    pin_format = _FORMATS.get(vector.text("fmt"))
    if pin_format is None:
        raise VectorError("unknown fmt")
    card = CardNumber(str(vector.given.get("pan", "0" * 19)))
    try:
        read_clear_block(vector.octets("clear"), pin_format, card)
    except PinBlockError:
        return {"valid": False}
    return {"valid": True}


def published(vector: Vector) -> Outs:
    """Public examples: clear layouts, and one block under SM4 in a layout that the project does not use."""
    if "block" in vector.given:
        return {
            "cipher": hexes(BlockCipher(vector.octets("key"), Algorithm.SM4).encrypt(vector.octets("block")))
        }
    pin, card = vector.text("pin"), CardNumber(vector.text("pan"))
    return {
        f"{name}_clear": hexes(clear_block(pin, pin_format, card)) for name, pin_format in _FORMATS.items()
    }


CHECKERS: dict[tuple[str, str], Checker] = {
    ("pin", "pin_block"): pin_block,
    ("pin", "pin_block_reject"): pin_block_reject,
    ("pin", "published"): published,
}
