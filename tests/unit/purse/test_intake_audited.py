"""Whatever comes, by frames and by batches, through several processes at once: the audit finds nothing to say against it."""

import asyncio
import random
from datetime import UTC, date, datetime
from typing import Any

import pytest

from switch.operations.audit import CHECKS
from switch.purse.batches import stan_of
from switch.purse.intake import Upload
from switch.purse.shadow import adjudicate, fold_purses
from switch.storage.pool import connect, connect_now
from tests.helpers.mixtures import mixed_record
from tests.helpers.offline import upload
from tests.unit.purse.conftest import OpenOffice

pytestmark = pytest.mark.server

NEEDS_LOADS = {"purses", "float_identity"}  # the town's purses have money that no load brought
TABLES = ("purse", "journal", "terminal_batch")


def contradictions(url: str) -> list[tuple[str, Any]]:
    every: dict[str, object] = {"first": date.min, "last": date.max}
    with connect_now(url) as link:
        return [
            (check.name, row)
            for check in CHECKS
            if check.name not in NEEDS_LOADS and any(table in check.query for table in TABLES)
            for row in link.execute(check.query.encode(), every).fetchall()
        ]


async def test_a_mixture_by_frames_and_batches_leaves_nothing_that_contradicts_itself(
    open_office: OpenOffice, town: str
) -> None:
    rng = random.Random(11)
    now = datetime.now(UTC)
    offices = [open_office(records_max=many) for many in (20, 60, 400)]
    sent: list[Upload] = []
    for _ in range(60):
        terminal_no = rng.choice([1, 1, 2, 7, 8])
        records = [mixed_record(rng.choice, now) for _ in range(rng.randrange(1, 30))]
        if sent and rng.random() < 0.4:
            records.insert(0, rng.choice(rng.choice(sent).records))
        one = upload(*records, terminal_no=terminal_no)
        if rng.random() < 0.5:
            serial = rng.choice([0, 2**31, 2**32 - 1, *range(40)])
            one = one._replace(stan=stan_of(serial), serial=serial, bulk=True, digest=rng.randbytes(32))
        sent += [one] * rng.choice([1, 1, 2])
    outcomes = await asyncio.gather(*(rng.choice(offices).send(one) for one in sent))
    answers: dict[tuple[int, int, bytes], tuple[str, bytes]] = {}
    for one, outcome in zip(sent, outcomes, strict=True):
        assert outcome is not None
        said = outcome.answer, outcome.field62
        assert answers.setdefault((one.terminal_no, one.stan, one.digest), said) == said
    async with await connect(town) as link:
        assert await fold_purses(link)
        assert contradictions(town) == []
        decided = await adjudicate(link)
        assert decided.paid + decided.refused
        assert await fold_purses(link)
        assert contradictions(town) == []
