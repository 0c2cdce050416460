"""Thousands of records in columns are read, checked and judged as one by one."""

from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import NamedTuple

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from switch.domain.calendar import SHANGHAI
from switch.domain.errors import FormatError
from switch.keys.derivation import issuer_key
from switch.keys.primitives import Algorithm, MasterKey
from switch.keys.tac_columns import Flags, TacColumns, verify_tac_columns
from switch.purse import columns as in_columns
from switch.purse.batch import Batch, CardFacts
from switch.purse.columns import COLUMNS_FROM, Columns, joined, rows_of, well_formed
from switch.purse.digest import digest
from switch.purse.record import check_form, day_us, happened_us, read_record
from switch.purse.rows import day_number
from switch.purse.verify import Candidate, Judge
from tests.helpers.mixtures import (
    CARDS,
    PSAMS,
    digest_of,
    fault_of,
    mixed_records,
    spoiled,
    with_facts,
)
from tests.helpers.offline import (
    FOREIGN_ISSUER,
    ISSUER,
    ROOT,
    VALID_FROM,
    VALID_THROUGH,
    Ride,
    merchant_of,
)

NOW = datetime(2024, 3, 15, 12, 0, 0, tzinfo=SHANGHAI)
ISSUERS = {ISSUER: True, FOREIGN_ISSUER: False}


def verify(items: TacColumns) -> Flags:
    def master(algorithm: int, version: int, issuer_id: bytes) -> MasterKey | None:
        if version != 1:
            return None
        return issuer_key(MasterKey(ROOT, Algorithm(algorithm), "DTK"), issuer_id)

    return verify_tac_columns(items, master)


def readable(raw: bytes) -> bool:
    try:
        check_form(raw)
    except FormatError:
        return False
    return True


@given(
    places=st.lists(
        st.tuples(st.integers(0, 95), st.integers(0, 255), st.booleans()), min_size=1, max_size=20
    )
)
@settings(max_examples=25, deadline=None)
def test_the_form_of_a_record_with_any_byte_changed_is_what_it_is_one_by_one(
    places: list[tuple[int, int, bool]],
) -> None:
    good = Ride(when=NOW).pack()
    records = [spoiled(good, at, by, mended=mended) for at, by, mended in places]
    records += [b"", good[:-1], good + b"\0", good]
    expected = [readable(raw) for raw in records]
    assert well_formed(rows_of(joined(records))).tolist() == expected
    many = records * COLUMNS_FROM
    assert well_formed(rows_of(joined(many))).tolist() == expected * COLUMNS_FROM


def test_every_value_of_every_byte_is_good_or_bad_as_one_by_one() -> None:
    for good in (Ride(when=NOW).pack(), Ride(when=datetime(2024, 2, 29, 23, 59, 59, tzinfo=SHANGHAI)).pack()):
        records = [spoiled(good, at, by, mended=True) for at in range(96) for by in range(256)]
        assert well_formed(rows_of(joined(records))).tolist() == [readable(raw) for raw in records]


def test_the_calendar_is_the_same_for_every_day_of_eight_digits_that_could_be_one() -> None:
    years = (0, 1, 4, 100, 400, 1582, 1899, 1900, 1999, 2000, 2001, 2023, 2024, 2100, 2399, 2400, 9999)
    texts = [f"{year:04d}{month:02d}{day:02d}" for year in years for month in range(20) for day in range(40)]
    dates = np.frombuffer(bytes.fromhex("".join(texts)), np.uint8).reshape(-1, 4)
    days, good = in_columns._days(dates)
    expected = [day_us(text) for text in texts]
    assert good.tolist() == [one is not None for one in expected]
    assert [int(day) * 86_400_000_000 for day in days[good]] == [one for one in expected if one is not None]


@given(st.lists(mixed_records(NOW), min_size=1, max_size=40))
@settings(max_examples=25, deadline=None)
def test_columns_hold_what_records_say(records: list[bytes]) -> None:
    records = [raw for raw in records if readable(raw)] or [Ride(when=NOW).pack()]
    columns = Columns(rows_of(joined(records)))
    for place, raw in enumerate(records):
        record, candidate = read_record(raw), Candidate(raw)
        assert int(columns.card.view(np.int64)[place]) == candidate.card
        assert (columns.psam[place], columns.psam_serial[place]) == (candidate.psam, record.psam_serial)
        assert (columns.atc[place], columns.kind[place]) == (record.atc, record.kind)
        assert (columns.amount_fen[place], columns.balance_fen[place]) == (
            record.amount_fen,
            record.balance_fen,
        )
        assert columns.record_serial[place] == record.record_serial
        assert in_columns.eight_bytes(columns.issuer_id[place]) == record.issuer_id
        assert in_columns.eight_bytes(columns.acquirer[place]) == record.acquirer
        assert int(columns.moment[place]) == int(candidate.moment.hex())
        assert columns.mark[place].tobytes() == candidate.mark
        assert columns.happened_us[place] == happened_us(raw, raw.hex())


@given(st.lists(mixed_records(NOW), min_size=1, max_size=40))
@settings(max_examples=25, deadline=None)
def test_tacs_of_a_mixture_are_good_or_bad_as_one_by_one(records: list[bytes]) -> None:
    found = digest(joined(records), verify)
    assert list(found) == [digest_of(raw) for raw in records]


class Sent(NamedTuple):
    """An upload as batch.Job has it."""

    terminal_no: int
    records: Sequence[bytes]
    blob: bytes
    tacs: bytes
    batch_no: int = 1

    @property
    def merchant_no(self) -> int:
        return merchant_of(self.terminal_no)


def sent(terminal_no: int, records: Sequence[bytes]) -> Sent:
    blob = joined(records)
    return Sent(terminal_no, records, blob, digest(blob, verify))


def facts_of(batch: Batch) -> CardFacts:
    cards = [CARDS.get(int(card)) for card in batch.cards]
    return CardFacts(
        np.array([card is not None for card in cards], np.bool_),
        np.array([card.shard if card else 0 for card in cards], np.int64),
        np.array([card.card_no if card else 0 for card in cards], np.int64),
        np.full(len(cards), day_number(VALID_FROM), np.int64),
        np.full(len(cards), day_number(VALID_THROUGH), np.int64),
    )


def judge_with(before: Judge) -> Judge:
    judge = Judge(NOW, ISSUERS)
    judge.accepted, judge.serials, judge.waiting = (
        dict(before.accepted),
        set(before.serials),
        set(before.waiting),
    )
    return judge


uploads = st.lists(
    st.tuples(st.sampled_from([1, 2, 7, 8]), st.lists(mixed_records(NOW), min_size=1, max_size=8)),
    min_size=1,
    max_size=5,
)


@given(before=st.lists(mixed_records(NOW), max_size=8), messages=uploads)
@settings(max_examples=80, deadline=None)
@example(before=[], messages=[(1, [Ride(when=NOW, psam_serial=1).pack()] * 3)])
def test_what_is_accepted_as_plain_is_what_the_judge_accepts_and_he_judges_the_rest_the_same(
    before: list[bytes], messages: list[tuple[int, list[bytes]]]
) -> None:
    history = Judge(NOW, ISSUERS)
    for raw in before:
        candidate = with_facts(Candidate(raw, digest_of(raw)))
        history.judge(candidate, fault_of(candidate, 1))

    # One by one.
    judge = judge_with(history)
    expected = []
    for terminal_no, records in messages:
        for raw in records:
            candidate = with_facts(Candidate(raw, digest_of(raw)))
            judge.judge(candidate, fault_of(candidate, merchant_of(terminal_no)))
            expected.append((candidate.result, candidate.fault, candidate.alarm))

    # In columns, knowing before which counters are used up.
    batch = Batch([sent(*message) for message in messages])
    registrations = batch.registrations(PSAMS)
    every = [with_facts(batch.candidate(place)) for place in range(batch.count)]
    waiting = {card for card, *_ in history.waiting}
    used = np.array(
        [
            (one.card, one.atc) in history.accepted or (one.psam, one.psam_serial) in history.serials
            for one in every
        ]
    )
    touched = np.array([one.card in waiting for one in every])
    live = np.ones(batch.count, np.bool_)
    found = _found(batch, judge_with(history), live, touched | used)
    assert [(one.result, one.fault, one.alarm) for one in found] == expected

    # Trusting: the guards refuse the whole exactly when a plain record uses up what is used up.
    plain = batch.plain(live, facts_of(batch), registrations, [ISSUER], judge.window, touched)
    if not (plain & used).any():
        found = _found(batch, judge_with(history), live, touched)
        assert [(one.result, one.fault, one.alarm) for one in found] == expected


def _found(batch: Batch, judge: Judge, live: Flags, touched: Flags) -> list[Candidate]:
    known = batch.registrations(PSAMS)
    plain = batch.plain(live, facts_of(batch), known, [ISSUER], judge.window, touched)
    found = []
    for place in range(batch.count):
        candidate = with_facts(batch.candidate(place))
        if plain[place]:
            candidate.result = "10"
        else:
            judge.judge(candidate, known.faults[known.fault[place]] if candidate.readable else "")
        found.append(candidate)
    return found


def test_a_mixture_has_every_result_and_plain_records_too() -> None:
    """Otherwise the property above says less than it seems to."""
    results: set[str] = set()
    plain_ones = 0

    @given(messages=uploads)
    @settings(max_examples=60, deadline=None, database=None, derandomize=True)
    def collect(messages: list[tuple[int, list[bytes]]]) -> None:
        nonlocal plain_ones
        batch = Batch([sent(*message) for message in messages])
        judge = Judge(NOW, ISSUERS)
        live, nothing = np.ones(batch.count, np.bool_), np.zeros(batch.count, np.bool_)
        registrations = batch.registrations(PSAMS)
        plain = batch.plain(live, facts_of(batch), registrations, [ISSUER], judge.window, nothing)
        plain_ones += int(plain.sum())
        results.update(one.result for one in _found(batch, judge, live, nothing))

    collect()
    assert results == {"01", "02", "03", "04", "05", "06", "07", "08", "10", "11"}
    assert plain_ones


@pytest.mark.parametrize("hours", [24, -24])
def test_the_edges_of_the_window_are_the_judges(hours: int) -> None:
    moments = [NOW + timedelta(hours=hours, seconds=second) for second in (-1, 0, 1)]
    moments += [NOW - timedelta(days=90, seconds=second) for second in (-1, 0, 1)]
    records = [Ride(when=at, atc=place, psam_serial=place).pack() for place, at in enumerate(moments)]
    batch = Batch([sent(1, records)])
    judge = Judge(NOW, ISSUERS)
    live, nothing = np.ones(batch.count, np.bool_), np.zeros(batch.count, np.bool_)
    plain = batch.plain(live, facts_of(batch), batch.registrations(PSAMS), [ISSUER], judge.window, nothing)
    results = [judge.judge(with_facts(Candidate(raw, digest_of(raw))), "") for raw in records]
    assert plain.tolist() == [result == "10" for result in results]
