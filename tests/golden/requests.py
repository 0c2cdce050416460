"""A golden request made anew for today: other keys, batch, originals and dates, and not a byte more.

With the golden keys and what the golden switch answered, every request comes out as the golden frame; a test holds it to that.
"""

import json
from collections.abc import Mapping
from datetime import date
from functools import cache
from pathlib import Path
from typing import Any, Final, NamedTuple

from switch.messages.codec import decode, encode
from switch.messages.message import Message
from switch.messages.terminal_1987 import MAC_BYTES, MTI_AT
from switch.messages.tlv import read_tlvs
from terminal_sim import crypto
from terminal_sim.crypto import Algorithm
from terminal_sim.frames import RECORD_BYTES, PinPad
from terminal_sim.records import crc16

HERE: Final = Path(__file__).parent
VECTORS: Final = HERE.parent / "vectors/iso8583.json"
MAC_IDS: Final = {"CUP-ECB-3DES": 1, "X9.9-DES-CBC": 2, "X9.19-3DES": 3, "CUP-ECB-SM4": 4, "SM4-CBC-MAC": 5}
SIGN_ON_CODES: Final = frozenset({"001", "003", "004", "005", "006"})

Tags = dict[str, bytes]


@cache
def suite() -> dict[str, Any]:
    """The file of golden frames."""
    document: dict[str, Any] = json.loads(VECTORS.read_text(encoding="utf-8"))
    return document


@cache
def vectors() -> dict[str, dict[str, Any]]:
    """The golden frames by id."""
    return {vector["id"]: vector for vector in suite()["vectors"]}


@cache
def golden(vector_id: str) -> Message:
    """A golden frame, decoded."""
    return decode(bytes.fromhex(vectors()[vector_id]["frame"])[2:])


@cache
def seed() -> dict[str, Any]:
    """The registry file of the seed."""
    document: dict[str, Any] = json.loads((HERE / "seed.json").read_text(encoding="utf-8"))
    return document


@cache
def root_key(kind: str, algorithm: Algorithm) -> bytes:
    """A key of the seed: TMMK, DLK or DTK."""
    name = "SM4" if algorithm is Algorithm.SM4 else "3DES"
    keys = json.loads((HERE / "keys.json").read_text(encoding="ascii"))["keys"]
    found = next(key for key in keys if (key["type"], key["algorithm"]) == (kind, name))
    return bytes.fromhex(found["components"][0])


def card_key(kind: str, algorithm: Algorithm, issuer: bytes, asn: bytes) -> bytes:
    """A card's DLK or DTK. asn: 10 bytes."""
    issuer_key = crypto.diversify(algorithm, root_key(kind, algorithm), issuer)
    return crypto.diversify(algorithm, issuer_key, asn[2:])


def tags_of(message: Message) -> Tags:
    """Field 55 by tag."""
    return {found.tag: found.value for found in read_tlvs(message.fields.get(55, b""))}


class Told(NamedTuple):
    """A request as it was sent and what was answered: what later requests name as their original."""

    request: Message
    answer: Message

    @property
    def batch(self) -> str:
        """Of the request."""
        return str(self.request.fields[60])[2:8]

    @property
    def field61(self) -> str:
        """How a later request names it."""
        return f"{self.batch}{self.request.fields[11]}{self.answer.fields[13]}"


class Today(NamedTuple):
    """What a request of today needs to know. batch: "" to leave 60.2 as it is; originals: by golden batch and trace."""

    pin_pad: PinPad | None
    batch: str
    originals: Mapping[tuple[str, str], Told]
    day: date


def original_key(message: Message) -> tuple[str, str] | None:
    """Golden batch and trace of the transaction that a golden request names."""
    named = message.fields.get(61)
    return (named[:6], named[6:12]) if named else None


def is_sign_on(message: Message) -> bool:
    """Whether it asks for working keys; its 60.2 is whatever the terminal remembers."""
    return message.mti == "0800" and message.fields[60][8:] in SIGN_ON_CODES


def rebuilt(vector_id: str, today: Today) -> bytes:
    """The body of a golden request, its MAC included, under today's keys."""
    vector, message = vectors()[vector_id], golden(vector_id)
    fields = dict(message.fields)
    if today.batch and not is_sign_on(message):
        fields[60] = fields[60][:2] + today.batch + fields[60][8:]
    if pin := vector.get("clear_pin"):
        assert today.pin_pad is not None
        fields |= today.pin_pad.pin_fields(pin, fields[2]) | _beside_pin(message)
    if (key := original_key(message)) is not None:
        original = today.originals[key]
        fields[61] = original.field61
        if 37 in fields:
            fields[37] = original.answer.fields[37]
        if 38 in fields:
            fields[38] = original.answer.fields[38]
        if message.mti == "0220" and 55 in fields:
            fields[55] = _confirmed(tags_of(message), fields[4], original)
    if fields[60][8:11] == "203":
        fields[62] = redated(fields[62], today.day)
    if 64 not in fields:
        return encode(Message(message.tpdu, message.header, message.mti, fields))
    assert today.pin_pad is not None
    made = encode(Message(message.tpdu, message.header, message.mti, fields))[:-MAC_BYTES]
    field64 = today.pin_pad.field64(made[MTI_AT:])
    if vector.get("expected", {}).get("accept") is False:
        field64 = _spoilt_alike(vector, message, field64)
    return made + field64


def _beside_pin(message: Message) -> dict[int, Any]:
    """Field 55 of a message that carries both its PIN in field 52 and the data of a load."""
    return {55: message.fields[55]} if 52 in message.fields and 55 in message.fields else {}


def _confirmed(tags: Tags, amount: str, load: Told) -> bytes:
    """Field 55 of a load confirm: the instant that the switch named, and the TAC that the card would have made with it."""
    answered, asked = tags_of(load.answer), tags_of(load.request)
    tags = {tag: answered.get(tag, value) for tag, value in tags.items()}
    data = tags["DF32"] + tags["DF14"] + int(amount).to_bytes(4) + tags["DF19"] + tags["DF18"]
    algorithm = Algorithm(asked["DF15"][1])
    dtk = card_key("DTK", algorithm, asked["DF12"], asked["DF11"])
    tags["DF31"] = crypto.tac(algorithm, dtk, data + tags["DF21"] + tags["DF22"])
    return b"".join(bytes.fromhex(tag) + bytes((len(value),)) + value for tag, value in tags.items())


def redated(field62: bytes, day: date) -> bytes:
    """Offline records as if they had been written on that day, at the same time: with the TAC and the CRC that follow."""
    records = [field62[at : at + RECORD_BYTES] for at in range(1, len(field62), RECORD_BYTES)]
    return field62[:1] + b"".join(_redated(record, day) for record in records)


def _redated(record: bytes, day: date) -> bytes:
    algorithm = Algorithm(record[3])
    moment = bytes.fromhex(f"{day:%Y%m%d}") + record[42:45]
    dtk = card_key("DTK", algorithm, record[16:24], record[6:16])
    tac = crypto.tac(algorithm, dtk, record[30:34] + record[2:3] + record[45:55] + moment)
    head = record[:38] + moment + record[45:55] + tac + record[59:94]
    return head + crc16(head).to_bytes(2)


def _spoilt_alike(vector: dict[str, Any], message: Message, field64: bytes) -> bytes:
    """A good MAC with the bits turned over that the golden one has wrong."""
    mac = crypto.terminal_mac(MAC_IDS[vector["mac_algorithm"]], bytes.fromhex(vector["mak"]))
    right = mac.field64(message.mab)
    wrong = int.from_bytes(right) ^ int.from_bytes(message.field64)
    assert wrong, "the golden frame is spoilt"
    return (int.from_bytes(field64) ^ wrong).to_bytes(MAC_BYTES)
