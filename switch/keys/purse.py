"""Card cryptography of the e-purse 電子錢包: session keys, MAC1, MAC2, TAC, secure messaging, bulk TAC checks.

PBOC 2.0 electronic purse (JR/T 0025.2) in 3DES, and the same flows in SM4. Padding is always 80 00...: at least one
byte, so 24 bytes of a load TAC become 32 in 3DES. Results are the left four bytes. docs/keys.md shows every input.

|             | 3DES (algorithm id 00)                    | SM4 (algorithm id 04)                    |
|-------------|-------------------------------------------|------------------------------------------|
| session key | E(K, seed), 8 bytes                       | E(K, seed ‖ ~seed), 16 bytes             |
| MAC         | DES-CBC under the session key, IV 0       | SM4-CBC under the session key, IV 0      |
| TAC         | DES-CBC under left half XOR right half    | SM4-CBC under the whole DTK              |
"""

from collections.abc import Mapping, Sequence
from hmac import compare_digest
from typing import NamedTuple

from switch.keys.derivation import many_children, spread
from switch.keys.primitives import (
    Algorithm,
    BlockCipher,
    LoadKey,
    MaintenanceKey,
    MasterKey,
    PurchaseKey,
    SessionKey,
    TacKey,
    block_cipher,
    cbc_encryptor,
)

MAC_BYTES = 4
TTI_LOAD = 0x02  # 圈存
TTI_PURCHASE = 0x06  # 消費
TTI_CAPP = 0x09  # 複合消費
PURCHASE_TAC_INPUT_BYTES = 22
TERMINAL_NO_BYTES = 6


def pad_80(data: bytes, block_bytes: int) -> bytes:
    """Append 80 and zeros to a whole number of blocks (ISO/IEC 9797-1 padding method 2)."""
    return data + b"\x80" + bytes(-(len(data) + 1) % block_bytes)


def _cbc_mac(material: bytes, algorithm: Algorithm, data: bytes) -> bytes:
    size = algorithm.block_bytes
    return cbc_encryptor(material, algorithm).update(pad_80(data, size))[-size:][:MAC_BYTES]


def _session_key(material: bytes, algorithm: Algorithm, seed: bytes) -> SessionKey:
    if len(seed) != 8:
        raise ValueError("session seed must be 8 bytes")
    block = spread(seed) if algorithm is Algorithm.SM4 else seed
    return SessionKey(BlockCipher(material, algorithm).encrypt(block), algorithm)


def load_seed(card_random: bytes, online_atc: int) -> bytes:
    """Seed of SESLK, 8 bytes: card random (4) ‖ online ATC before the load ‖ 8000."""
    return card_random + online_atc.to_bytes(2) + b"\x80\x00"


def purchase_seed(card_random: bytes, offline_atc: int, psam_serial: int) -> bytes:
    """Seed of SESPK, 8 bytes: card random (4) ‖ offline ATC before the purchase ‖ last 2 bytes of the PSAM serial."""
    return card_random + offline_atc.to_bytes(2) + psam_serial.to_bytes(4)[2:]


def load_session_key(key: LoadKey, card_random: bytes, online_atc: int) -> SessionKey:
    """SESLK of one load; the ATC is the one before it."""
    return _session_key(key.reveal(), key.algorithm, load_seed(card_random, online_atc))


def purchase_session_key(
    key: PurchaseKey, card_random: bytes, offline_atc: int, psam_serial: int
) -> SessionKey:
    """SESPK of one purchase or CAPP purchase; the ATC is the one before it."""
    return _session_key(key.reveal(), key.algorithm, purchase_seed(card_random, offline_atc, psam_serial))


def session_mac(session: SessionKey, data: bytes) -> bytes:
    """MAC1 or MAC2, 4 bytes."""
    return _cbc_mac(session.reveal(), session.algorithm, data)


def _tac_material(material: bytes, algorithm: Algorithm) -> bytes:
    if algorithm is Algorithm.SM4:
        return material
    return (int.from_bytes(material[:8]) ^ int.from_bytes(material[8:])).to_bytes(8)


def tac(key: TacKey, data: bytes) -> bytes:
    """Transaction authentication code, 4 bytes."""
    return _cbc_mac(_tac_material(key.reveal(), key.algorithm), key.algorithm, data)


class LoadTerms(NamedTuple):
    """What a load is about. Amounts in fen; ATC as INITIALIZE returned it; terminal number 6 bytes BCD (PSAM)."""

    card_random: bytes
    online_atc: int
    balance_before_fen: int
    amount_fen: int
    terminal_no: bytes


def load_mac1_input(terms: LoadTerms) -> bytes:
    """15 bytes: balance before ‖ amount ‖ TTI 02 ‖ terminal number."""
    return (
        terms.balance_before_fen.to_bytes(4)
        + terms.amount_fen.to_bytes(4)
        + bytes((TTI_LOAD,))
        + _terminal(terms.terminal_no)
    )


def load_mac2_input(amount_fen: int, terminal_no: bytes, host_date: bytes, host_time: bytes) -> bytes:
    """18 bytes: amount ‖ TTI 02 ‖ terminal number ‖ host date (4 BCD) ‖ host time (3 BCD)."""
    return (
        amount_fen.to_bytes(4) + bytes((TTI_LOAD,)) + _terminal(terminal_no) + _moment(host_date, host_time)
    )


def load_tac_input(terms: LoadTerms, host_date: bytes, host_time: bytes) -> bytes:
    """24 bytes: balance after ‖ online ATC before ‖ amount ‖ TTI 02 ‖ terminal number ‖ host date ‖ host time."""
    return (
        (terms.balance_before_fen + terms.amount_fen).to_bytes(4)
        + terms.online_atc.to_bytes(2)
        + load_mac2_input(terms.amount_fen, terms.terminal_no, host_date, host_time)
    )


def purchase_mac1_input(amount_fen: int, tti: int, terminal_no: bytes, date: bytes, time: bytes) -> bytes:
    """18 bytes: amount ‖ TTI 06 or 09 ‖ terminal number ‖ date ‖ time."""
    return amount_fen.to_bytes(4) + bytes((tti,)) + _terminal(terminal_no) + _moment(date, time)


def purchase_tac_input(
    amount_fen: int, tti: int, terminal_no: bytes, psam_serial: int, date: bytes, time: bytes
) -> bytes:
    """22 bytes: amount ‖ TTI ‖ terminal number ‖ PSAM serial ‖ date ‖ time. Neither ATC nor balance is in it."""
    return (
        amount_fen.to_bytes(4)
        + bytes((tti,))
        + _terminal(terminal_no)
        + psam_serial.to_bytes(4)
        + _moment(date, time)
    )


def _terminal(terminal_no: bytes) -> bytes:
    if len(terminal_no) != TERMINAL_NO_BYTES:
        raise ValueError("terminal number must be 6 bytes")
    return terminal_no


def _moment(date: bytes, time: bytes) -> bytes:
    if len(date) != 4 or len(time) != 3:
        raise ValueError("date must be 4 bytes and time 3")
    return date + time


def maintenance_mac(key: MaintenanceKey, challenge: bytes, command: bytes) -> bytes:
    """Secure messaging MAC, 4 bytes (ISO/IEC 9797-1 algorithm 3 in 3DES; SM4-CBC).

    challenge: the 4 bytes of GET CHALLENGE; with zeros behind it the IV.
    command: CLA INS P1 P2 Lc ‖ data, Lc already counting the MAC.
    """
    if len(challenge) != 4:
        raise ValueError("challenge must be 4 bytes")
    size = key.algorithm.block_bytes
    material = key.reveal()
    # An IV is the same as XORing it into the first block under IV zero.
    padded = pad_80(command, size)
    first = (int.from_bytes(padded[:size]) ^ int.from_bytes(challenge.ljust(size, b"\0"))).to_bytes(size)
    if key.algorithm is Algorithm.SM4:
        return cbc_encryptor(material, key.algorithm).update(first + padded[size:])[-size:][:MAC_BYTES]
    block = cbc_encryptor(material[:8], key.algorithm).update(first + padded[size:])[-size:]
    block = BlockCipher(material[8:], key.algorithm).decrypt(block)
    return BlockCipher(material[:8], key.algorithm).encrypt(block)[:MAC_BYTES]


class TacItem(NamedTuple):
    """One TAC to check. Plain values, so that lists of them travel to worker processes cheaply."""

    algorithm: int  # algorithm id of the record, 0 or 4
    version: int  # key version of the record
    issuer_id: bytes  # 8
    diversifier: bytes  # 8, the last 16 digits of the ASN
    tac_input: bytes  # 22
    tac: bytes  # 4


IssuerKeys = Mapping[tuple[int, int, bytes], MasterKey]  # (algorithm id, version, issuer id) -> issuer DTK


def verify_tacs(issuer_keys: IssuerKeys, items: Sequence[TacItem]) -> list[bool]:
    """Check many TACs; one answer per item, in order. An item whose issuer key is missing is False.

    Card keys of one issuer key are derived in a single cipher call; what remains per item is one cipher context.
    """
    places: dict[tuple[int, int, bytes], list[int]] = {}
    for place, item in enumerate(items):
        places.setdefault(item[:3], []).append(place)
    verdicts = [False] * len(items)
    for group, members in places.items():
        master = issuer_keys.get(group)
        if master is None:
            continue
        if master.kind != TacKey.kind:
            raise ValueError("TACs are checked under a DTK master only")
        _verify_group(master, items, members, verdicts)
    return verdicts


def _verify_group(
    master: MasterKey, items: Sequence[TacItem], members: list[int], verdicts: list[bool]
) -> None:
    algorithm = master.algorithm
    size = algorithm.block_bytes
    diversifiers = list(dict.fromkeys(items[place].diversifier for place in members))
    card_keys = dict(zip(diversifiers, many_children(block_cipher(master), diversifiers), strict=True))
    for place in members:
        item = items[place]
        material = _tac_material(card_keys[item.diversifier], algorithm)
        padded = pad_80(item.tac_input, size)
        made = cbc_encryptor(material, algorithm).update(padded)[-size:]
        verdicts[place] = compare_digest(made[:MAC_BYTES], item.tac)
