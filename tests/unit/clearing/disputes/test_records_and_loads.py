"""Offline records that people accept, money of records that goes back, and loads: each counter once, each record once."""

import asyncio
from datetime import date
from pathlib import Path
from typing import Any

import pytest
from psycopg import AsyncConnection

from switch.clearing.depot_files import depot_kind
from switch.clearing.disputes.cases import open_case
from switch.clearing.disputes.deciding import decide
from switch.clearing.disputes.evidence import Store, add_evidence
from switch.clearing.disputes.originals import find_load, find_transaction
from switch.clearing.disputes.states import Rule, State
from switch.clearing.disputes.steps import ActionRefused, Done
from switch.clearing.received import Terms, take_file
from switch.domain.errors import InputRefused
from switch.keys.software_vault import SoftwareVault
from switch.ledger.days import open_day
from switch.ledger.load_desk import settle
from switch.ledger.load_states import LoadState
from switch.purse.intake import inline_tacs
from switch.purse.shadow import adjudicate
from switch.storage.pool import connect
from terminal_sim.records import RecordKind
from tests.helpers.depots import CENTRE, OWN, depot_file
from tests.helpers.disputed import asking
from tests.helpers.offline import Ride, build

pytestmark = pytest.mark.server


class Depot:
    """A depot's records, and people who look at them."""

    def __init__(self, url: str, pg: AsyncConnection[Any], vault: SoftwareVault, folder: Path) -> None:
        self.url, self.pg, self.vault, self.folder, self.files = url, pg, vault, folder, 0

    async def bring(self, *rides: Ride) -> list[tuple[int, str]]:
        """Records as they were taken: numbers and results."""
        self.files += 1
        path = depot_file(
            self.folder, [ride.pack() for ride in rides], await self.today(), sequence=self.files
        )
        terms = Terms(OWN, CENTRE, 2, "li wei")
        async with await connect(self.url) as connection:
            await take_file(
                connection,
                path,
                terms,
                lambda name: depot_kind(connection, name, terms, inline_tacs(self.vault)),
            )
        return (await self.rows("SELECT entry_no, result FROM purse_record ORDER BY entry_no"))[-len(rides) :]

    async def today(self) -> date:
        row = await open_day(self.pg)
        assert row is not None
        return row.day

    async def open(self, entry_no: int, action: str, fen: int | None = None, *, proven: bool = True) -> int:
        original = await find_transaction(self.pg, await self.today(), OWN, entry_no=entry_no)
        case_no = (await open_case(self.pg, original, asking(action, fen))).case_no
        if proven:
            await add_evidence(self.pg, case_no, Store(self.folder, 1, 1, 1), note="seen", actor="li wei")
        return case_no

    async def decide(self, case_no: int) -> Done:
        return await decide(lambda: connect(self.url), case_no, checker="wang fang")

    async def rows(self, query: str) -> list[Any]:
        return await (await self.pg.execute(query.encode())).fetchall()


@pytest.fixture
async def depot(
    postgres_url: str, pg: AsyncConnection[Any], tac_vault: SoftwareVault, tmp_path: Path
) -> Depot:
    await build(postgres_url)
    return Depot(postgres_url, pg, tac_vault, tmp_path)


async def test_a_refused_record_is_accepted_with_evidence_and_uses_its_counters_up(depot: Depot) -> None:
    ((entry, result),) = await depot.bring(Ride(card=6, tac=b"wrng"))
    assert result == "01"
    case_no = await depot.open(entry, "07", proven=False)
    with pytest.raises(ActionRefused, match="needs evidence"):
        await depot.decide(case_no)
    await add_evidence(depot.pg, case_no, Store(depot.folder, 1, 1, 1), note="seen", actor="li wei")
    told = await asyncio.gather(depot.decide(case_no), depot.decide(case_no), return_exceptions=True)
    assert sorted(type(one).__name__ for one in told) == ["ActionRefused", "Done"]
    assert await depot.rows(
        "SELECT result, original_entry FROM purse_record WHERE original_entry IS NOT NULL"
    ) == [("00", entry)]
    assert await depot.rows("SELECT count(*) FROM purse_atc") == [(1,)]
    assert [code for _, code in await depot.bring(Ride(card=6, tac=b"wrng"), Ride(card=6))] == ["01", "02"]
    with pytest.raises(ActionRefused, match="the record is paid"):
        await depot.decide(await depot.open(entry, "07"))


async def test_a_counter_that_another_record_has_stays_that_ones(depot: Depot) -> None:
    wrong, good = await depot.bring(Ride(card=6, tac=b"wrng"), Ride(card=6))
    assert (wrong[1], good[1]) == ("01", "10")
    with pytest.raises(ActionRefused, match="counter is used up") as caught:
        await depot.decide(await depot.open(wrong[0], "07"))
    assert caught.value.rule == Rule.STATE
    assert await depot.rows("SELECT count(*) FROM purse_record WHERE original_entry IS NOT NULL") == [(0,)]
    with pytest.raises(InputRefused):
        await depot.open(99_999_999, "07")


async def test_a_grey_record_is_paid_once_by_people_or_by_the_close(depot: Depot) -> None:
    ((entry, result),) = await depot.bring(Ride(card=7, atc=4, kind=RecordKind.GREY))
    assert result == "04"
    case_no = await depot.open(entry, "06")
    assert (await depot.decide(case_no)).state == State.ACCEPTED
    assert await depot.rows("SELECT verdict FROM purse_waiting WHERE result = '04'") == [("00",)]
    assert await adjudicate(depot.pg, days_max=0) == (0, 0, 0)
    ((late, _),) = await depot.bring(
        Ride(card=8, atc=4, kind=RecordKind.GREY, amount_fen=333, psam_serial=77_001)
    )
    waiting = await depot.open(late, "06")
    assert (await adjudicate(depot.pg, days_max=0)).refused == 1
    with pytest.raises(ActionRefused, match="was decided before"):
        await depot.decide(waiting)


async def test_money_of_a_record_goes_to_the_holders_account_and_not_beyond_its_amount(depot: Depot) -> None:
    ((entry, _),) = await depot.bring(Ride(card=6, amount_fen=200))
    assert (await depot.decide(await depot.open(entry, "01", 150))).state == State.CREDITED
    assert await depot.rows(
        "SELECT kind, account_id % 100, effect_fen, original_entry FROM journal WHERE class = 3"
    ) == [(14, 10, -150, entry)]
    with pytest.raises(ActionRefused, match="50 fen are left"):
        await depot.decide(await depot.open(entry, "04", 51))
    assert await depot.rows("SELECT debit_code, amount_fen FROM posting") == [(2101, 150)]


async def test_a_load_is_settled_with_its_case_or_not_at_all(town: Any) -> None:
    """The same load is settled by another command while the case waits."""
    pg = town.pg
    await pg.execute(
        "INSERT INTO purse (shard, card_no, asn, loaded_fen) VALUES (0, 1, '00000000000000000001', 0)"
    )
    for entry, stan in ((501, 71), (502, 72)):
        await pg.execute(
            "INSERT INTO journal (shard, business_date, terminal_no, batch_no, stan, class, entry_no, merchant_no, kind, amount_fen, answer,"
            " rrn, decided_at, digest) VALUES (0, %s, 1, 1, %s, 0, %s, 1, 11, 300, '00', '000000000000', clock_timestamp(), %s)",
            (town.day, stan, entry, bytes(32)),
        )
        await pg.execute(
            "INSERT INTO purse_load VALUES (0, %s, %s, 1, %s, '335000000017', '\\x0000000000000000', 1, 0, 1, '\\x00000000', 300, 0,"
            " clock_timestamp(), 4, 1002, 99993350, 4, 'no_word', 2)",
            (entry, town.day, stan),
        )
    cases = [
        (await open_case(pg, await find_load(pg, entry, OWN), asking("08", outcome="returned"))).case_no
        for entry in (501, 502)
    ]
    done = await town.decide(cases[0])
    assert await town.rows(
        "SELECT c.state, e.entry_no, l.state FROM dispute_case c JOIN dispute_event e USING (case_no) JOIN purse_load l"
        " ON l.entry_no = c.original_entry WHERE e.what = 'DONE'"
    ) == [("SETTLED", done.entry_no, LoadState.RETURNED)]
    await settle(lambda: connect(town.url), 502, LoadState.LOADED, actor="a", checker="b", reason="card read")
    with pytest.raises(ActionRefused, match="not in suspense"):
        await town.decide(cases[1])
    assert await town.rows("SELECT count(*) FROM posting") == [(2,)]
