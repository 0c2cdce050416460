"""A terminal that somebody else makes, written from docs/ alone: its session and the messages of a merchant's day.

It is an example for makers of terminals and a check of the documents: nothing here comes from the switch or from `terminal_sim`. The codec is
in `foreign_codec`, the cryptography in `foreign_crypto`; besides the standard library all three need only the package `cryptography`.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

from tests.scenarios import foreign_crypto as crypto
from tests.scenarios.foreign_codec import HEADER, Fields, Line, Message, Value, pack, unpack
from tests.scenarios.foreign_crypto import Algorithm

PURCHASE, BALANCE, VOID, REFUND = "22", "01", "23", "25"


@dataclass
class Totals:
    """What the terminal believes of its open batch, as field 48 wants it: amounts in fen and counts."""

    online_debit_fen: int = 0
    online_debits: int = 0
    online_credit_fen: int = 0
    online_credits: int = 0
    purse_debit_fen: int = 0
    purse_debits: int = 0

    def field_48(self) -> str:
        """Two groups of 31 digits; a terminal without loads has no purse credit."""
        online = f"{self.online_debit_fen:012d}{self.online_debits:03d}{self.online_credit_fen:012d}{self.online_credits:03d}0"
        purse = f"{self.purse_debit_fen:012d}{self.purse_debits:03d}{0:012d}{0:03d}0"
        return online + purse


@dataclass
class Terminal:
    """One terminal: its keys, its batch and trace, and the messages it can send.

    Every message method packs and returns a frame; `ask` sends it and reads the answer. So a frame can be sent twice, spoilt or held back.
    """

    address: tuple[str, int]
    terminal_id: str
    merchant_id: str
    algorithm: Algorithm
    mac_id: int
    tmk: bytes
    header: str = HEADER
    batch: str = "000000"
    keys: crypto.WorkingKeys | None = None
    totals: Totals = field(default_factory=Totals)
    _trace: int = 0
    _line: Line | None = None

    # ------------------------------------------------------------------ the line

    def hang_up(self) -> None:
        """Close the connection; the next message opens another. The session goes on."""
        if self._line is not None:
            self._line.close()
            self._line = None

    def send(self, frame: bytes) -> bytes | None:
        """Send bytes; the body of the answer, or None when the switch closes instead."""
        if self._line is None:
            self._line = Line(*self.address)
        self._line.send(frame)
        body = self._line.receive()
        if body is None:
            self.hang_up()
        return body

    def ask(self, frame: bytes) -> Message:
        """Send a frame and read its answer. A field 64 must be good under the working keys."""
        body = self.send(frame)
        assert body is not None, "the switch closed the connection"
        answer = unpack(body)
        if 64 in answer.fields:
            assert self.sign(answer.mab) == answer.data(64), f"field 64 of an answer {answer.code} is wrong"
        return answer

    # ------------------------------------------------------------------ packing

    def next_trace(self) -> str:
        """A trace that this batch has not seen."""
        self._trace += 1
        return f"{self._trace:06d}"

    def sign(self, mab: bytes) -> bytes:
        """Field 64 under today's MAK."""
        assert self.keys is not None, "sign on first"
        return crypto.mac(self.mac_id, self.keys.mak, mab)

    def frame(self, mti: str, fields: Fields, *, mac: bool = True) -> bytes:
        """A frame with fields 41 and 42, and field 64 when mac is set."""
        message = Message(mti, {41: self.terminal_id, 42: self.merchant_id, **fields}, header=self.header)
        return pack(message, self.sign if mac else None)

    def administrative(self, mti: str, code: str, more: Fields | None = None, *, mac: bool = True) -> bytes:
        """An administrative message with a trace of its own; code is 60.3."""
        return self.frame(mti, {11: self.next_trace(), 60: f"00{self.batch}{code}", **(more or {})}, mac=mac)

    def pin_fields(self, pan: str, pin: str, *, with_pan: bool = True) -> dict[int, Value]:
        """Fields 26 and 53, and the PIN block in 52 (3DES) or tag DF51 of 55 (SM4)."""
        assert self.keys is not None, "sign on first"
        block = crypto.pin_block(self.algorithm, self.keys.pik, pin, pan if with_pan else None)
        if self.algorithm == "SM4":
            return {26: "12", 53: "23".ljust(16, "0"), 55: bytes.fromhex("DF5110") + block}
        return {26: "12", 53: ("26" if with_pan else "16").ljust(16, "0"), 52: block}

    def card_message(
        self,
        mti: str,
        processing: str,
        kind: str,
        pan: str,
        amount_fen: int | None,
        *,
        entry: str = "012",
        more: Fields | None = None,
    ) -> bytes:
        """A card message; kind is 60.1, entry field 22, amount_fen None in a balance inquiry."""
        fields: dict[int, Value] = {
            2: pan,
            3: processing,
            11: self.next_trace(),
            22: entry,
            25: "00",
            49: "156",
        }
        if amount_fen is not None:
            fields[4] = f"{amount_fen:012d}"
        return self.frame(mti, fields | {60: f"{kind}{self.batch}00050"} | dict(more or {}))

    # ------------------------------------------------------------------ messages

    def sign_on(self, code: str | None = None) -> Message:
        """Sign on; takes over keys and batch when the answer is 00."""
        code = code or ("003" if self.algorithm == "3DES" else "005")
        serial = b"Sequence No" + b"08" + self.terminal_id.encode("ascii")
        answer = self.ask(self.administrative("0800", code, {62: serial, 63: b"01 "}, mac=False))
        if answer.code == "00":
            self.keys = crypto.unwrap_working_keys(self.algorithm, self.tmk, answer.data(62))
            batch = answer.text(60)[2:8]
            if batch != self.batch:
                self.batch, self._trace, self.totals = batch, 0, Totals()
        return answer

    def echo(self) -> bytes:
        """An echo test: no trace, no field 64."""
        return self.frame("0820", {60: f"00{self.batch}301"}, mac=False)

    def sign_off(self) -> bytes:
        """A sign-off."""
        return self.administrative("0820", "002")

    def balance(self, pan: str, pin: str | None = None) -> bytes:
        """A balance inquiry of the online account."""
        pin_fields = self.pin_fields(pan, pin) if pin else {}
        return self.card_message(
            "0200", "311000", BALANCE, pan, None, entry="051" if pin else "052", more=pin_fields
        )

    def purchase(
        self, pan: str, amount_fen: int, pin: str | None = None, *, account: str = "10", with_pan: bool = True
    ) -> bytes:
        """A purchase from an account of the card."""
        pin_fields = self.pin_fields(pan, pin, with_pan=with_pan) if pin else {}
        entry = "051" if pin else "052"
        return self.card_message(
            "0200", f"00{account}00", PURCHASE, pan, amount_fen, entry=entry, more=pin_fields
        )

    def undo(
        self, mti: str, kind: str, original: Message, amount_fen: int, more: Fields | None = None
    ) -> bytes:
        """A void (0200, 23) or refund (0220, 25) of the purchase that `original` answered."""
        named: dict[int, Value] = {37: original.text(37), 61: original_of(original)}
        if kind == VOID:
            named[38] = original.text(38)
        processing = "20" + original.text(3)[2:]
        return self.card_message(
            mti, processing, kind, original.text(2), amount_fen, entry="052", more={**named, **(more or {})}
        )

    def void(self, original: Message, amount_fen: int | None = None) -> bytes:
        """A void of an approved purchase of this batch."""
        return self.undo("0200", VOID, original, int(original.text(4)) if amount_fen is None else amount_fen)

    def refund(self, original: Message, amount_fen: int) -> bytes:
        """A refund of all or a part of an approved purchase."""
        return self.undo("0220", REFUND, original, amount_fen, {63: b"000"})

    def reversal(self, request: bytes, date: str, reason: str = "98") -> bytes:
        """A reversal of a card message of this batch; date MMDD by field 13 of the answer, or by our own clock."""
        original = unpack(request[2:])
        repeated: dict[int, Value] = {
            number: original.fields[number] for number in (2, 3, 4, 11, 22, 25, 49, 60)
        }
        return self.frame("0400", {**repeated, 39: reason, 61: self.batch + original.text(11) + date})

    def upload(self, records: Sequence[bytes]) -> bytes:
        """Offline records, one to five."""
        return self.administrative("0320", "203", {62: bytes([len(records)]) + b"".join(records)})

    def settlement(self, totals: Totals | None = None) -> bytes:
        """The terminal's totals, by default what it believes."""
        return self.administrative(
            "0500", "201", {48: (totals or self.totals).field_48(), 49: "156", 63: b"01 "}
        )

    def details(self, lines: Sequence[tuple[str, str, int]]) -> bytes:
        """Detail upload: trace, card number and amount of one to eight online transactions."""
        text = "".join(f"00{trace}{pan:0>20}{amount_fen:012d}" for trace, pan, amount_fen in lines)
        return self.administrative("0320", "201", {48: f"{len(lines):02d}{text}"})

    def batch_end(self, code: str, count: int) -> bytes:
        """The end of a batch: 207 with the offline records, 202 with all details."""
        return self.administrative("0320", code, {48: f"{count:04d}"})


def original_of(answer: Message) -> str:
    """Field 61 for what this answered: batch, trace, date."""
    return answer.text(60)[2:8] + answer.text(11) + answer.text(13)


def results(answer: Message) -> list[tuple[int, str]]:
    """Field 62 of an 0330: record serial of the terminal, and result."""
    content = answer.data(62)
    found = [
        (int.from_bytes(piece[:4], "big"), piece[4:].decode("ascii"))
        for piece in crypto.blocks(content[1:], 6)
    ]
    assert len(found) == content[0]
    return found


def spoilt(frame: bytes) -> bytes:
    """The frame with one bit of field 64 turned round."""
    return frame[:-1] + bytes([frame[-1] ^ 1])


def with_fields(
    frame: bytes, terminal: Terminal, changes: Mapping[int, Value | None], *, header: str | None = None
) -> bytes:
    """The frame with fields replaced, or left out where None, and a good field 64."""
    message = unpack(frame[2:])
    fields = {
        number: value for number, value in message.fields.items() if number not in changes and number != 64
    }
    fields |= {number: value for number, value in changes.items() if value is not None}
    changed = replace(message, fields=fields, header=header or message.header)
    return pack(changed, terminal.sign if 64 in message.fields else None)
