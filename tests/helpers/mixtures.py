"""Mixtures of offline records in which everything happens: few cards, counters, instants, so that most records meet another."""

from collections.abc import Callable, Sequence
from datetime import datetime, timedelta
from functools import lru_cache
from typing import Any

from hypothesis import strategies as st

from switch.domain.calendar import SHANGHAI
from switch.keys.derivation import card_key, issuer_key
from switch.keys.primitives import Algorithm, MasterKey, TacKey
from switch.keys.purse import tac
from switch.purse.digest import TAC_BAD, TAC_GOOD, UNREADABLE, tac_input, unchecked
from switch.purse.record import crc16
from switch.purse.verify import Candidate, Card, Psam, registration_fault
from terminal_sim.records import RecordKind
from tests.helpers.offline import (
    CITY,
    FOREIGN_ISSUER,
    ISSUER,
    OWN,
    ROOT,
    VALID_FROM,
    VALID_THROUGH,
    Ride,
    merchant_of,
    pan_of,
    psam_of,
)

UNKNOWN_ISSUER = bytes.fromhex("99990001FFFFFFFF")
STRAY = "0" + pan_of(777_777)
HIGH_STRAY = "0" + "9" * 19  # as signed eight bytes below zero
MINUTES = (1, 2, -23 * 60, -25 * 60, 89 * 1440, 91 * 1440, 12 * 365 * 1440)  # before now

_packed = lru_cache(maxsize=100_000)(lambda ride: ride.pack())


Choose = Callable[[Sequence[Any]], Any]


def mixed_record(choose: Choose, now: datetime) -> bytes:
    """A record of any sort; most are good in themselves. choose: takes one of several things, by chance."""
    kind = choose([RecordKind.NORMAL] * 6 + [RecordKind.GREY, RecordKind.LOCKED, RecordKind.TEST])
    minutes = choose([1] * 8 + list(MINUTES))
    ride = Ride(
        card=choose(range(1, 5)),
        atc=choose(range(6)),
        amount_fen=0 if kind is RecordKind.LOCKED else choose([200, 200, 200, 300]),
        terminal_no=choose([1, 1, 2, 7, 8]),
        kind=kind,
        sm4=choose([True, False]),
        when=(now - timedelta(minutes=minutes)).astimezone(SHANGHAI).replace(microsecond=0),
        psam_serial=choose(range(1, 13)),
        record_serial=choose(range(1, 6)),
        issuer=choose([ISSUER] * 8 + [FOREIGN_ISSUER, UNKNOWN_ISSUER]),
        acquirer=choose([None] * 8 + [OWN, CITY]),
        tac=choose([None] * 8 + [b"\1\2\3\4", bytes(4), b"\xff" * 4]),
        asn=choose([""] * 8 + [STRAY, HIGH_STRAY]),
        psam=choose([b""] * 12 + [bytes.fromhex("335099999999")]),
    )
    raw: bytes = _packed(ride)
    if choose(range(10)) == 0:
        raw = spoiled(raw, choose(range(96)), choose(range(1, 256)), mended=choose([True, False]))
    return raw


@st.composite
def mixed_records(draw: st.DrawFn, now: datetime) -> bytes:
    """The same for hypothesis."""
    return mixed_record(lambda options: draw(st.sampled_from(options)), now)


def spoiled(raw: bytes, at: int, by: int, *, mended: bool) -> bytes:
    """A record with another byte in one place. mended: its CRC is made good again."""
    raw = raw[:at] + bytes([raw[at] ^ by]) + raw[at + 1 :]
    return raw[:-2] + crc16(raw[:-2]).to_bytes(2) if mended else raw


@lru_cache(maxsize=100_000)
def digest_of(raw: bytes) -> int:
    """The digest of a record, its TAC checked by itself with `purse.tac`."""
    candidate = Candidate(raw)
    if not candidate.readable:
        return UNREADABLE
    if not candidate.wants_tac:
        return unchecked(raw)
    item = candidate.tac_item()
    if item.version != 1:
        return TAC_BAD
    algorithm = Algorithm(item.algorithm)
    key = card_key(issuer_key(MasterKey(ROOT, algorithm, "DTK"), item.issuer_id), item.diversifier, TacKey)
    return TAC_GOOD if tac(key, tac_input(raw)) == item.tac else TAC_BAD


def registered(terminal_no: int) -> Psam:
    """A PSAM of the town (helpers.offline.build)."""
    merchant_no = merchant_of(terminal_no)
    acquirer = CITY if merchant_no == 3 else OWN
    return Psam(merchant_no, True, acquirer, acquirer == CITY)


CARDS = {
    int(pan_of(number)): Card(
        number % 2, number, bytes.fromhex(f"{VALID_FROM:%Y%m%d}"), bytes.fromhex(f"{VALID_THROUGH:%Y%m%d}")
    )
    for number in range(1, 5)
}
PSAMS = {int(psam_of(number).hex()): registered(number) for number in range(1, 9)}


def with_facts(candidate: Candidate) -> Candidate:
    """A candidate with what the registry of the town says about its card."""
    candidate.facts = CARDS.get(candidate.card) if candidate.readable else None
    return candidate


def fault_of(candidate: Candidate, merchant_no: int) -> str:
    """What the registry of the town says against a record."""
    if not candidate.readable:
        return ""
    return registration_fault(candidate.acquirer, merchant_no, PSAMS.get(candidate.psam))
