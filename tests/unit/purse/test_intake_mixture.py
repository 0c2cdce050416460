"""Whatever comes, in uploads of any size and transactions of any number of them: what is stored is what the judge says one by one."""

import asyncio
import random
from datetime import UTC, datetime

import pytest

from switch.purse.verify import LOCKED, Candidate, Judge
from tests.helpers.mixtures import digest_of, fault_of, mixed_record, with_facts
from tests.helpers.offline import FOREIGN_ISSUER, ISSUER, Fetch, merchant_of, results, upload
from tests.unit.purse.conftest import OpenOffice

pytestmark = pytest.mark.server
ISSUERS = {ISSUER: True, FOREIGN_ISSUER: False}


@pytest.mark.parametrize("seed", [1, 2])
async def test_a_mixture_is_answered_and_stored_as_the_judge_says(
    open_office: OpenOffice, fetch: Fetch, seed: int
) -> None:
    rng = random.Random(seed)
    now = datetime.now(UTC)
    judge = Judge(now, ISSUERS)
    office = open_office(records_max=rng.choice([20, 60, 400]))
    expected: list[Candidate] = []
    uploads = []
    for number in range(60):
        terminal_no = rng.choice([1, 1, 2, 7, 8])
        records = [mixed_record(rng.choice, now) for _ in range(rng.randrange(1, 12))]
        if number % 3 == 2:
            records.insert(0, rng.choice(expected).raw)
        if number % 20 == 7:
            records.append(records[0][:95])  # no message can bring it; the room does not rely on that
        uploads.append(upload(*records, terminal_no=terminal_no))
        for raw in records:
            candidate = with_facts(Candidate(raw, digest_of(raw)))
            judge.judge(candidate, fault_of(candidate, merchant_of(terminal_no)))
            expected.append(candidate)

    first = await office.take(*uploads[:20])
    outcomes = [*first, *await asyncio.gather(*map(office.send, uploads[20:]))]
    again = await office.take(*uploads[10:30])
    assert again == outcomes[10:30]

    found = [result for outcome in outcomes for result in results(outcome)]
    assert found == [candidate.result for candidate in expected]
    assert set(found) >= {"01", "02", "03", "04", "05", "06", "07", "08", "10", "11"}
    stored = fetch("SELECT raw, result, card, atc, record_kind FROM purse_record ORDER BY entry_no")
    assert stored == [
        (one.raw, one.result, *((one.card, one.atc, one.kind) if one.readable else (None,) * 3))
        for one in expected
    ]
    used = [one for one in expected if one.result == "10" and one.kind != LOCKED]
    assert fetch("SELECT card, atc, amount_fen, mark FROM purse_atc ORDER BY card, atc") == sorted(
        (one.card, one.atc, one.amount_fen, one.mark) for one in used
    )
    assert fetch(
        "SELECT psam, psam_serial, card, atc FROM purse_serial ORDER BY psam, psam_serial"
    ) == sorted((one.psam, one.psam_serial, one.card, one.atc) for one in used)
    assert fetch("SELECT count(*) FROM purse_posting") == [
        (sum(one.amount_fen > 0 and one.result == "10" for one in expected),)
    ]
    waiting = [
        one for one in expected if one.result in ("04", "11") or (one.result == "10" and one not in used)
    ]
    assert fetch(
        "SELECT card, atc, amount_fen, mark, result FROM purse_waiting ORDER BY 1, 2, 3, 4"
    ) == sorted((one.card, one.atc, one.amount_fen, one.mark, one.result) for one in waiting)
    faults = [(one.fault or one.why_unreadable(), one.raw) for one in expected if one.fault]
    assert fetch("SELECT reason, raw FROM purse_quarantine ORDER BY entry_no") == faults
    alarms = fetch(
        "SELECT kind, count(*) FROM purse_alarm WHERE kind <> 'CARD_UNREGISTERED' GROUP BY kind ORDER BY kind"
    )
    kinds = [one.alarm for one in expected if one.alarm]
    assert alarms == [(kind, kinds.count(kind)) for kind in sorted(set(kinds))]
    columns = "card, atc, amount_fen, balance_fen, psam, psam_serial, record_serial, happened_at"
    assert fetch(f"SELECT count(*) FROM purse_record WHERE num_nulls({columns}) NOT IN (0, 8)") == [(0,)]
