"""Cases on a real ledger: what each action moves, once and never too much, whoever comes first."""

import asyncio
from datetime import timedelta

import pytest

from switch.clearing.disputes.deciding import close, decide, deny, lapse
from switch.clearing.disputes.states import Rule, State
from switch.clearing.disputes.steps import ActionRefused
from switch.domain.errors import InputRefused
from switch.domain.transactions import Kind, Refund, Reversal, Void
from switch.ledger.adjustments import _Side, left_by
from switch.storage.pool import connect
from tests.helpers.disputed import Disputes, asking

pytestmark = pytest.mark.server


async def refused(town: Disputes, rule: Rule, coming: object) -> None:
    """It is refused by this rule, and that is written down."""
    before = await town.rows("SELECT count(*) FROM dispute_refusal")
    with pytest.raises(ActionRefused) as caught:
        await coming  # type: ignore[misc]  # a coroutine
    assert caught.value.rule == rule, caught.value
    rows = await town.rows("SELECT rule, detail FROM dispute_refusal ORDER BY refusal_no")
    assert len(rows) == before[0][0] + 1
    assert rows[-1] == (rule, caught.value.text)


async def test_a_chargeback_gives_back_and_a_representment_takes_it_again(town: Disputes) -> None:
    bought = await town.buy(500)
    opened = await town.open(bought, asking("04", 300))
    assert (opened.state, opened.waits) == (State.NEW, True)
    assert (await town.balance(), await town.merchant()) == (500, 500), "nothing moves before the checker"
    charged = await town.decide(opened.case_no)
    assert (charged.state, await town.balance(), await town.merchant()) == (State.CHARGED_BACK, 800, 200)
    assert await town.use() == [(300, False)]
    await town.ask(opened.case_no, asking("05"))
    ended = await town.decide(opened.case_no)
    assert (ended.state, await town.balance(), await town.merchant()) == (State.REPRESENTED, 500, 500)
    assert await town.use() == [(0, False)]
    rows = await town.rows(
        "SELECT kind, class, batch_no, stan, amount_fen, effect_fen, rrn, original_entry FROM journal WHERE class = 3 ORDER BY entry_no"
    )
    (entry,) = await town.rows("SELECT entry_no, rrn FROM journal WHERE kind = 1")
    assert rows == [
        (Kind.CHARGEBACK, 3, 0, 1, 300, -300, entry[1], entry[0]),
        (Kind.REPRESENTMENT, 3, 0, 2, 300, 300, entry[1], entry[0]),
    ]
    events = await town.rows(
        "SELECT seq, what, action, before_state, after_state, amount_fen, reason, actor, checker FROM dispute_event ORDER BY seq"
    )
    assert events == [
        (1, "ASKED", "04", "", "NEW", 300, "20", "li wei", ""),
        (2, "DONE", "04", "NEW", "CHARGED_BACK", 300, "20", "li wei", "wang fang"),
        (3, "ASKED", "05", "CHARGED_BACK", "CHARGED_BACK", 300, "50", "li wei", ""),
        (4, "DONE", "05", "CHARGED_BACK", "REPRESENTED", 300, "50", "li wei", "wang fang"),
    ]
    await refused(town, Rule.STATE, town.ask(opened.case_no, asking("05")))
    await refused(town, Rule.OPEN, town.open(bought, asking("04")))


async def test_nothing_is_given_back_twice_or_beyond_the_amount(town: Disputes) -> None:
    bought = await town.buy(500)
    assert (await town.tell(town.undoing(Refund, bought, 200))).answer == "00"
    opened = await town.open(bought, asking("01", 400))
    await refused(town, Rule.AMOUNT, town.decide(opened.case_no))
    await deny(town.pg, opened.case_no, checker="wang fang", note="only 300 are left")
    assert (await town.did(bought, "01", 300)).state == State.CREDITED
    assert (await town.tell(town.undoing(Refund, bought, 1))).answer == "64"
    assert (await town.tell(town.undoing(Void, bought))).answer == "12"
    assert (await town.tell(town.undoing(Reversal, bought))).answer == "12"
    assert (await town.balance(), await town.merchant()) == (1_000, 0)


async def test_a_wrong_void_is_collected_again_and_its_reversal_finds_nothing(town: Disputes) -> None:
    bought = await town.buy(500)
    void = town.undoing(Void, bought)
    voided = await town.tell(void)
    assert voided.answer == "00"
    await refused(town, Rule.STATE, town.did(bought, "01"))
    await deny(town.pg, 1, checker="wang fang", note="it was voided")
    assert (await town.did(bought, "02", 450)).state == State.COLLECTED
    assert (await town.balance(), await town.merchant(), await town.use()) == (550, 450, [(50, False)])
    assert (await town.tell(town.undoing(Reversal, (void, voided), was=Kind.VOID))).answer == "12"
    assert (await town.tell(town.undoing(Refund, bought, 451))).answer == "64"
    assert (await town.tell(town.undoing(Refund, bought, 450))).answer == "00"
    await refused(town, Rule.AMOUNT, town.did(bought, "02", 501))
    assert (await town.balance(), await town.merchant()) == (1_000, 0)


async def test_what_the_holder_has_not_is_not_taken(town: Disputes) -> None:
    bought = await town.buy(500)
    case_no = (await town.did(bought, "04")).case_no
    await town.buy(1_000)
    await town.ask(case_no, asking("05"))
    await refused(town, Rule.AMOUNT, town.decide(case_no))
    await town.pg.execute("UPDATE account SET frozen = true WHERE account_id = 110")
    await refused(town, Rule.STATE, town.decide(case_no))
    assert await town.rows("SELECT asked_action, state FROM dispute_case") == [("05", "CHARGED_BACK")]


async def test_money_of_a_cancelled_card_goes_to_suspense_and_comes_from_there(town: Disputes) -> None:
    bought = await town.buy(500)
    await town.pg.execute("UPDATE card SET state = 8 WHERE card_no = 1")
    case_no = (await town.did(bought, "04")).case_no
    await town.ask(case_no, asking("05", 200))
    await town.decide(case_no)
    assert await town.rows(
        "SELECT p.debit_code, p.credit_code, p.amount_fen FROM posting p JOIN journal j USING (entry_no) WHERE j.class = 3 ORDER BY 3 DESC"
    ) == [(2101, 2201, 500), (2201, 2101, 200)]
    assert await town.balance() == 500


async def test_what_lies_in_suspense_is_collected_from_there_and_not_from_its_holder(town: Disputes) -> None:
    bought = await town.buy(500)
    assert (await town.did(bought, "01", 100)).state == State.CREDITED
    await town.pg.execute("UPDATE card SET state = 8 WHERE card_no = 1")
    await town.did(bought, "01", 300)
    again = await town.open(bought, asking("02", 301))
    await refused(town, Rule.STATE, town.decide(again.case_no))
    await deny(town.pg, again.case_no, checker="wang fang", note="300 are in suspense")
    await town.did(bought, "02", 300)
    assert await town.balance() == 600
    await town.did(bought, "02", 100)
    assert await town.balance() == 500
    assert await town.rows(
        "SELECT p.debit_code, p.credit_code, p.amount_fen FROM posting p JOIN journal j USING (entry_no) WHERE j.class = 3 ORDER BY j.decided_at"
    ) == [(2101, 2001, 100), (2101, 2201, 300), (2201, 2101, 300), (2001, 2101, 100)]


def test_each_share_of_a_divided_purchase_is_collected_from_where_it_went() -> None:
    medical, own = _Side(2003, 140, 60), _Side(2001, 110, 40)
    nobodys = _Side(2201, 0, 100)
    for shares, credited, left in (
        ((medical, own), [(2003, 140), (2001, 110)], []),
        ((medical, own), [(2003, 140), (2201, 0)], [own]),
        ((medical, own), [(2201, 0), (2001, 110)], [medical]),
        ((medical, own), [(2201, 0), (2201, 0)], [medical, own]),
        ((nobodys,), [(2201, 0)], [nobodys]),
        ((_Side(1101, 1_020_000, 9),), [(1101, 1_020_000)], []),
    ):
        assert left_by(shares, credited) == left


async def test_who_asked_does_not_decide(town: Disputes) -> None:
    bought = await town.buy()
    opened = await town.open(bought, asking("01"))
    for name in ("li wei", "LI  Wei", " ｌｉ ｗｅｉ "):
        await refused(town, Rule.PERSON, town.decide(opened.case_no, name))
    with pytest.raises(InputRefused):
        await town.open(bought, asking("01", maker="member 01020000"))
    assert await town.merchant() == 500


async def test_a_retrieval_asks_for_nothing_but_evidence_and_may_become_a_chargeback(town: Disputes) -> None:
    bought = await town.buy()
    opened = await town.open(bought, asking("03"))
    assert (opened.state, opened.waits) == (State.RETRIEVAL, False)
    await refused(town, Rule.STATE, town.decide(opened.case_no))
    await refused(town, Rule.STATE, town.ask(opened.case_no, asking("02")))
    await town.ask(opened.case_no, asking("04", 100))
    await refused(town, Rule.STATE, town.ask(opened.case_no, asking("04", 100)))
    await refused(town, Rule.STATE, close(town.pg, opened.case_no, actor="li wei", note="done"))
    assert (await deny(town.pg, opened.case_no, checker="wang fang", note="no")).state == State.RETRIEVAL
    assert (
        await close(town.pg, opened.case_no, actor="li wei", note="the slip was shown")
    ).state == State.CLOSED
    assert await town.merchant() == 500


async def test_each_action_ends_with_the_last_second_of_its_last_day(town: Disputes) -> None:
    """The day itself is not counted. Days are moved instead of the clock."""
    bought = await town.buy()
    await town.pg.execute("SET session_replication_role = replica")
    (local,) = await town.rows("SELECT (clock_timestamp() AT TIME ZONE INTERVAL '8 hours')::date")
    for action, days in (("01", 180), ("02", 30), ("03", 180), ("04", 90)):
        for back, good in ((days, True), (days + 1, False)):
            town.day = local[0] - timedelta(days=back)
            await town.pg.execute("SELECT make_day_partition('journal', %s)", (town.day,))
            await town.pg.execute("UPDATE journal SET business_date = %s", (town.day,))
            if not good:
                await refused(town, Rule.LIMIT, town.open(bought, asking(action)))
                continue
            await town.open(bought, asking(action))
            await town.pg.execute(
                "UPDATE dispute_case SET state = 'CLOSED', asked_action = NULL, asked_fen = NULL, asked_reason = NULL,"
                " asked_by = NULL, asked_at = NULL"
            )


async def test_a_chargeback_is_final_when_nobody_answers_in_time(town: Disputes) -> None:
    bought = await town.buy()
    case_no = (await town.did(bought, "04")).case_no
    assert await lapse(town.pg) == 0
    # From the calendar's today, which the business day is ahead of from 23:00 on.
    await town.pg.execute(
        "UPDATE dispute_case SET charged_on = n.today - 31, due_on = n.today - 1"
        "  FROM (SELECT (clock_timestamp() AT TIME ZONE INTERVAL '8 hours')::date AS today) AS n"
    )
    await refused(town, Rule.LIMIT, town.ask(case_no, asking("05")))
    assert await lapse(town.pg) == 1
    assert await town.rows("SELECT state FROM dispute_case") == [("CLOSED",)]
    assert await town.balance() == 1_000


async def test_of_two_checkers_one_decides(town: Disputes) -> None:
    bought = await town.buy()
    case_no = (await town.open(bought, asking("01"))).case_no
    told = await asyncio.gather(
        *(
            decide(lambda: connect(town.url), case_no, checker=name)
            for name in ("wang fang", "zhao min", "sun li")
        ),
        return_exceptions=True,
    )
    assert sum(isinstance(one, ActionRefused) for one in told) == 2, told
    assert (await town.balance(), await town.merchant()) == (1_000, 0)


async def test_of_two_openers_one_has_the_case(town: Disputes) -> None:
    bought = await town.buy()
    other = Disputes(town.url, await connect(town.url), town.book, town.day)
    told = await asyncio.gather(
        town.open(bought, asking("01")),
        other.open(bought, asking("04", maker="sun li")),
        return_exceptions=True,
    )
    await other.pg.close()
    assert sorted(type(one).__name__ for one in told) == ["ActionRefused", "Done"]


async def test_a_refund_by_the_terminal_and_a_decision_meet_and_one_of_them_is_too_late(
    town: Disputes,
) -> None:
    for _ in range(8):
        bought = await town.buy(100)
        case_no = (await town.open(bought, asking("01"))).case_no
        refund, decision = await asyncio.gather(
            town.tell(town.undoing(Refund, bought, 100)), town.decide(case_no), return_exceptions=True
        )
        assert (getattr(refund, "answer", "") == "00") == isinstance(decision, ActionRefused), (
            refund,
            decision,
        )
        assert (await town.balance(), await town.merchant()) == (1_000, 0)
        if isinstance(decision, ActionRefused):
            await deny(town.pg, case_no, checker="wang fang", note="the terminal was first")
