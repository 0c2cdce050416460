"""The cryptography of a terminal that somebody else makes, written from docs/keys.md and docs/iso8583.md alone.

It shares no line with the switch or with `terminal_sim`, and needs nothing but the package `cryptography`; whoever builds a terminal may
take it over. Keys are bytes, results too; hexadecimal appears only where the documents put it into a field.
"""

from dataclasses import dataclass
from typing import Literal

from cryptography.hazmat.decrepit.ciphers.algorithms import TripleDES
from cryptography.hazmat.primitives.ciphers import Cipher, modes
from cryptography.hazmat.primitives.ciphers.algorithms import SM4

Algorithm = Literal["3DES", "SM4"]
BLOCK = {"3DES": 8, "SM4": 16}


def xor(left: bytes, right: bytes) -> bytes:
    """Both, bit by bit; of one length."""
    return bytes(a ^ b for a, b in zip(left, right, strict=True))


def complement(data: bytes) -> bytes:
    """Every bit turned round."""
    return bytes(byte ^ 0xFF for byte in data)


def zero_padded(data: bytes, size: int) -> bytes:
    """Data with zero bytes to a multiple of size; none when it is one already."""
    return data + bytes(-len(data) % size)


def marked_padded(data: bytes, size: int) -> bytes:
    """Data with `80 00…` to a multiple of size; always at least the `80`."""
    return zero_padded(data + b"\x80", size)


def blocks(data: bytes, size: int) -> list[bytes]:
    """Data in pieces of size bytes."""
    return [data[start : start + size] for start in range(0, len(data), size)]


def _cipher(algorithm: Algorithm, key: bytes) -> Cipher[modes.ECB]:
    if algorithm == "SM4":
        return Cipher(SM4(key), modes.ECB())
    # A key of 8 bytes is single DES; one of 16 is two-key 3DES, K1 K2 K1.
    return Cipher(TripleDES(key * 3 if len(key) == 8 else key + key[:8]), modes.ECB())


def encrypt(algorithm: Algorithm, key: bytes, data: bytes) -> bytes:
    """Whole blocks, each by itself (ECB)."""
    return _cipher(algorithm, key).encryptor().update(data)


def decrypt(algorithm: Algorithm, key: bytes, data: bytes) -> bytes:
    """The inverse of `encrypt`."""
    return _cipher(algorithm, key).decryptor().update(data)


def cbc_last(algorithm: Algorithm, key: bytes, data: bytes) -> bytes:
    """The last block of a CBC encryption from an initial value of zero."""
    last = bytes(BLOCK[algorithm])
    for block in blocks(data, BLOCK[algorithm]):
        last = encrypt(algorithm, key, xor(last, block))
    return last


def diversify(algorithm: Algorithm, parent: bytes, diversifier: bytes) -> bytes:
    """The child key for 8 bytes of diversifier (keys.md section 3)."""
    return encrypt(algorithm, parent, diversifier + complement(diversifier))


def check_value(algorithm: Algorithm, key: bytes) -> bytes:
    """KCV, 4 bytes."""
    return encrypt(algorithm, key, bytes(BLOCK[algorithm]))[:4]


def terminal_master_key(algorithm: Algorithm, tmmk: bytes, terminal_id: str) -> bytes:
    """TMK of a terminal."""
    return diversify(algorithm, tmmk, terminal_id.encode("ascii"))


@dataclass(frozen=True, repr=False)
class WorkingKeys:
    """What a sign-on brings: PIK for PIN blocks, MAK for field 64, TDK for tracks when it was asked for."""

    pik: bytes
    mak: bytes
    tdk: bytes | None = None


def unwrap_working_keys(algorithm: Algorithm, tmk: bytes, field_62: bytes) -> WorkingKeys:
    """Field 62 of a sign-on answer: 2 or 3 keys of 16 bytes under the TMK, each followed by its check value.

    ValueError when a check value is wrong: discard the set and sign on again.
    """
    keys = []
    for piece in blocks(field_62, 20):
        key = decrypt(algorithm, tmk, piece[:16])
        if check_value(algorithm, key) != piece[16:]:
            raise ValueError("a working key does not have its check value")
        keys.append(key)
    return WorkingKeys(*keys)


# ---------------------------------------------------------------------------------------------------------------- field 64


def _folded_mac(algorithm: Algorithm, mak: bytes, mab: bytes) -> bytes:
    """CUP-ECB: fold all blocks, then encrypt the hexadecimal text of the result in two steps."""
    size = BLOCK[algorithm]
    folded = bytes(size)
    for block in blocks(zero_padded(mab, size), size):
        folded = xor(folded, block)
    text = folded.hex().upper().encode("ascii")
    result = encrypt(algorithm, mak, xor(encrypt(algorithm, mak, text[:size]), text[size:]))
    return result.hex().upper()[:8].encode("ascii")


def mac(mac_id: int, mak: bytes, mab: bytes) -> bytes:
    """The 8 bytes of field 64 (iso8583.md section 9); mac_id is the terminal's, 1 to 5."""
    if mac_id == 1:
        return _folded_mac("3DES", mak, mab)
    if mac_id == 2:
        return cbc_last("3DES", mak[:8], zero_padded(mab, 8))
    if mac_id == 3:
        last = cbc_last("3DES", mak[:8], zero_padded(mab, 8))
        return encrypt("3DES", mak[:8], decrypt("3DES", mak[8:], last))
    if mac_id == 4:
        return _folded_mac("SM4", mak, mab)
    if mac_id == 5:
        return cbc_last("SM4", mak, zero_padded(mab, 16))[:8]
    raise ValueError("a MAC id is 1 to 5")


# ---------------------------------------------------------------------------------------------------------------- PIN


def pin_block(algorithm: Algorithm, pik: bytes, pin: str, pan: str | None) -> bytes:
    """A PIN under PIK (iso8583.md section 10); without a PAN for 3DES only. 8 bytes for field 52, or 16 for tag DF51."""
    size = BLOCK[algorithm]
    clear = bytes.fromhex(f"0{len(pin):X}{pin}".ljust(2 * size, "F"))
    if pan is not None:
        clear = xor(clear, bytes.fromhex(pan[:-1][-12:].rjust(2 * size, "0")))
    return encrypt(algorithm, pik, clear)


# ---------------------------------------------------------------------------------------------------------------- purse


def card_key(algorithm: Algorithm, root: bytes, issuer_id: str, pan: str) -> bytes:
    """A purse key of one card: root, then the issuer (16 hex digits), then the last 16 digits of the card number."""
    return diversify(
        algorithm, diversify(algorithm, root, bytes.fromhex(issuer_id)), bytes.fromhex(pan[-16:])
    )


def tac(algorithm: Algorithm, dtk: bytes, data: bytes) -> bytes:
    """TAC, 4 bytes, under the card's DTK (keys.md section 7): in 3DES single DES under the XOR of the halves."""
    key = xor(dtk[:8], dtk[8:]) if algorithm == "3DES" else dtk
    return cbc_last(algorithm, key, marked_padded(data, BLOCK[algorithm]))[:4]


def crc16(data: bytes) -> bytes:
    """CRC-16/CCITT-FALSE, 2 bytes: polynomial 1021, start FFFF, nothing reflected."""
    register = 0xFFFF
    for byte in data:
        register ^= byte << 8
        for _ in range(8):
            register = (register << 1 ^ (0x1021 if register & 0x8000 else 0)) & 0xFFFF
    return register.to_bytes(2, "big")
