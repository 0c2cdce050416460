"""Rules in force mark records once, in cases of one matter each; people close them, and their word measures the rules."""

import asyncio
from collections.abc import Mapping
from datetime import date, datetime, timedelta
from pathlib import Path
from typing import Any

import psycopg
import pytest
from psycopg import AsyncConnection

from switch.domain.calendar import SHANGHAI
from switch.domain.errors import InputRefused
from switch.purse.risk import cases, versions
from switch.purse.risk.bench import KindScore, Label, RuleScore, read_labels, try_rules
from switch.purse.risk.cases import CONFIRMED, FALSE, keep_running, run
from switch.purse.risk.rules import read_rules
from switch.purse.shadow import adjudicate
from switch.storage.pool import connect
from terminal_sim.records import RecordKind
from tests.helpers.offline import Fetch, Ride, upload
from tests.unit.purse.conftest import Office
from tests.unit.purse.risk.conftest import rules_text

pytestmark = pytest.mark.server

Link = AsyncConnection[Any]
MANY = "many-rides card: card_rides_1h >= 2"
LARGE = "large reader: amount_fen >= 500, ride = 1"
TAC = "wrong-tac card: result = 1"


async def in_force(link: Link, *rules: str, begins_at: datetime | None = None) -> int:
    content = rules_text(*rules)
    async with link.transaction():
        await versions.hold(link)
        stored = await versions.add(link, content, rules=len(rules), actor="li wei", note="")
        await versions.activate(link, stored.version, begins_at=begins_at, actor="li wei")
    return stored.version


def rides(card: int, *amounts: int, first_atc: int = 0) -> list[bytes]:
    """Good rides of a card, a minute apart: those of one second are company for each other."""
    begin = datetime.now(SHANGHAI) - timedelta(minutes=20)
    numbered = enumerate(amounts, first_atc)
    return [
        Ride(card=card, atc=atc, amount_fen=fen, when=begin + timedelta(minutes=atc)).pack()
        for atc, fen in numbered
    ]


async def test_hits_of_one_matter_are_one_case_and_a_record_is_marked_once(
    office: Office, link: Link, fetch: Fetch
) -> None:
    await office.take(upload(*rides(9, 200, 200)))  # before there were rules
    await run(link)
    version = await in_force(link, MANY, LARGE)
    await office.take(upload(*rides(1, 200, 300, 700), *rides(2, 500)))
    done = await run(link)
    assert (done.version, done.records, done.hits, done.cut) == (
        version,
        4,
        {"many-rides": 2, "large": 2},
        (),
    )
    assert (await run(link)).records == 0
    await office.take(upload(*rides(1, 100, first_atc=3)))
    assert (await run(link)).hits == {"many-rides": 1}
    found = await cases.cases(link)
    assert [(case.rule, case.matter, case.owner, case.hits, case.amount_fen) for case in sorted(found)] == [
        ("large", "reader", "335000000001", 2, 1_200),
        ("many-rides", "card", "313350*********0017", 3, 1_100),
    ]
    assert fetch("SELECT records, hits FROM risk_run ORDER BY run_no") == [(4, 4), (1, 1)]
    assert fetch("SELECT result, count(*) FROM purse_record GROUP BY 1") == [("10", 7)]


async def test_a_late_record_makes_its_neighbours_look_different(
    office: Office, link: Link, fetch: Fetch
) -> None:
    await in_force(link, MANY)
    now = datetime.now(SHANGHAI) - timedelta(minutes=30)
    late, later = (Ride(atc=n, when=now + timedelta(minutes=n)).pack() for n in range(2))
    await office.take(upload(later))
    assert (await run(link)).hits == {}
    await office.take(upload(late))
    assert (await run(link)).hits == {"many-rides": 1}
    assert fetch("SELECT h.entry_no = r.entry_no FROM risk_hit h, purse_record r WHERE r.atc = 1") == [
        (True,)
    ]


async def test_a_closed_case_stays_closed_and_only_new_records_open_another(
    office: Office, link: Link, fetch: Fetch
) -> None:
    await in_force(link, MANY)
    await office.take(upload(*rides(1, 200, 200)))
    await run(link)
    (case,) = await cases.cases(link)
    assert (
        await cases.close(link, case.case_no, CONFIRMED, actor="wang fang", reason="a clone") == "many-rides"
    )
    await office.take(upload(*rides(2, 200)))  # the same terminal: the reader's records are looked at again
    assert (await run(link)).hits == {}
    assert await cases.cases(link) == []
    with pytest.raises(InputRefused, match="closed already"):
        await cases.close(link, case.case_no, FALSE, actor="wang fang", reason="no")
    with pytest.raises(InputRefused, match="no such case"):
        await cases.close(link, 999, FALSE, actor="wang fang", reason="no")
    with pytest.raises(InputRefused, match="reason"):
        await cases.close(link, case.case_no, FALSE, actor="wang fang", reason=" ")
    await office.take(upload(*rides(1, 200, first_atc=2)))
    assert (await run(link)).hits == {"many-rides": 1}
    assert [(one.hits, one.verdict) for one in await cases.cases(link, closed=True)] == [
        (1, None),
        (1, "CONFIRMED"),
    ]
    for change in (
        "UPDATE risk_case SET verdict = 'FALSE' WHERE case_no = 1",
        "DELETE FROM risk_case",
        "DELETE FROM risk_hit",
    ):
        with pytest.raises(psycopg.errors.RestrictViolation):
            fetch(change)


async def test_two_runs_at_once_mark_each_record_once(
    office: Office, link: Link, town: str, fetch: Fetch
) -> None:
    await in_force(link, MANY)
    await office.take(upload(*rides(1, 200, 200, 200), *rides(2, 200, 200)))
    async with await connect(town) as other:
        first, second = await asyncio.gather(run(link), run(other))
    assert sorted((first.records, second.records)) == [0, 5]
    assert fetch("SELECT sum(hits), count(*) FROM risk_case") == [(3, 2)]


async def test_a_run_takes_whole_transactions_up_to_its_bound_and_says_when_there_is_more(
    office: Office, link: Link, fetch: Fetch
) -> None:
    await in_force(link, "all card: amount_fen > 0")
    for card in range(1, 5):
        await office.take(upload(*rides(card, 200, 200)))
    done = [await run(link, records_max=3)]
    while done[-1].more:
        done.append(await run(link, records_max=3))
    assert sum(one.records for one in done) == 8
    assert max(one.records for one in done) == 2
    assert fetch("SELECT count(*) FROM risk_hit") == [(8,)]
    await office.take(upload(*rides(5, 200, 200, 200)))
    done = [await run(link, records_max=1)]
    while done[-1].more:
        done.append(await run(link, records_max=1))
    assert sum(one.records for one in done) == 3


async def test_a_rule_that_marks_everything_is_cut_and_named(
    office: Office, link: Link, fetch: Fetch
) -> None:
    await in_force(link, "all card: amount_fen > 0", MANY)
    await office.take(upload(*rides(1, 200, 200, 200)))
    done = await run(link, hits_max=1)
    assert done.cut == ("all", "many-rides")
    assert fetch("SELECT cut FROM risk_run") == [(["all", "many-rides"],)]


async def test_what_a_rule_has_marked_does_not_fill_its_bound_again(office: Office, link: Link) -> None:
    await in_force(link, "all card: amount_fen > 0")
    await office.take(upload(*rides(1, 200, 200)))
    assert (await run(link, hits_max=2)).hits == {"all": 2}
    await office.take(upload(*rides(1, 200, 200, first_atc=2)))
    done = await run(link, hits_max=2)
    assert (done.hits, done.cut) == ({"all": 2}, ())


async def test_a_run_and_a_trial_do_not_hold_back_folds_while_they_read(
    office: Office, link: Link, town: str
) -> None:
    await in_force(link, MANY)
    await office.take(upload(*rides(1, 200)))
    numbers = "SELECT count(*) FROM pg_stat_activity WHERE pid = %s AND backend_xid IS NOT NULL"
    pid = link.info.backend_pid
    async with await connect(town) as other, await connect(town) as watcher, other.transaction():
        await other.execute("LOCK TABLE purse_record IN ACCESS EXCLUSIVE MODE")
        task = asyncio.create_task(run(link))
        while True:
            cursor = await watcher.execute(
                "SELECT wait_event_type FROM pg_stat_activity WHERE pid = %s", (pid,)
            )
            if await cursor.fetchone() == ("Lock",):
                break
            await asyncio.sleep(0.02)
        cursor = await watcher.execute(numbers, (pid,))
        assert await cursor.fetchone() == (0,)
    assert (await task).records == 1
    # A trial reads in a transaction that may not write, so the server itself keeps it without a number.
    tried = await try_rules(link, read_rules(rules_text(MANY)), TODAY - timedelta(days=1), TOMORROW)
    assert tried.records == 1


async def test_rules_that_begin_later_or_were_taken_back_mark_nothing(office: Office, link: Link) -> None:
    await in_force(link, MANY)
    tomorrow = datetime.now().astimezone() + timedelta(days=1)
    await in_force(link, LARGE, begins_at=tomorrow)
    assert (await versions.in_force(link)).version == 1
    assert (await versions.in_force(link, tomorrow)).version == 2
    assert await versions.roll_back(link, actor="wang fang") == 2
    assert (await versions.in_force(link, tomorrow)).version == 1
    assert await versions.roll_back(link, actor="wang fang") == 1
    assert await versions.in_force(link) == versions.NOTHING
    with pytest.raises(InputRefused):
        await versions.roll_back(link, actor="wang fang")
    await office.take(upload(*rides(1, 900, 900)))
    assert (await run(link)).version == 0
    with pytest.raises(InputRefused, match="past"):
        await in_force(link, MANY, begins_at=datetime.now().astimezone() - timedelta(hours=1))
    assert [one.action for one in await versions.activations(link)] == [
        "ACTIVATE",
        "ACTIVATE",
        "ROLLBACK",
        "ROLLBACK",
    ]


async def test_the_service_marks_and_counts_until_it_is_stopped(
    office: Office, link: Link, town: str
) -> None:
    await in_force(link, MANY)
    await office.take(upload(*rides(1, 200, 200)))
    seen: asyncio.Future[tuple[Mapping[str, int], datetime | None]] = (
        asyncio.get_running_loop().create_future()
    )
    marked: dict[str, int] = {}

    class Counting:
        def risk_marked(self, hits: Mapping[str, int]) -> None:
            marked.update(hits)

        def risk_open(self, cases: Mapping[str, int], since: datetime | None) -> None:
            if not seen.done():
                seen.set_result((cases, since))

    class Connecting:
        async def __aenter__(self) -> Link:
            self.link = await connect(town)
            return self.link

        async def __aexit__(self, *_exc: object) -> None:
            await self.link.close()

    task = asyncio.create_task(keep_running(Connecting, 60.0, Counting()))
    counted, since = await seen
    task.cancel()
    assert (marked, counted, since is not None) == ({"many-rides": 1}, {"many-rides": 1}, True)


TODAY, TOMORROW = date.today(), date.today() + timedelta(days=1)  # noqa: DTZ011  any day about now does


async def test_rules_are_tried_on_history_against_what_people_said(
    office: Office, link: Link, fetch: Fetch
) -> None:
    await in_force(link, MANY)
    await office.take(upload(*rides(1, 200, 200), *rides(2, 300, 300), *rides(3, 200)))
    earlier = datetime.now(SHANGHAI) - timedelta(hours=2)
    greys = [Ride(card=card, atc=0, kind=RecordKind.GREY, when=earlier) for card in (4, 5)]
    proofs = [Ride(card=4, atc=0), Ride(card=5, atc=1, balance_fen=99_800)]
    await office.take(upload(*(ride.pack() for ride in (*greys, *proofs))))
    await adjudicate(link)
    await run(link)
    by_hits = {case.amount_fen: case.case_no for case in await cases.cases(link)}
    await cases.close(link, by_hits[300], CONFIRMED, actor="li wei", reason="a clone")
    await cases.close(link, by_hits[200], FALSE, actor="li wei", reason="a family")
    before = fetch("SELECT count(*), (SELECT count(*) FROM risk_run) FROM risk_hit")
    rules = read_rules(rules_text(MANY, "grey card: grey = 1", "none card: amount_fen < 0"))
    tried = await try_rules(link, rules, TODAY - timedelta(days=1), TOMORROW)
    assert tried.rules[0] == RuleScore("many-rides", 2, 2, 2, 500, confirmed=1, false=1)
    assert (tried.rules[1].records, tried.rules[1].precision) == (2, 0.5)
    assert tried.rules[2] == RuleScore("none")
    assert (tried.records, tried.rules[2].precision) == (9, None)
    assert fetch("SELECT count(*), (SELECT count(*) FROM risk_run) FROM risk_hit") == before
    with pytest.raises(InputRefused):
        await try_rules(link, rules, TOMORROW, TODAY)


async def test_rules_are_tried_against_the_labels_of_a_planted_set(
    office: Office, link: Link, tmp_path: Path
) -> None:
    bad = Ride(card=1, atc=0, tac=b"\1\2\3\4", record_serial=900_001)
    missed = Ride(card=2, atc=0, amount_fen=900, record_serial=900_002)
    await office.take(upload(bad.pack(), missed.pack(), *rides(3, 200, 200)))
    path = tmp_path / "labels.csv"
    path.write_text("terminal_id,record_serial,kind\n33500001,900001,tac\n33500001,900002,fare\n")
    rules = read_rules(rules_text(TAC, "large card: amount_fen >= 200"))
    tried = await try_rules(link, rules, TODAY - timedelta(days=1), TOMORROW, read_labels(path))
    assert (tried.confirmed, tried.false) == (2, 2)
    assert [score.precision for score in tried.rules] == [1.0, 0.5]
    assert tried.kinds == (
        KindScore("fare", 1, 1, ("large",)),
        KindScore("tac", 1, 1, ("large", "wrong-tac")),
    )
    unknown = [Label("99999999", 1, "tac"), Label("33500001", 9_999_999_999, "tac")]
    assert (await try_rules(link, rules, TODAY - timedelta(days=1), TOMORROW, unknown)).kinds == ()


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("a,b,c\n", "line 1: must read"),
        ("terminal_id,record_serial,kind\nX,1,tac\n", "line 2: terminal_id"),
        ("terminal_id,record_serial,kind\n33500001,-1,tac\n", "line 2: record_serial"),
        ("terminal_id,record_serial,kind\n33500001,1,\n", "line 2: kind"),
        ("terminal_id,record_serial,kind\n33500001,1\n", "line 2: must have 3 cells"),
        ('terminal_id,record_serial,kind\n"33500001,1\n', "is no CSV"),
    ],
)
def test_a_label_that_cannot_be_read_is_named_by_its_line(tmp_path: Path, text: str, says: str) -> None:
    path = tmp_path / "labels.csv"
    path.write_text(text)
    with pytest.raises(InputRefused, match=says):
        read_labels(path)
