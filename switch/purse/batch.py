"""The records of one transaction side by side, and which of them are plainly good.

Nearly all records are: of good form, with a good TAC, of a registered card on a day on which it may be used, and nothing else in the
transaction uses their counters up. Those are accepted here, thousands in a few calls. All others, and all that share a counter
with another, go before `verify.Judge` one by one, in order of arrival; what he says of them is the same whether or not
he has seen the plain ones, since they have no counter in common.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from switch.ledger.chart import Code
from switch.purse.columns import Bytes, Columns, Flags, Keys, Numbers, eight_bytes, rows_of
from switch.purse.digest import TAC_GOOD, UNREADABLE
from switch.purse.verify import ACCEPTED, Candidate, Psam, registration_fault

Places = NDArray[np.intp]
PAN_DIGITS: Final = 19


class Job(Protocol):
    """An upload that has been prepared. blob: its records of 96 bytes, others as zeros; tacs: their digests."""

    @property
    def terminal_no(self) -> int:
        """The terminal it came from."""

    @property
    def merchant_no(self) -> int:
        """Its merchant."""

    @property
    def batch_no(self) -> int:
        """Its batch."""

    @property
    def records(self) -> Sequence[bytes]:
        """Its records as they came."""

    @property
    def blob(self) -> bytes:
        """Its records one behind the other."""

    @property
    def tacs(self) -> bytes:
        """A digest for each."""


class CardFacts(NamedTuple):
    """What the registry says about the distinct cards of a batch. known: it does; else the others mean nothing. Days from 2000-01-01."""

    known: Flags
    shard: Numbers
    card_no: Numbers
    valid_from: Numbers
    valid_through: Numbers


class Registrations(NamedTuple):
    """Of each record: why its merchant, PSAM and acquirer do not belong together (an index into faults), and who is owed."""

    faults: list[str]
    fault: Places
    good: Flags
    credit_code: Numbers  # 0: the PSAM is unknown
    credit_owner: Numbers


class Batch:
    """Records of several uploads in order of arrival.

    starts: where each upload begins, and the end. cards: the distinct ones; card_of: for each record its place among them; pans: their
    numbers as digits. psams: the distinct PSAM numbers.
    """

    def __init__(self, jobs: Sequence[Job]) -> None:
        counts = [len(job.tacs) for job in jobs]
        self.starts = [0, *np.cumsum(counts).tolist()]
        self._jobs = jobs
        self.raw: Bytes = rows_of(b"".join([job.blob for job in jobs]))
        self.tacs: Bytes = np.frombuffer(b"".join([job.tacs for job in jobs]), np.uint8)
        self.readable: Flags = self.tacs != UNREADABLE
        rows = self.raw if self.readable.all() else self.raw * self.readable[:, None]
        self.columns = Columns(rows)
        self.count = self.columns.count
        self.terminal_no = _spread(counts, [job.terminal_no for job in jobs])
        self.merchant_no = _spread(counts, [job.merchant_no for job in jobs])
        self.batch_no = _spread(counts, [job.batch_no for job in jobs])
        self.cards, first, self.card_of = np.unique(self.columns.card, return_index=True, return_inverse=True)
        digits = rows[first, 6:16]
        self.pans = (np.stack([digits >> 4, digits & 15], axis=2).reshape(-1, 20) + 48)[:, 1:].astype(
            np.uint8
        )
        self.psams, self._psam_of = np.unique(self.columns.psam, return_inverse=True)

    def candidate(self, place: int) -> Candidate:
        """One record for the judge."""
        upload = int(np.searchsorted(self.starts, place, "right")) - 1
        return Candidate(
            self._jobs[upload].records[place - self.starts[upload]],
            int(self.tacs[place]),
        )

    def registrations(self, psams: Mapping[int, Psam]) -> Registrations:
        """Look at each distinct (merchant, PSAM, acquirer) once."""
        columns = self.columns
        merchants, merchant_of = np.unique(self.merchant_no, return_inverse=True)
        acquirers, acquirer_of = np.unique(columns.acquirer, return_inverse=True)
        key = (self._psam_of * len(acquirers) + acquirer_of) * len(merchants) + merchant_of
        _, first, of = np.unique(key, return_index=True, return_inverse=True)
        faults: list[str] = []
        owed: list[tuple[int, int]] = []
        for place in first.tolist():
            psam = psams.get(int(columns.psam[place]))
            acquirer = eight_bytes(columns.acquirer[place])
            faults.append(registration_fault(acquirer, int(self.merchant_no[place]), psam))
            owed.append(_owed(psam))
        good = np.array([not fault for fault in faults], np.bool_)
        columns_owed = np.array(owed, np.int64).reshape(-1, 2)[of]
        return Registrations(faults, of, good[of], columns_owed[:, 0], columns_owed[:, 1])

    def contested(self, live: Flags) -> Flags:
        """Records that share (card, ATC) or (PSAM, PSAM serial) with another live one."""
        columns = self.columns
        return _repeated(self.card_of * 0x10000 + columns.atc, live) | _repeated(
            (self._psam_of << 32) + columns.psam_serial, live
        )

    def plain(
        self,
        live: Flags,
        facts: CardFacts,
        registrations: Registrations,
        own_issuers: Iterable[bytes],
        window: tuple[int, int],
        touched: Flags,
    ) -> Flags:
        """Which records are accepted without a further look.

        live: records of uploads that are new. window: the first and the last moment allowed. touched: records about which the
        database knows something that only the judge can weigh.
        """
        columns, of = self.columns, self.card_of
        ours = np.array([int(np.frombuffer(issuer, np.uint64)[0]) for issuer in own_issuers], np.uint64)
        oldest, latest = window
        return np.asarray(
            live
            & (self.tacs == TAC_GOOD)
            & registrations.good
            & (columns.moment >= np.uint64(oldest))
            & (columns.moment <= np.uint64(latest))
            & np.isin(columns.issuer_id, ours)
            & facts.known[of]
            & (facts.valid_from[of] <= columns.day)
            & (columns.day <= facts.valid_through[of])
            & ~touched
            & ~self.contested(live)
        )

    def guard_order(self, accepted: Flags) -> tuple[Places, Places]:
        """Places of accepted purchases by (card, ATC) and by (PSAM, serial): two writers wait for each other only one way."""
        places = np.flatnonzero(accepted)
        by_atc = (self.card_of * 0x10000 + self.columns.atc)[places]
        by_serial = ((self._psam_of << 32) + self.columns.psam_serial)[places]
        return places[np.argsort(by_atc)], places[np.argsort(by_serial)]


def all_accepted(count: int) -> NDArray[Any]:
    """Result codes, two bytes each: 10 until somebody says otherwise."""
    return np.full(count, ACCEPTED.encode(), "S2")


def _spread(counts: Sequence[int], values: Sequence[int]) -> Numbers:
    return np.repeat(np.array(values, np.int64), counts)


def _owed(psam: Psam | None) -> tuple[int, int]:
    if psam is None:
        return 0, 0
    if psam.acquirer_foreign:
        return Code.INTEROP_PAYABLE, int(psam.acquirer_id)
    return Code.MERCHANTS_PAYABLE, psam.merchant_no


def _repeated(key: Numbers, live: Flags) -> Flags:
    keys = np.sort(key[live])
    twice = keys[1:][keys[1:] == keys[:-1]]
    return np.isin(key, twice) if len(twice) else np.zeros(len(key), np.bool_)


def places_of(cards: Keys, asked: Keys) -> Places:
    """Where cards that are there lie among distinct, sorted ones."""
    return np.searchsorted(asked, cards)
