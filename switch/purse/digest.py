"""Records digested: read, TAC checked, and packed as far as can be without the database. Runs in worker processes too.

What comes out is one fixed-size piece of bytes per record, so that thousands travel between processes as one string and
the event loop's process spends little on each. The pieces that go into COPY rows are made here (see `rows`).
"""

from collections.abc import Callable, Iterable, Sequence
from struct import Struct
from typing import Any, Final

from switch.domain.errors import FormatError
from switch.keys.purse import TacItem
from switch.keys.workers import verify_in_worker
from switch.purse.record import GREY, LOCKED, NO_TAC, NORMAL, RECORD_BYTES, TEST, check_form, happened_us

VerifyTacs = Callable[[Sequence[TacItem]], Sequence[bool]]

# What the TAC field says. A TAC is checked only where it could matter: not in grey, test and lock records.
NO_TAC_YET, TAC_BAD, TAC_GOOD, TAC_UNCHECKED = 0, 1, 2, 3

_FIELDS = Struct(
    ">16x8s4xHII13xI4xI8s"
)  # issuer id, ATC, amount, balance, PSAM serial, record serial, acquirer
assert _FIELDS.size == 71

PARSED: Final = Struct(">iqiiiqiqiqiqiqiqih")  # card … record_kind, each with its length: rows.RECORD_COLUMNS
ATC_HEAD: Final = Struct(">hiqiiiqiqi21s")  # card … mark: rows.ATC_COLUMNS without the last two
SERIAL: Final = Struct(">hiqiqiqii")  # rows.SERIAL_COLUMNS
DIGEST: Final = Struct(f">BBBqqIHI8s8s7s21s{PARSED.size}s{ATC_HEAD.size}s{SERIAL.size}s")
UNREADABLE: Final = DIGEST.pack(
    0, 0, 0, 0, 0, 0, 0, 0, bytes(8), bytes(8), bytes(7), bytes(21), b"", b"", b""
)
_TWO_63 = 1 << 63
_TWO_64 = 1 << 64


def tac_input(raw: bytes) -> bytes:
    """The 22 bytes under the TAC: amount ‖ TTI ‖ PSAM number ‖ PSAM serial ‖ date ‖ time."""
    return raw[30:34] + raw[2:3] + raw[45:55] + raw[38:45]


def tac_item(raw: bytes) -> TacItem:
    """What the vault needs to check the TAC of a record that can be read."""
    return TacItem(raw[3], raw[4], raw[16:24], raw[8:16], tac_input(raw), raw[55:59])


def wants_tac(raw: bytes) -> bool:
    """Whether a TAC check could matter for a record that can be read."""
    return raw[1] == NORMAL and raw[55:59] not in NO_TAC


def digest(records: Iterable[bytes], verify: VerifyTacs) -> bytes:
    """Digests of records in their order, DIGEST.size bytes each."""
    pieces: list[bytes | None] = []
    items: list[TacItem] = []
    checked: list[tuple[int, bytes, str]] = []
    for raw in records:
        try:
            digits = check_form(raw)
        except FormatError:
            pieces.append(UNREADABLE)
            continue
        if wants_tac(raw):
            checked.append((len(pieces), raw, digits))
            items.append(tac_item(raw))
            pieces.append(None)
        else:
            pieces.append(digest_one(raw, digits, TAC_UNCHECKED if raw[1] in (TEST, LOCKED) else NO_TAC_YET))
    for (place, raw, digits), good in zip(checked, verify(items), strict=True):
        pieces[place] = digest_one(raw, digits, TAC_GOOD if good else TAC_BAD)
    return b"".join([piece for piece in pieces if piece is not None])


def digest_one(raw: bytes, digits: str, tac: int) -> bytes:
    """The digest of a record whose form is good. digits: what check_form returned."""
    issuer_id, atc, amount_fen, balance_fen, serial, record_serial, acquirer = _FIELDS.unpack_from(raw)
    card = int(digits[12:32])
    if card >= _TWO_63:
        card -= _TWO_64
    psam = int(digits[90:102])
    mark = raw[38:59]
    kind = raw[1]
    grey = kind == GREY or (kind == NORMAL and tac == NO_TAC_YET)
    return DIGEST.pack(
        NO_TAC_YET if grey else tac,
        1,
        kind,
        card,
        psam,
        serial,
        atc,
        amount_fen,
        issuer_id,
        acquirer,
        raw[38:45],
        mark,
        PARSED.pack(
            *(8, card, 4, atc, 8, amount_fen, 8, balance_fen, 8, psam, 8, serial, 8, record_serial),
            *(8, happened_us(raw, digits), 2, kind),
        ),
        ATC_HEAD.pack(7, 8, card, 4, atc, 8, amount_fen, 8, balance_fen, 21, mark),
        SERIAL.pack(4, 8, psam, 8, serial, 8, card, 4, atc),
    )


def digest_in_worker(blob: bytes) -> bytes:
    """Digests of records of 96 bytes that lie one behind the other; for a pool of keys.workers.tac_pool."""
    records = [blob[at : at + RECORD_BYTES] for at in range(0, len(blob), RECORD_BYTES)]
    return digest(records, verify_in_worker)


def digested(digests: bytes) -> Iterable[tuple[Any, ...]]:
    """The digests again, each as a tuple in the order of DIGEST."""
    return DIGEST.iter_unpack(digests)
