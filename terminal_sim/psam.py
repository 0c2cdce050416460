"""A purchase SAM 消費安全存取模塊: the module in a validator that knows the national purchase roots.

It derives a card's DPK over two levels (issuer id, ASN), makes MAC1 and checks the card's MAC2. Its serial advances with
every INIT SAM, also of purchases that fail later, so gaps are normal and repetitions are not.
"""

from collections.abc import Mapping
from hmac import compare_digest
from types import MappingProxyType
from typing import NamedTuple

from terminal_sim import crypto
from terminal_sim.apdu import ApduDevice, Command, StatusError, Sw
from terminal_sim.card import CAPP, PURCHASE
from terminal_sim.crypto import Algorithm, diversify

INIT_SAM, CREDIT_SAM = 0x70, 0x72
SERIAL_MAX = 0xFFFF_FFFF
RootKeys = Mapping[tuple[int, Algorithm], bytes]  # (key version, algorithm) -> national root, 16 bytes


class _Started(NamedTuple):
    algorithm: Algorithm
    session_key: bytes
    amount: bytes


class Psam(ApduDevice):
    """One module. `number` (12 digits) is the 終端機編號 that goes into every MAC and TAC."""

    __slots__ = ("_maintenance", "_number", "_roots", "_started", "next_serial")

    def __init__(
        self,
        number: str,
        purchase_roots: RootKeys,
        *,
        maintenance_roots: RootKeys = MappingProxyType({}),
        next_serial: int = 1,
    ) -> None:
        """purchase_roots: national DPK roots; maintenance_roots: DAMK roots, for locking cards on the black list."""
        if not (len(number) == 12 and number.isascii() and number.isdecimal()):
            raise ValueError("a PSAM number has 12 digits")
        super().__init__()
        self._number = bytes.fromhex(number)
        self._roots = dict(purchase_roots)
        self._maintenance = dict(maintenance_roots)
        self._started: _Started | None = None
        self.next_serial = next_serial

    def __repr__(self) -> str:
        return f"Psam({self._number.hex()}, next_serial={self.next_serial})"

    @property
    def number(self) -> bytes:
        """Six bytes BCD."""
        return self._number

    def reset(self) -> None:
        """Power off: the purchase under way is forgotten, the serial is not."""
        super().reset()
        self._started = None

    def answer(self, command: Command) -> bytes:
        """INIT SAM FOR PURCHASE, then CREDIT SAM FOR PURCHASE; anything else drops the purchase."""
        started, self._started = self._started, None
        if command.cla != 0x80:
            raise StatusError(Sw.CLA)
        if command.ins not in (INIT_SAM, CREDIT_SAM):
            raise StatusError(Sw.INS)
        if (command.p1, command.p2) != (0, 0):
            raise StatusError(Sw.P1_P2)
        return self._init(command.data) if command.ins == INIT_SAM else self._credit(command.data, started)

    def _init(self, data: bytes) -> bytes:
        """Random 4, ATC 2, amount 4, TTI 1, date-time 7, key version 1, algorithm 1, ASN 8, issuer id 8."""
        if len(data) != 36:
            raise StatusError(Sw.LENGTH)
        card_random, atc, amount, tti, moment = data[:4], data[4:6], data[6:10], data[10], data[11:18]
        version, algorithm_id, asn, issuer_id = data[18], data[19], data[20:28], data[28:36]
        if tti not in (PURCHASE, CAPP):
            raise StatusError(Sw.DATA)
        if algorithm_id not in (Algorithm.TRIPLE_DES, Algorithm.SM4):
            raise StatusError(Sw.KEY_INDEX)
        algorithm = Algorithm(algorithm_id)
        if (version, algorithm) not in self._roots:
            raise StatusError(Sw.KEY_INDEX)
        if self.next_serial > SERIAL_MAX:
            raise StatusError(Sw.COUNTER)
        serial = self.next_serial.to_bytes(4)
        self.next_serial += 1
        card_key = diversify(algorithm, diversify(algorithm, self._roots[version, algorithm], issuer_id), asn)
        seed = crypto.purchase_seed(card_random, int.from_bytes(atc), serial)
        key = crypto.session_key(algorithm, card_key, seed)
        mac1 = crypto.purse_mac(algorithm, key, amount + bytes((tti,)) + self._number + moment)
        self._started = _Started(algorithm, key, amount)
        return serial + mac1

    def _credit(self, mac2: bytes, started: _Started | None) -> bytes:
        if len(mac2) != 4:
            raise StatusError(Sw.LENGTH)
        if started is None:
            raise StatusError(Sw.CONDITIONS)
        if not compare_digest(crypto.purse_mac(started.algorithm, started.session_key, started.amount), mac2):
            raise StatusError(Sw.MAC_INVALID)
        return b""

    def maintenance_command(
        self, version: int, algorithm: Algorithm, issuer_id: bytes, asn: str, challenge: bytes, header: bytes
    ) -> bytes:
        """A data-less maintenance command with its MAC: header is CLA INS P1 P2, challenge the card's four bytes.

        KeyError when this module holds no DAMK root of that version.
        """
        issuer_key = diversify(algorithm, self._maintenance[version, algorithm], issuer_id)
        damk = diversify(algorithm, issuer_key, bytes.fromhex(asn[-16:]))
        command = header + b"\x04"
        return command + crypto.secure_messaging_mac(algorithm, damk, challenge, command, b"")
