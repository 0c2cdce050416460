"""EPB1, a batch of offline records over MQTT, and EPA1, its receipt: their layouts as data, reading and building.

docs/mqtt.md shows both to terminal makers. Form only: whose MAC it is and what the records are worth is decided elsewhere.
"""

from struct import Struct
from typing import Final, NamedTuple

from switch.domain.errors import FormatError
from switch.messages.digest import sm3

RECORD_BYTES: Final = 96
RECORDS_MAX: Final = 2_000
MAC_BYTES: Final = 8
RESULT_BYTES: Final = 6  # record serial 4, result 2 ASCII
NO_MAC_ID: Final = 0  # of a receipt that no key could sign; its MAC is zeros
BATCH_NAME: Final = b"EPB1"
RECEIPT_NAME: Final = b"EPA1"


class Part(NamedTuple):
    """One field of a fixed head: its first byte (counted from 1), its length, and how struct reads it."""

    name: str
    offset: int
    length: int
    code: str


BATCH_HEAD: Final = (
    Part("name", 1, 4, "4s"),
    Part("terminal_id", 5, 8, "8s"),  # field 41
    Part("merchant_id", 13, 15, "15s"),  # field 42
    Part("serial", 28, 4, "I"),
    Part("count", 32, 2, "H"),
)
RECEIPT_HEAD: Final = (
    Part("name", 1, 4, "4s"),
    Part("terminal_id", 5, 8, "8s"),
    Part("serial", 13, 4, "I"),
    Part("digest", 17, 32, "32s"),
    Part("result", 49, 2, "2s"),
    Part("count", 51, 2, "H"),
)


def _struct(parts: tuple[Part, ...]) -> Struct:
    """The fields, which follow each other without a hole."""
    made = Struct(">" + "".join(part.code for part in parts))
    assert [part.offset for part in parts] == [
        1 + sum(before.length for before in parts[:place]) for place in range(len(parts))
    ]
    assert made.size == sum(part.length for part in parts)
    return made


_BATCH: Final = _struct(BATCH_HEAD)
_RECEIPT: Final = _struct(RECEIPT_HEAD)
_TAIL: Final = 1 + MAC_BYTES
BATCH_BYTES_MAX: Final = _BATCH.size + RECORDS_MAX * RECORD_BYTES + _TAIL
_SERIAL_AT: Final = 27


class PurseBatch(NamedTuple):
    """A batch as read. digest: SM3 of everything before the MAC id, by which a repeat is known under any key."""

    terminal_id: str
    merchant_id: str
    serial: int
    records: tuple[bytes, ...]
    mac_id: int
    mac: bytes
    signed: bytes
    digest: bytes

    def __repr__(self) -> str:  # records hold card numbers
        return f"PurseBatch({self.terminal_id}, serial={self.serial}, {len(self.records)} records)"


def read_batch(payload: bytes) -> PurseBatch:
    """Read EPB1. FormatError names the rule and the first byte (from 0) of what breaks it."""
    if len(payload) < _BATCH.size + RECORD_BYTES + _TAIL:
        raise FormatError("shorter than a batch of one record")
    name, terminal, merchant, serial, count = _BATCH.unpack_from(payload)
    if name != BATCH_NAME:
        raise FormatError("does not begin with EPB1", offset=0)
    if not 1 <= count <= RECORDS_MAX:
        raise FormatError(f"a batch has 1 to {RECORDS_MAX} records", offset=31)
    end = _BATCH.size + count * RECORD_BYTES
    if len(payload) != end + _TAIL:
        raise FormatError("length and record count differ", offset=31)
    for text, offset in ((terminal, 4), (merchant, 12)):
        if not (text.isascii() and text.decode("latin-1").isprintable()):
            raise FormatError("not printable ASCII", offset=offset)
    signed = payload[:end]
    return PurseBatch(
        terminal.decode(),
        merchant.decode(),
        serial,
        tuple(payload[at : at + RECORD_BYTES] for at in range(_BATCH.size, end, RECORD_BYTES)),
        payload[end],
        payload[end + 1 :],
        signed,
        sm3(signed),
    )


def serial_named(payload: bytes) -> int:
    """The serial that a batch which cannot be read seems to have, so that its receipt can name it; else 0."""
    return int.from_bytes(payload[_SERIAL_AT : _SERIAL_AT + 4]) if payload.startswith(BATCH_NAME) else 0


def receipt_body(terminal_id: str, serial: int, payload: bytes, result: str, results: bytes = b"") -> bytes:
    """EPA1 before its MAC id. payload: the batch as it came. results: record serial and result of each, RESULT_BYTES each."""
    count, rest = divmod(len(results), RESULT_BYTES)
    assert not rest, "results come whole"
    head = _RECEIPT.pack(
        RECEIPT_NAME, terminal_id.encode("ascii"), serial, sm3(payload), result.encode("ascii"), count
    )
    return head + results
