"""Whatever the order, the repetition and the splitting of uploads: the same books, but for which of two colliding records was first.

Many examples against the pure judge and a model that knows nothing of it; a few through the real intake, two writers on one database, with folds
and adjudication in between. In these, every set of records is brought twice, by other cards and numbers: shuffled and in order.
"""

import asyncio
import itertools
from collections import Counter, defaultdict
from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Any, NamedTuple

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from psycopg import AsyncConnection

from switch.domain.calendar import SHANGHAI
from switch.keys.software_vault import SoftwareVault
from switch.purse.intake import IntakeWriter, inline_tacs
from switch.purse.shadow import adjudicate, fold_purses
from switch.purse.verify import Candidate, Card, Judge
from switch.storage.pool import connect
from terminal_sim.records import RecordKind
from tests.helpers.offline import ISSUER, Ride, build, pan_of, results, upload
from tests.unit.purse.conftest import Office, vault

__all__ = ["vault"]

GOOD, GREY, FORGED, TRIAL, OVERDUE, FUTURE = "good", "grey", "forged", "trial", "overdue", "future"
ALONE = {GREY: "04", FORGED: "01", TRIAL: "06", OVERDUE: "05", FUTURE: "07"}
AGE = {OVERDUE: timedelta(days=91), FUTURE: timedelta(hours=-30)}
NOW = datetime.now(SHANGHAI).replace(microsecond=0)


class Sketch(NamedTuple):
    """A record before it is packed: small numbers, so that many collide."""

    card: int
    atc: int
    serial: int
    terminal_no: int
    amount_fen: int
    what: str

    def pack(self, place: int, base: int) -> bytes:
        """Signed; place tells the records of a set apart, base one set from another."""
        age = AGE.get(self.what, timedelta(hours=1 + 30 * (place % 4)))
        return Ride(
            asn="0" + pan_of(base + self.card),
            atc=self.atc,
            amount_fen=self.amount_fen,
            balance_fen=50_000 - 100 * self.atc,
            terminal_no=self.terminal_no,
            kind={GREY: RecordKind.GREY, TRIAL: RecordKind.TEST}.get(self.what, RecordKind.NORMAL),
            when=NOW - age - timedelta(seconds=place),
            psam_serial=base + self.serial,
            record_serial=base + place,
            tac=b"\1\2\3\4" if self.what == FORGED else None,
        ).pack()


sketches = st.lists(
    st.builds(
        Sketch,
        st.integers(0, 2),
        st.integers(0, 4),
        st.integers(0, 9),
        st.sampled_from([1, 2]),
        st.sampled_from([100, 100, 100, 150]),
        st.sampled_from([GOOD] * 8 + [GREY] * 3 + list(ALONE)),
    ),
    min_size=1,
    max_size=10,
    unique=True,
)


@st.composite
def deliveries(draw: st.DrawFn) -> tuple[list[Sketch], list[list[int]]]:
    """A set of records, and uploads that bring each of them at least once, in any order."""
    made = draw(sketches)
    places = range(len(made))
    repeats = draw(st.lists(st.sampled_from(places), max_size=6))
    order = draw(st.permutations([*places, *repeats]))
    cuts = sorted(draw(st.sets(st.integers(1, len(order) - 1), max_size=5))) if len(order) > 1 else []
    ends = [*cuts, len(order)]
    return made, [list(order[start:end]) for start, end in zip([0, *cuts], ends, strict=True)]


def conflicts(made: Sequence[Sketch]) -> dict[int, set[int]]:
    """For each good record the other good ones that cannot be true beside it."""
    found: dict[int, set[int]] = defaultdict(set)
    for a, b in itertools.permutations(range(len(made)), 2):
        one, two = made[a], made[b]
        same = (one.card, one.atc) == (two.card, two.atc) or (one.terminal_no, one.serial) == (
            two.terminal_no,
            two.serial,
        )
        if one.what == two.what == GOOD and same:
            found[a].add(b)
    return found


def expected(made: Sequence[Sketch], order: Sequence[int]) -> list[str]:
    """Results in order: what the documents say, in its plainest form."""
    against = conflicts(made)
    accepted: set[int] = set()
    pending: set[int] = set()
    told = []
    for place in order:
        what = made[place].what
        if place in accepted | pending and what in (GOOD, GREY):
            told.append("03")
        elif what != GOOD:
            told.append(ALONE[what])
            pending.add(place)
        elif against[place] & accepted:
            told.append("02")
        else:
            told.append("10")
            accepted.add(place)
    return told


def judged(packed: Sequence[bytes], made: Sequence[Sketch], uploads: Sequence[Sequence[int]]) -> list[str]:
    """Results by the judge, a new one for each upload that is told what the one before wrote down."""
    told: list[str] = []
    before = Judge(NOW, {ISSUER: True})
    for places in uploads:
        judge = Judge(NOW, {ISSUER: True})
        judge.accepted, judge.serials, judge.waiting = before.accepted, before.serials, before.waiting
        for place in places:
            candidate = Candidate(packed[place])
            candidate.facts = Card(0, 1)
            if made[place].what == GOOD:
                candidate.tac_good = True
            told.append(judge.judge(candidate, ""))
        before = judge
    return told


@settings(max_examples=150)
@given(deliveries())
def test_the_judge_decides_as_the_documents_say_whatever_the_order(
    delivery: tuple[list[Sketch], list[list[int]]],
) -> None:
    made, uploads = delivery
    packed = [sketch.pack(place, 5_000) for place, sketch in enumerate(made)]
    order = [place for places in uploads for place in places]
    told = judged(packed, made, uploads)
    assert told == expected(made, order)
    accepted = {place for place, result in zip(order, told, strict=True) if result == "10"}
    against = conflicts(made)
    good = {place for place, sketch in enumerate(made) if sketch.what == GOOD}
    assert {place for place in good if not against[place]} <= accepted
    for place in good - accepted:
        assert against[place] & accepted, "only a collision refuses a good record"


class City:
    """Two writers on one database; each set of records has cards and numbers of its own."""

    def __init__(self, url: str, vault: SoftwareVault) -> None:
        self.url, self.vault = url, vault
        self.bases = itertools.count(100_000, 1_000)

    async def open(self) -> None:
        await build(self.url)
        self.link: AsyncConnection[Any] = await connect(self.url)
        self.offices = [
            Office(IntakeWriter(lambda: connect(self.url), inline_tacs(self.vault), 2)) for _ in range(2)
        ]

    async def close(self) -> None:
        for office in self.offices:
            await office.close()
        await self.link.close()

    async def bring(self, made: Sequence[Sketch], uploads: Sequence[Sequence[int]]) -> dict[str, Any]:
        """Take the uploads by turns, folding after every second; then decide the grey ones. What the books say, by small numbers."""
        base = next(self.bases)
        packed = [sketch.pack(place, base) for place, sketch in enumerate(made)]
        told = []
        for turn, places in enumerate(uploads):
            (outcome,) = await self.offices[turn % 2].take(upload(*(packed[place] for place in places)))
            told += results(outcome)
            if turn % 2:
                await fold_purses(self.link)
        await fold_purses(self.link)
        await adjudicate(self.link)
        await fold_purses(self.link)
        return {"told": told} | await self._books(base)

    async def _books(self, base: int) -> dict[str, Any]:
        async def rows(query: str) -> list[tuple[Any, ...]]:
            cursor = await self.link.execute(query.encode(), {"base": base})
            return list(await cursor.fetchall())

        keys = {int(pan_of(base + card)): card for card in range(3)}
        asns = {"0" + pan_of(base + card): card for card in range(3)}
        final = await rows(
            "SELECT o.record_serial - %(base)s, coalesce(v.result, o.result) FROM purse_record o"
            " LEFT JOIN purse_record v ON v.original_entry = o.entry_no AND v.original_date = o.business_date"
            " WHERE o.original_entry IS NULL AND o.result <> '03' AND o.record_serial BETWEEN %(base)s AND %(base)s + 999"
        )
        purses = await rows("SELECT asn, spent_fen, next_atc FROM purse WHERE spent_fen > 0")
        sequences = await rows(
            "SELECT owner, first_no, next_no, missing::text FROM purse_sequence WHERE kind = 1"
        )
        holes = await rows(
            "SELECT owner, missing::text FROM purse_gap WHERE kind = 1 AND closed_at IS NULL ORDER BY missing"
        )
        used = await rows("SELECT card, atc, amount_fen FROM purse_atc ORDER BY card, atc")
        alarms = await rows("SELECT card, kind FROM purse_alarm WHERE kind = 'CHAIN_BREAK'")
        cards: dict[int, list[Any]] = {card: [] for card in range(3)}
        for asn, *figures in purses:
            if asn in asns:
                cards[asns[asn]].append(("purse", *figures))
        for name, found in (("counter", sequences), ("hole", holes), ("used", used), ("alarm", alarms)):
            for owner, *figures in found:
                if owner in keys:
                    cards[keys[owner]].append((name, *figures))
        return {
            "final": Counter(final),
            "cards": {card: sorted(map(str, what)) for card, what in cards.items()},
        }


def touched(made: Sequence[Sketch]) -> set[int]:
    """Cards about which order has a say: those of records that collide, grey ones among them."""
    found = set()
    for one, two in itertools.permutations(made, 2):
        same_serial = (one.terminal_no, one.serial) == (two.terminal_no, two.serial)
        if {one.what, two.what} <= {GOOD, GREY} and (
            same_serial or (one.card, one.atc) == (two.card, two.atc)
        ):
            found |= {one.card, two.card}
    return found


@pytest.mark.server
def test_the_books_are_the_same_whatever_the_order_of_uploads(
    postgres_url: str, vault: SoftwareVault
) -> None:
    city = City(postgres_url, vault)
    with asyncio.Runner() as runner:
        runner.run(city.open())

        @settings(max_examples=8, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large])
        @given(deliveries())
        def bring(delivery: tuple[list[Sketch], list[list[int]]]) -> None:
            made, uploads = delivery
            shuffled = runner.run(city.bring(made, uploads))
            assert shuffled["told"] == expected(made, [place for places in uploads for place in places])
            straight = runner.run(city.bring(made, [range(len(made))]))
            disputed = touched(made)
            for card in {0, 1, 2} - disputed:
                assert shuffled["cards"][card] == straight["cards"][card]
            for place, sketch in enumerate(made):
                if sketch.card not in disputed:
                    ends = [
                        {result for at, result in books["final"] if at == place}
                        for books in (shuffled, straight)
                    ]
                    assert ends[0] == ends[1]

        try:
            bring()
        finally:
            runner.run(city.close())
