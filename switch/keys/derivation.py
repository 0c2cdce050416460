"""Key diversification 密鑰分散: parent key and eight bytes give a child key.

3DES: child = E(parent, d) ‖ E(parent, ~d), two blocks. SM4: child = E(parent, d ‖ ~d), one block. Both are the ECB
encryption of d ‖ ~d, so the children of many cards come out of a single call. Children get no parity adjustment.

Levels: national root -(issuer id)-> issuer key -(last 16 digits of the ASN)-> card key; TMMK -(field 41)-> TMK.
"""

from collections.abc import Iterable
from typing import TypeVar

from switch.keys.primitives import Algorithm, BlockCipher, MasterKey, SecretKey, WrappingKey, block_cipher

DIVERSIFIER_BYTES = 8


CardKeyT = TypeVar("CardKeyT", bound=SecretKey)


def spread(diversifier: bytes) -> bytes:
    """The 16 bytes d ‖ ~d of a diversifier d of 8 bytes."""
    if len(diversifier) != DIVERSIFIER_BYTES:
        raise ValueError("diversifier must be 8 bytes")
    number = int.from_bytes(diversifier, "big")
    return (number << 64 | number ^ 0xFFFFFFFFFFFFFFFF).to_bytes(16, "big")


def child_bytes(cipher: BlockCipher, diversifier: bytes) -> bytes:
    """The 16 bytes of one child key."""
    return cipher.encrypt(spread(diversifier))


def issuer_key(root: MasterKey, issuer_id: bytes) -> MasterKey:
    """Root to issuer; issuer_id is the 8-byte issuer identification 發卡機構標識."""
    return MasterKey(child_bytes(block_cipher(root), issuer_id), root.algorithm, root.kind)


def card_key(issuer: MasterKey, diversifier: bytes, kind: type[CardKeyT]) -> CardKeyT:
    """Issuer to card; the wanted class must be what the issuer key is for (a DLK never comes from a DTK master)."""
    if getattr(kind, "kind", None) != issuer.kind:
        raise ValueError(f"a {issuer.kind} master does not derive {kind.purpose} keys")
    return kind(child_bytes(block_cipher(issuer), diversifier), issuer.algorithm)


def terminal_diversifier(terminal_id: str) -> bytes:
    """The eight ASCII bytes of field 41; ValueError when it is not eight ASCII characters."""
    encoded = terminal_id.encode("ascii", errors="strict") if terminal_id.isascii() else b""
    if len(encoded) != DIVERSIFIER_BYTES:
        raise ValueError("terminal id must be 8 ASCII characters")
    return encoded


def terminal_master_key(tmmk: MasterKey, terminal_id: str) -> WrappingKey:
    """TMK 終端主密鑰 of one terminal."""
    if tmmk.kind != "TMMK":
        raise ValueError("terminal master keys derive from a TMMK only")
    return WrappingKey(child_bytes(block_cipher(tmmk), terminal_diversifier(terminal_id)), tmmk.algorithm)


def many_children(cipher: BlockCipher, diversifiers: Iterable[bytes]) -> list[bytes]:
    """Child keys of many diversifiers (8 bytes each) in one cipher call, in order."""
    children = cipher.encrypt(b"".join([spread(diversifier) for diversifier in diversifiers]))
    return [children[start : start + 16] for start in range(0, len(children), 16)]


def derive_path(root: bytes, algorithm: Algorithm, path: Iterable[bytes]) -> bytes:
    """Follow several levels from raw root bytes; for known-answer checks and tools."""
    material = root
    for diversifier in path:
        material = child_bytes(BlockCipher(material, algorithm), diversifier)
    return material
