"""What is told to a host and what its answer means, as tables."""

from datetime import UTC, date, datetime

import pytest

from switch.domain.hosts import (
    HostAnswer,
    HostDown,
    HostKey,
    HostOriginal,
    HostService,
    HostStep,
    HostTimeout,
    Refusal,
    Unknown,
)
from switch.ledger.outbox import Due, Leg, Verdict
from switch.messages.host_mapping import Parties, request_fields
from switch.routing.advices import LATER, BackOff, end_of, request_of

ASKED_AT = datetime(2026, 11, 25, 2, 30, 15, tzinfo=UTC)
CREATED_AT = datetime(2026, 11, 25, 4, 0, 0, tzinfo=UTC)
PARTIES = Parties("49993350", "01020000")
LEG = Leg(
    2,
    "1125103015",
    7,
    1,
    20,
    "6228480123456789006",
    "33500001",
    "335000000000017",
    "051",
    "",
    ASKED_AT,
    date(2026, 11, 25),
)
ITEM = Due(0, 1, 1, 5, 1, "98", 1234, "632910A00001", "1125103046", 8, CREATED_AT, 0, CREATED_AT, LEG)
LEG_KEY = HostKey("1125103015", 7)


def longest(_least: float, most: float) -> float:
    return most


# message  answer  verdict
MEANINGS = """
    reversal  00  CONFIRMED
    reversal  25  CONFIRMED
    reversal  12  REFUSED
    reversal  64  REFUSED
    reversal  94  REFUSED
    reversal  30  REFUSED
    reversal  ZZ  REFUSED
    reversal  09  LATER
    reversal  68  LATER
    reversal  90  LATER
    reversal  91  LATER
    reversal  92  LATER
    reversal  96  LATER
    reversal  98  LATER
    reversal  A0  LATER
    advice    00  CONFIRMED
    advice    25  REFUSED
    advice    14  REFUSED
    advice    22  REFUSED
    advice    51  REFUSED
    advice    96  LATER
"""


@pytest.mark.parametrize("line", MEANINGS.split("\n")[1:-1])
def test_what_an_answer_means(line):
    message, code, verdict = line.split()
    item = ITEM if message == "reversal" else ITEM._replace(step=3, reason="")
    answer = HostAnswer(LEG_KEY, code, "", "", None, "", None, "")
    end = end_of(item, answer, BackOff(), longest)
    assert (end.verdict, end.said, end.tried) == (Verdict[verdict], code, True)


def test_the_codes_that_say_later_are_all_in_the_table_of_meanings():
    told = {line.split()[1] for line in MEANINGS.split("\n")[1:-1] if line.endswith("LATER")}
    assert told == set(LATER)


@pytest.mark.parametrize("why", list(Unknown))
def test_an_unknown_end_is_tried_again_with_back_off(why):
    end = end_of(ITEM._replace(tries=3), HostTimeout(LEG_KEY, why), BackOff(1.0, 300.0), longest)
    assert (end.verdict, end.said, end.tried, end.wait_s) == (Verdict.LATER, why.name.lower(), True, 8.0)


@pytest.mark.parametrize("why", list(Refusal))
def test_what_was_not_sent_is_no_try(why):
    end = end_of(ITEM, HostDown(LEG_KEY, why), BackOff(), longest)
    assert (end.verdict, end.tried) == (Verdict.LATER, False)
    assert (end.wait_s > 0) is (why in (Refusal.RETRY_BUDGET, Refusal.KEY_IN_USE))


def test_pauses_double_up_to_the_longest_with_jitter_down_to_half():
    back_off = BackOff(1.0, 300.0)
    assert [back_off.pause_s(tries, longest) for tries in (0, 1, 2, 3, 9, 10, 1_000_000)] == [
        1,
        1,
        2,
        4,
        256,
        300,
        300,
    ]
    assert back_off.pause_s(3, lambda least, _most: least) == 2


def test_a_reversal_names_its_original_and_has_the_time_of_the_transaction():
    made = request_of(ITEM)
    assert made.original == HostOriginal(HostStep.FINANCIAL, LEG_KEY)
    assert (made.key, made.at, made.reason) == (HostKey("1125103046", 8), ASKED_AT, "98")
    mti, fields = request_fields(made, PARTIES, None)
    assert (mti, fields[90]) == ("0420", "0200000007112510301500049993350" + "00049993350")
    assert (fields[3], fields[4], fields[25], fields[37]) == ("002000", "000000001234", "00", "632910A00001")


def test_an_advice_of_a_stand_in_has_the_leg_s_own_key_and_no_original():
    leg = LEG._replace(step=3)
    made = request_of(ITEM._replace(step=3, reason="", transmitted="1125103015", trace=7, leg=leg))
    assert (made.step, made.service, made.original, made.key) == (
        HostStep.ADVICE,
        HostService.PURCHASE,
        None,
        LEG_KEY,
    )
    mti, fields = request_fields(made, PARTIES, None)
    assert mti == "0220"
    assert 90 not in fields


def test_a_reversal_of_a_stand_in_names_its_advice():
    made = request_of(ITEM._replace(leg=LEG._replace(step=3)))
    _, fields = request_fields(made, PARTIES, None)
    assert fields[90][:20] == "02200000071125103015"


def test_a_refund_is_business_of_its_own_time_and_repeats_the_authorisation_code():
    made = request_of(
        ITEM._replace(step=3, service=2, reason="", leg=LEG._replace(authorisation_code="000042"))
    )
    assert (made.at, made.authorisation_code) == (CREATED_AT, "000042")
    mti, fields = request_fields(made, PARTIES, None)
    assert (mti, fields[3], fields[90][:4]) == ("0220", "202000", "0200")


def test_what_belongs_to_a_pre_authorisation_says_so():
    leg = LEG._replace(step=1, service=4)
    for item in (ITEM._replace(service=4, leg=leg), ITEM._replace(step=3, service=1, reason="", leg=leg)):
        _, fields = request_fields(request_of(item), PARTIES, None)
        assert (fields[25], fields[90][:4]) == ("06", "0100")


@pytest.mark.parametrize(
    "broken",
    [
        ITEM._replace(leg=None),
        ITEM._replace(step=9),
        ITEM._replace(service=9),
        ITEM._replace(leg=LEG._replace(pan="62")),
        ITEM._replace(leg=LEG._replace(account_kind=99)),
    ],
)
def test_rows_that_make_no_message_are_said_to_without_the_card(broken):
    with pytest.raises(ValueError) as raised:
        request_of(broken)
    assert "6228480123456789006" not in str(raised.value)


def test_the_same_rows_make_the_same_message_each_time():
    assert request_of(ITEM) == request_of(ITEM._replace(tries=5, held_until=ASKED_AT))
