"""The nine checks as tables: which result, by which check, in which order. And the end of grey records."""

from datetime import datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from switch.domain.calendar import SHANGHAI
from switch.purse.verify import (
    ATC_COLLISION,
    PSAM_COLLISION,
    Candidate,
    Card,
    GreyVerdict,
    Judge,
    Psam,
    Trace,
    adjudicate,
    registration_fault,
)
from terminal_sim.records import RecordKind
from tests.helpers.offline import CITY, FOREIGN_ISSUER, ISSUER, OWN, Ride

NOW = datetime(2024, 3, 15, 12, 0, 0, tzinfo=SHANGHAI)
ISSUERS = {ISSUER: True, FOREIGN_ISSUER: False}
UNKNOWN_ISSUER = bytes.fromhex("99990001FFFFFFFF")
CARD = Card(0, 1, bytes.fromhex("20240110"), bytes.fromhex("20240316"))
TIMES = {
    "ok": NOW - timedelta(minutes=1),
    "in 24 h": NOW + timedelta(hours=24),
    "later": NOW + timedelta(hours=24, seconds=1),
    "90 days ago": NOW - timedelta(days=90),
    "older": NOW - timedelta(days=90, seconds=1),
    "first day": datetime(2024, 1, 10, tzinfo=SHANGHAI),
    "before": datetime(2024, 1, 9, 23, 59, 59, tzinfo=SHANGHAI),
    "last day": datetime(2024, 3, 16, 11, 0, 0, tzinfo=SHANGHAI),
}
ISSUER_IDS = {"own": ISSUER, "foreign": FOREIGN_ISSUER, "unknown": UNKNOWN_ISSUER}
KINDS = {
    "normal": RecordKind.NORMAL,
    "grey": RecordKind.GREY,
    "test": RecordKind.TEST,
    "locked": RecordKind.LOCKED,
}


#   form  registered  kind    seen  time         issuer   TAC    serial  ATC    result
CASES = """
    bad   no          test    yes   later        unknown  wrong  used    used   02
    ok    no          test    yes   later        unknown  wrong  used    used   02
    ok    yes         test    yes   later        unknown  wrong  used    used   06
    ok    yes         normal  yes   later        unknown  wrong  used    used   03
    ok    yes         normal  no    later        unknown  wrong  used    used   07
    ok    yes         normal  no    older        unknown  wrong  used    used   05
    ok    yes         normal  no    ok           unknown  wrong  used    used   08
    ok    yes         normal  no    ok           foreign  wrong  used    used   11
    ok    yes         grey    no    ok           foreign  wrong  used    used   11
    ok    yes         grey    no    ok           own      wrong  used    used   04
    ok    yes         normal  no    ok           own      none   used    used   04
    ok    yes         normal  no    ok           own      wrong  used    used   01
    ok    yes         normal  no    ok           own      good   used    used   02
    ok    yes         normal  no    ok           own      good   free    used   02
    ok    yes         normal  no    ok           own      good   free    free   10
    ok    yes         locked  no    ok           own      none   used    used   10
    ok    yes         normal  no    in_24_h      own      good   free    free   10
    ok    yes         normal  no    90_days_ago  own      good   free    free   10
    ok    yes         grey    yes   ok           own      none   free    free   03
    ok    yes         grey    yes   older        own      none   free    free   03
"""


@pytest.mark.parametrize("case", [line.split() for line in CASES.strip().splitlines()], ids=" ".join)
def test_the_first_check_that_fails_gives_the_result(case: list[str]) -> None:
    form, registered, kind, seen, time, issuer, tac, serial, atc, expected = case
    ride = Ride(
        kind=KINDS[kind],
        when=TIMES[time.replace("_", " ")],
        issuer=ISSUER_IDS[issuer],
        tac=bytes(4) if tac == "none" else b"\1\2\3\4",
        amount_fen=0 if kind == "locked" else 200,
    )
    raw = ride.pack()
    candidate = Candidate(raw if form == "ok" else raw[:-1] + bytes([raw[-1] ^ 1]))
    if tac == "good":
        candidate.tac_good = True
    judge = Judge(NOW, ISSUERS)
    known = Candidate(raw)
    if seen == "yes":
        judge.waiting.add((known.card, known.atc, known.amount_fen, known.mark))
    if serial == "used":
        judge.serials.add((known.psam, known.psam_serial))
    if atc == "used":
        judge.accepted[known.card, known.atc] = (1, b"another")
    assert judge.judge(candidate, "" if registered == "yes" else "PSAM is not registered") == expected
    if expected == "02" and tac == "good":
        assert candidate.alarm == (PSAM_COLLISION if serial == "used" else ATC_COLLISION)
    assert bool(candidate.fault) == (form == "bad" or registered == "no")


@pytest.mark.parametrize(
    ("time", "expected"), [("first day", "10"), ("before", "07"), ("last day", "10"), ("later", "07")]
)
def test_a_card_is_good_from_its_first_to_its_last_day(time: str, expected: str) -> None:
    candidate = Candidate(Ride(when=TIMES[time]).pack())
    candidate.tac_good = True
    candidate.facts = CARD
    assert Judge(NOW, ISSUERS).judge(candidate, "") == expected


def test_the_day_after_the_last_is_too_late_even_within_the_clock_tolerance() -> None:
    candidate = Candidate(Ride(when=datetime(2024, 3, 17, 0, 0, 0, tzinfo=SHANGHAI)).pack())
    candidate.tac_good, candidate.facts = True, CARD
    assert Judge(NOW + timedelta(hours=20), ISSUERS).judge(candidate, "") == "07"


@pytest.mark.parametrize(
    ("psam", "expected"),
    [
        (None, "PSAM is not registered"),
        (Psam(2, True, OWN, False), "PSAM belongs to another merchant"),
        (Psam(1, False, OWN, False), "PSAM is closed"),
        (Psam(1, True, CITY, True), "acquirer is not the merchant's"),
        (Psam(1, True, OWN, False), ""),
    ],
)
def test_acquirer_merchant_and_psam_belong_together(psam: Psam | None, expected: str) -> None:
    assert registration_fault(Candidate(Ride().pack()).acquirer, 1, psam) == expected


WAIT = GreyVerdict("")
ODD = GreyVerdict("", contradiction=True)


@pytest.mark.parametrize(
    ("accepted", "greys", "expected"),
    [
        ([], [], WAIT),
        ([(4, 100, 5_100)], [], WAIT),  # before it: says nothing
        ([(5, 300, 5_000)], [], GreyVerdict("94")),
        ([(5, 300, 4_000)], [], ODD),
        ([(6, 300, 4_850)], [], GreyVerdict("00")),
        ([(6, 300, 5_000)], [], ODD),
        ([(7, 300, 4_800)], [], WAIT),  # ATC 6 is missing
        ([(7, 300, 4_800)], [(6, 50, 4_850)], GreyVerdict("00")),
        ([(7, 300, 4_801)], [(6, 50, 4_850)], WAIT),
        ([(7, 300, 4_800)], [(6, 50, 4_850), (6, 50, 4_850)], WAIT),  # two that could be it
        ([(9, 1, 1), (6, 300, 4_850)], [], GreyVerdict("00")),  # the earliest decides
    ],
)
def test_a_grey_record_is_decided_by_the_earliest_evidence(
    accepted: list[tuple[int, int, int]], greys: list[tuple[int, int, int]], expected: GreyVerdict
) -> None:
    traces = [Trace(*trace) for trace in accepted]
    assert adjudicate(Trace(5, 150, 5_000), traces, [Trace(*trace) for trace in greys]) == expected


STEPS = st.lists(
    st.tuples(st.integers(0, 2), st.integers(0, 4), st.integers(1, 6), st.booleans()), max_size=40
)


@given(STEPS)
def test_whatever_comes_each_atc_and_each_psam_serial_is_accepted_once(
    steps: list[tuple[int, int, int, bool]],
) -> None:
    judge = Judge(NOW, ISSUERS)
    accepted: list[Candidate] = []
    for card, atc, serial, again in steps:
        raw = Ride(
            card=1 + card, atc=atc, psam_serial=serial, when=NOW, tac=b"\1\2\3\4", record_serial=1
        ).pack()
        for _ in range(2 if again else 1):
            candidate = Candidate(raw)
            candidate.tac_good = True
            if judge.judge(candidate, "") == "10":
                accepted.append(candidate)
    assert len({(one.card, one.atc) for one in accepted}) == len(accepted)
    assert len({(one.psam, one.psam_serial) for one in accepted}) == len(accepted)
