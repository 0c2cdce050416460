"""What a validator keeps until a receipt names it: batches EPB1 with their serials, and what each receipt EPA1 means. No socket.

A batch keeps its serial and its records until its receipt says 00, however often it is sent; only its MAC is made anew, under the keys of
the last sign-on. A receipt counts when its MAC is good and it answers exactly the bytes that were sent.
"""

from collections import deque
from collections.abc import Iterable
from struct import Struct
from typing import Final, NamedTuple

from cryptography.hazmat.primitives import hashes

from terminal_sim.frames import PinPad, Terminal

RECORD_BYTES: Final = 96
RECORDS_MAX: Final = 2_000
_HEAD: Final = Struct(">4s8s15sIH")
_RECEIPT: Final = Struct(">4s8sI32s2sH")
_RESULT: Final = Struct(">4s2s")
TAKEN, OTHER_BYTES, SIGN_ON, MAC_WRONG, NOT_NOW = "00", "94", "77", "A0", "96"


class ReceiptError(Exception):
    """A receipt that must not be believed."""


class Receipt(NamedTuple):
    """EPA1. results: by record serial, in order."""

    terminal_id: str
    serial: int
    digest: bytes
    result: str
    results: tuple[tuple[bytes, str], ...]
    signed: bytes
    mac_id: int
    mac: bytes


def sm3(data: bytes) -> bytes:
    """32 bytes."""
    state = hashes.Hash(hashes.SM3())
    state.update(data)
    return state.finalize()


def pack_batch(terminal: Terminal, pad: PinPad, serial: int, records: Iterable[bytes]) -> bytes:
    """EPB1 with its MAC."""
    packed = b"".join(records)
    head = _HEAD.pack(
        b"EPB1",
        terminal.terminal_id.encode("ascii"),
        terminal.merchant_id.encode("ascii"),
        serial,
        len(packed) // RECORD_BYTES,
    )
    body = head + packed
    return body + bytes([terminal.mac_id]) + pad.field64(body)


def read_receipt(payload: bytes) -> Receipt:
    """ReceiptError when it is none."""
    if len(payload) < _RECEIPT.size + 9 or payload[:4] != b"EPA1":
        raise ReceiptError("not a receipt")
    _, terminal, serial, digest, result, count = _RECEIPT.unpack_from(payload)
    end = _RECEIPT.size + count * _RESULT.size
    if len(payload) != end + 9:
        raise ReceiptError("length and count differ")
    results = tuple(
        (number, code.decode("ascii", "replace"))
        for number, code in _RESULT.iter_unpack(payload[_RECEIPT.size : end])
    )
    name, said = terminal.decode("ascii", "replace"), result.decode("ascii", "replace")
    return Receipt(name, serial, digest, said, results, payload[:end], payload[end], payload[end + 1 :])


class Batches:
    """The records of one device. Use: add, next_batch, take; over and over.

    results: of every record that a receipt has named, by its serial.
    """

    def __init__(self, terminal: Terminal, *, next_serial: int = 1, records_max: int = 500) -> None:
        if not 1 <= records_max <= RECORDS_MAX:
            raise ValueError("a batch has 1 to 2000 records")
        self._terminal = terminal
        self._next_serial = next_serial
        self._records_max = records_max
        self._unsent: deque[bytes] = deque()
        self._open: tuple[int, list[bytes]] | None = None
        self._digest = b""  # of what was sent last
        self.results: dict[bytes, str] = {}
        self.taken: list[tuple[bytes, str]] = []  # the records of the last receipt and their results
        self.must_sign_on = False

    def add(self, records: Iterable[bytes]) -> None:
        """Keep records until a receipt names them."""
        self._unsent.extend(records)

    @property
    def waiting(self) -> int:
        """Records that no receipt has named."""
        return len(self._unsent) + (len(self._open[1]) if self._open is not None else 0)

    @property
    def open_serial(self) -> int:
        """Of the batch that waits for its receipt; 0 for none."""
        return self._open[0] if self._open is not None else 0

    def next_batch(self, pad: PinPad) -> bytes | None:
        """The batch that must be sent now, under today's key; None when nothing waits."""
        if self._open is None:
            if not self._unsent:
                return None
            many = min(self._records_max, len(self._unsent))
            self._open = (self._next_serial, [self._unsent.popleft() for _ in range(many)])
            self._next_serial += 1
        payload = pack_batch(self._terminal, pad, *self._open)
        self._digest = sm3(payload)
        return payload

    def take(self, payload: bytes, pad: PinPad | None) -> str:
        """What a receipt says; "" when it is about no batch that waits. ReceiptError when it must not be believed.

        Only a receipt with a good MAC lets anything be forgotten; what it says without one is a hint.
        """
        receipt = read_receipt(payload)
        if receipt.terminal_id != self._terminal.terminal_id:
            raise ReceiptError("another terminal's")
        if self._open is None or receipt.serial != self._open[0] or receipt.digest != self._digest:
            return ""
        good = pad is not None and receipt.mac_id == self._terminal.mac_id
        good = good and pad is not None and pad.mac_holds(receipt.signed, receipt.mac)
        if receipt.result == TAKEN:
            if not good:
                raise ReceiptError("the MAC is wrong")
            self._settle(receipt, self._open[1])
        elif receipt.result in (SIGN_ON, MAC_WRONG):
            self.must_sign_on = True
        elif receipt.result == OTHER_BYTES and good:
            # A device that was restored from a backup: the records go again under a serial of their own.
            self._unsent.extendleft(reversed(self._open[1]))
            self._open = None
        return receipt.result

    def _settle(self, receipt: Receipt, records: list[bytes]) -> None:
        if [number for number, _ in receipt.results] != [record[59:63] for record in records]:
            raise ReceiptError("names other records")
        self.results.update(receipt.results)
        self.taken = [(record, code) for record, (_, code) in zip(records, receipt.results, strict=True)]
        self._open = None
