"""The frames a terminal sends: fields by transaction, MAC and LEN. No state but the keys of one sign-on.

A `Terminal` is what is printed on the device's label and injected at the service point; a `PinPad` holds the working keys;
the functions make the fields of each request; `pack` turns them into bytes. `build_purchase` does all of it in one call for
load generators. Amounts in fen.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date
from hmac import compare_digest
from typing import Any, NamedTuple, Required, TypedDict, Unpack

from switch.domain.identifiers import mask_pan
from switch.domain.transactions import AccountKind
from switch.messages.codec import encode
from switch.messages.framing import frame
from switch.messages.message import Message
from terminal_sim import crypto
from terminal_sim.crypto import Algorithm, Block, WorkingKeys

Fields = dict[int, Any]
MAC_AT_END = 8
MTI_AT = 11
TRAINING_NIBBLE = 0x10  # header byte 3: digit 5 terminal state, digit 6 processing requirement
DETAILS_PER_MESSAGE = 8
RECORD_BYTES = 96
RECORDS_PER_UPLOAD = 5
COUNT_MAX = 999


@dataclass(frozen=True, slots=True)
class Terminal:
    """One device: numbers, terminal master key, MAC algorithm (1-5)."""

    terminal_id: str  # 8 characters
    merchant_id: str  # 15
    tmk: bytes
    mac_id: int = 1
    serial_number: str = "JXSMK00000000001"
    operator: str = "01"
    read_capability: str = "5"  # field 60.4: 2 stripe, 5 contact IC, 6 contact and contactless
    training: bool = False
    tpdu: bytes = bytes.fromhex("6000330000")
    header: bytes = bytes.fromhex("613100310001")

    def __repr__(self) -> str:
        return f"Terminal({self.terminal_id}, mac_id={self.mac_id})"

    @property
    def algorithm(self) -> Algorithm:
        """Of its TMK and working keys."""
        return crypto.MAC_ALGORITHM[self.mac_id]

    @property
    def sign_on_mode(self) -> str:
        """Field 60.3 of its sign-on without a track key."""
        return "005" if self.algorithm is Algorithm.SM4 else "003"


class CardData(NamedTuple):
    """What a reader gives of a card. Shows its number masked."""

    pan: str
    sequence: str = "001"
    expiry: str = ""  # YYMM

    def __repr__(self) -> str:
        return f"CardData({mask_pan(self.pan)})"


class Entry(TypedDict, total=False):
    """How a card was presented, where it is not by chip, without a PIN, to the online account."""

    pin: str | None
    account: AccountKind
    entry: str  # first two digits of field 22
    with_pan: bool  # False: the PIN block without PAN (3DES only)


class Numbers(TypedDict):
    """What numbers a request."""

    batch_no: int
    trace: int


class NumberedEntry(Entry):
    """Both."""

    batch_no: Required[int]
    trace: Required[int]


class OriginalRef(NamedTuple):
    """Field 61: the transaction that is meant."""

    batch_no: int
    trace: int
    day: date | str  # MMDD when it came from a field 13

    def field61(self) -> str:
        """Sixteen digits."""
        day = self.day if isinstance(self.day, str) else f"{self.day:%m%d}"
        return f"{self.batch_no:06d}{self.trace:06d}{day}"


class PinPad:
    """密碼鍵盤: the working keys of one sign-on, put to use. Shows none of them."""

    __slots__ = ("_algorithm", "_mac", "_pin")

    def __init__(self, terminal: Terminal, keys: WorkingKeys) -> None:
        self._algorithm = terminal.algorithm
        self._mac = crypto.terminal_mac(terminal.mac_id, keys.mac)
        self._pin = Block(self._algorithm, keys.pin)

    def field64(self, mab: bytes) -> bytes:
        """The MAC of a message."""
        return self._mac.field64(mab)

    def mac_holds(self, mab: bytes, field64: bytes) -> bool:
        """Whether a message that came has the right MAC."""
        return compare_digest(self._mac.field64(mab), field64)

    def pin_fields(self, pin: str, pan: str, *, with_pan: bool = True) -> Fields:
        """Fields 26, 53 and 52 (3DES) or DF51 in 55 (SM4, always with the PAN)."""
        if self._algorithm is Algorithm.SM4:
            block = self._pin.encrypt(crypto.clear_pin_block(pin, pan, 16))
            return {26: "06", 53: "2300000000000000", 55: b"\xdf\x51\x10" + block}
        block = self._pin.encrypt(crypto.clear_pin_block(pin, pan if with_pan else None, 8))
        return {26: "06", 52: block, 53: "2600000000000000" if with_pan else "1600000000000000"}


class Totals(NamedTuple):
    """One group of field 48."""

    debit_fen: int = 0
    debit_count: int = 0
    credit_fen: int = 0
    credit_count: int = 0

    def digits(self) -> str:
        """Thirty digits; the result digit comes behind them."""
        debit, credit = min(self.debit_count, COUNT_MAX), min(self.credit_count, COUNT_MAX)
        return f"{self.debit_fen:012d}{debit:03d}{self.credit_fen:012d}{credit:03d}"


class Detail(NamedTuple):
    """One item of a detail upload."""

    trace: int
    pan: str
    amount_fen: int

    def __repr__(self) -> str:
        return f"Detail({self.trace:06d}, {mask_pan(self.pan)}, {self.amount_fen})"


def pack(terminal: Terminal, mti: str, fields: Fields, pin_pad: PinPad | None) -> bytes:
    """The whole frame with LEN; with a PIN pad, field 64 is computed and appended."""
    header = terminal.header
    if terminal.training:
        header = header[:2] + bytes((header[2] | TRAINING_NIBBLE,)) + header[3:]
    if pin_pad is None:
        return frame(encode(Message(terminal.tpdu, header, mti, fields)))
    body = encode(Message(terminal.tpdu, header, mti, {**fields, 64: bytes(MAC_AT_END)}))[:-MAC_AT_END]
    return frame(body + pin_pad.field64(body[MTI_AT:]))


# --- administration -------------------------------------------------------------------------------------------------


def management_fields(
    terminal: Terminal, code: str, *, batch_no: int, trace: int | None, field62: bytes = b""
) -> Fields:
    """0800 and 0820: code is field 60.3; no trace in an echo."""
    fields: Fields = {41: terminal.terminal_id, 42: terminal.merchant_id, 60: f"00{batch_no:06d}{code}"}
    if trace is not None:
        fields[11] = f"{trace:06d}"
    if field62:
        fields[62] = field62
    return fields


def sign_on_fields(terminal: Terminal, mode: str, *, batch_no: int, trace: int) -> Fields:
    """0800 with 60.3 = 001, 003, 004, 005 or 006."""
    serial = terminal.serial_number
    fields = management_fields(
        terminal,
        mode,
        batch_no=batch_no,
        trace=trace,
        field62=f"Sequence No{len(serial):02d}{serial}".encode("ascii"),
    )
    return fields | {63: f"{terminal.operator} "}


# --- transactions ---------------------------------------------------------------------------------------------------


def _card_fields(
    terminal: Terminal,
    pin_pad: PinPad,
    card: CardData,
    transaction_type: str,
    verb: str,
    *,
    batch_no: int,
    trace: int,
    pin: str | None = None,
    account: AccountKind = AccountKind.ONLINE,
    entry: str = "05",
    with_pan: bool = True,
) -> Fields:
    """What a card is presented for. verb: first two digits of field 3."""
    fields: Fields = {
        2: card.pan,
        3: f"{verb}{account:02d}00",
        11: f"{trace:06d}",
        22: f"{entry}{2 if pin is None else 1}",
        25: "00",
        41: terminal.terminal_id,
        42: terminal.merchant_id,
        49: "156",
        60: f"{transaction_type}{batch_no:06d}000{terminal.read_capability}0",
    }
    if card.sequence:
        fields[23] = card.sequence
    if card.expiry:
        fields[14] = card.expiry
    if pin is not None:
        fields |= pin_pad.pin_fields(pin, card.pan, with_pan=with_pan)
    return fields


def purchase_fields(
    terminal: Terminal, pin_pad: PinPad, card: CardData, amount_fen: int, **how: Unpack[NumberedEntry]
) -> Fields:
    """0200, 00AA00."""
    return _card_fields(terminal, pin_pad, card, "22", "00", **how) | {4: f"{amount_fen:012d}"}


def balance_fields(
    terminal: Terminal, pin_pad: PinPad, card: CardData, **how: Unpack[NumberedEntry]
) -> Fields:
    """0200, 31AA00."""
    return _card_fields(terminal, pin_pad, card, "01", "31", **how)


def pre_authorisation_fields(
    terminal: Terminal, pin_pad: PinPad, card: CardData, amount_fen: int, **how: Unpack[NumberedEntry]
) -> Fields:
    """0100, 03AA00."""
    return _card_fields(terminal, pin_pad, card, "10", "03", **how) | {4: f"{amount_fen:012d}", 25: "06"}


def void_fields(
    original: Fields, ref: OriginalRef, *, rrn: str, auth_code: str, batch_no: int, trace: int
) -> Fields:
    """0200, 20AA00: the whole of the original, whose request fields are given."""
    fields = _undoing(original, "23", ref, batch_no, trace)
    fields[37] = rrn
    if auth_code:
        fields[38] = auth_code
    return fields


def refund_fields(
    original: Fields, ref: OriginalRef, amount_fen: int, *, rrn: str, batch_no: int, trace: int
) -> Fields:
    """0220, 20AA00: all or part of the original."""
    fields = _undoing(original, "25", ref, batch_no, trace)
    return fields | {4: f"{amount_fen:012d}", 25: "00", 37: rrn, 63: "000"}


def pre_authorisation_void_fields(
    original: Fields, ref: OriginalRef, *, auth_code: str, batch_no: int, trace: int
) -> Fields:
    """0100, 20AA00: the whole of a pre-authorisation."""
    return _undoing(original, "11", ref, batch_no, trace) | {38: auth_code}


def completion_fields(
    original: Fields,
    ref: OriginalRef,
    amount_fen: int,
    *,
    auth_code: str,
    batch_no: int,
    trace: int,
    advice: bool = False,
) -> Fields:
    """0200 or, as advice, 0220, 00AA00: what a pre-authorisation came to."""
    fields = _undoing(original, "24" if advice else "20", ref, batch_no, trace)
    return fields | {3: "00" + original[3][2:], 4: f"{amount_fen:012d}", 38: auth_code}


def completion_void_fields(
    original: Fields, ref: OriginalRef, *, rrn: str, auth_code: str, batch_no: int, trace: int
) -> Fields:
    """0200, 20AA00 with condition 06: the whole of a completion."""
    return _undoing(original, "21", ref, batch_no, trace) | {37: rrn, 38: auth_code}


def _undoing(original: Fields, transaction_type: str, ref: OriginalRef, batch_no: int, trace: int) -> Fields:
    kept: Fields = {n: original[n] for n in (2, 4, 14, 22, 23, 25, 41, 42, 49) if n in original}
    return kept | {
        3: "20" + original[3][2:],
        11: f"{trace:06d}",
        60: f"{transaction_type}{batch_no:06d}{original[60][8:]}",
        61: ref.field61(),
    }


def reversal_fields(original: Fields, ref: OriginalRef, reason: str, *, auth_code: str = "") -> Fields:
    """0400 for a request whose fields are given: same trace, same batch, the reason in field 39 (98, 96, A0, 06)."""
    fields: Fields = {n: original[n] for n in (2, 3, 4, 11, 14, 22, 23, 25, 41, 42, 49, 60) if n in original}
    fields |= {39: reason, 61: ref.field61()}
    if auth_code:
        fields[38] = auth_code
    return fields


# --- batch ----------------------------------------------------------------------------------------------------------


def upload_fields(terminal: Terminal, records: Sequence[bytes], *, batch_no: int, trace: int) -> Fields:
    """0320/203: one to five offline records of 96 bytes."""
    count = bytes.fromhex(f"{len(records):02d}")
    return management_fields(
        terminal, "203", batch_no=batch_no, trace=trace, field62=count + b"".join(records)
    )


def settlement_fields(
    terminal: Terminal, accounts: Totals, purse: Totals, *, batch_no: int, trace: int
) -> Fields:
    """0500."""
    fields = management_fields(terminal, "201", batch_no=batch_no, trace=trace)
    return fields | {48: f"{accounts.digits()}0{purse.digits()}0", 49: "156", 63: f"{terminal.operator} "}


def detail_fields(terminal: Terminal, details: Sequence[Detail], *, batch_no: int, trace: int) -> Fields:
    """0320/201: at most eight details."""
    items = (f"00{item.trace:06d}{item.pan.rjust(20, '0')}{item.amount_fen:012d}" for item in details)
    fields = management_fields(terminal, "201", batch_no=batch_no, trace=trace)
    return fields | {48: f"{len(details):02d}" + "".join(items)}


def batch_end_fields(terminal: Terminal, balanced: bool, count: int, *, batch_no: int, trace: int) -> Fields:
    """0320/207 or, after an unbalanced settlement, 202. count: records uploaded in the batch, or all details."""
    code = "207" if balanced else "202"
    return management_fields(terminal, code, batch_no=batch_no, trace=trace) | {48: f"{count:04d}"}


# --- for load generators --------------------------------------------------------------------------------------------


def build_purchase(
    terminal: Terminal, pin_pad: PinPad, card: CardData, amount_fen: int, **how: Unpack[NumberedEntry]
) -> bytes:
    """A purchase as one frame with LEN and MAC, ready to be sent."""
    return pack(terminal, "0200", purchase_fields(terminal, pin_pad, card, amount_fen, **how), pin_pad)
