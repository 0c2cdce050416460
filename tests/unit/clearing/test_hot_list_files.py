"""The hot list with a day's files: whole the first time, then what changed since the acquirer's last file, and the same bytes again."""

from collections.abc import Callable
from datetime import date, timedelta
from pathlib import Path
from typing import Any

import pytest
from psycopg import AsyncConnection

from switch.clearing.close import CloseTerms, close_day, day_folder
from switch.clearing.lint import lint_file
from switch.operations.audit import audit
from switch.storage.pool import connect_now
from tests.helpers.clearing_day import OTHER, OWN, add_journal

pytestmark = pytest.mark.server

Pg = AsyncConnection[Any]
Contents = Callable[[Path], dict[str, bytes]]


async def publish(pg: Pg, version: int, *changes: tuple[str, int | None]) -> None:
    """The next version of the list. changes: card and its level, None: it comes off."""
    await pg.execute(
        "INSERT INTO hot_list_version (version, actor, entries, added, removed, published_at)"
        " VALUES (%s, 'test', 0, 0, 0, '2024-03-01 12:00+08'::timestamptz + %s * interval '1 day')",
        (version, version),
    )
    for card, level in changes:
        asn = f"031335001{card}".ljust(20, "0")
        await pg.execute(
            "UPDATE hot_list_entry SET until_version = %s WHERE asn = %s AND until_version IS NULL",
            (version, asn),
        )
        if level is not None:
            await pg.execute(
                "INSERT INTO hot_list_entry VALUES (%s, %s, 'COUNTERFEIT', %s)", (asn, level, version)
            )


def lines_of(folder: Path, kind: str) -> list[str]:
    (path,) = folder.glob(f"{kind}*1")
    report = lint_file(path)
    assert (report.faults, report.notes) == ((), ())
    return [line[9:32] for line in path.read_text("ascii").splitlines()[1:-1]]


async def test_an_acquirer_that_wants_it_gets_bf_once_and_then_bi_when_something_changed(
    pg: Pg, day: date, terms: CloseTerms, contents: Contents, postgres_url: str
) -> None:
    terms = terms._replace(hot_list_for=(OTHER, "99990001"))
    await publish(pg, 1, ("11", 0), ("33", 1))
    await publish(pg, 2, ("22", 1))
    await close_day(pg, day, terms, "test")
    first = day_folder(terms.folder, day)
    assert lines_of(first, "BF") == [
        f"A031335001{card}000000000{level}" for card, level in (("11", "00"), ("22", "01"), ("33", "01"))
    ]
    (name,) = [path.name for path in first.glob("BF*1")]
    assert name[2:18] == OWN + OTHER
    assert not list(first.glob("BI*"))

    second_day = day + timedelta(days=1)
    await publish(pg, 3, ("11", None), ("22", 0))
    await publish(pg, 4, ("44", 0))
    await add_journal(pg, second_day, 20, first=500_000_000)
    await close_day(pg, second_day, terms, "test")
    second = day_folder(terms.folder, second_day)
    assert lines_of(second, "BI") == [
        f"V{'2'.zfill(20)}00",
        "D0313350011100000000000",
        "A0313350012200000000000",
        "A0313350014400000000000",
    ]
    assert not list(second.glob("BF*"))

    third_day = day + timedelta(days=2)  # nothing has changed since
    await add_journal(pg, third_day, 20, first=600_000_000)
    await close_day(pg, third_day, terms, "test")
    assert not list(day_folder(terms.folder, third_day).glob("B*"))

    before = contents(terms.folder)
    await publish(pg, 5, ("55", 0), ("44", None))
    for place in (first, second):
        for path in place.glob("B*"):
            path.unlink()
    for closed in (day, second_day):
        await close_day(pg, closed, terms._replace(hot_list_for=()), "test")
    assert contents(terms.folder) == before
    with connect_now(postgres_url) as connection:
        report = audit(connection, terms.folder, reading="clearing_hot_list")
    said = [place for verdict in report.verdicts for place in verdict.places if " B" in f" {place.key}"]
    assert said == []


async def test_nobody_gets_it_who_does_not_want_it_or_where_there_is_none(
    pg: Pg, day: date, terms: CloseTerms
) -> None:
    await close_day(pg, day, terms._replace(hot_list_for=(OTHER,)), "test")
    second_day = day + timedelta(days=1)
    await publish(pg, 1, ("11", 0))
    await close_day(pg, second_day, terms, "test")
    assert not list(terms.folder.rglob("B[FI]*"))
