"""Late records and loads together, over closed days, through the code that works in earnest: intake, book, fold, close."""

import asyncio
from datetime import date, datetime, timedelta
from pathlib import Path
from typing import Any

import psycopg
import pytest

from switch.clearing.files import check_file
from switch.clearing.layouts import Value
from switch.domain.calendar import SHANGHAI
from switch.keys.software_vault import SoftwareVault
from switch.operations.audit import audit
from switch.purse.card_view import CardView, find_purse, view_card
from switch.purse.completeness import report
from switch.storage.pool import connect, connect_now
from tests.helpers.audited_city import City, found
from tests.helpers.offline import Ride, pan_of, psam_of

pytestmark = [pytest.mark.server, pytest.mark.slow]


def _lines(folder: Path, day: date, kind: str) -> list[dict[str, Value]]:
    lines: list[dict[str, Value]] = []
    for path in sorted((folder / f"{day:%Y%m%d}").glob(f"{kind}*")):
        if path.suffix != ".ok":
            with path.open("rb") as stream:
                check_file(path.name, stream, lambda _, values: lines.append(values))
    return lines


def number(day: date) -> int:
    """A day as a file's line reads."""
    return int(f"{day:%Y%m%d}")


async def _view(url: str, card: int) -> CardView:
    async with await connect(url) as connection:
        return await view_card(connection, await find_purse(connection, pan_of(card)))


async def test_late_records_and_loads_find_their_places(
    postgres_url: str, vault: SoftwareVault, tmp_path: Path
) -> None:
    url = postgres_url
    await found(url, tmp_path)
    now = datetime.now(SHANGHAI)
    earlier = [now - timedelta(days=days) for days in (5, 4, 3)]
    async with City(url, vault, tmp_path) as city:
        # The card: 1000.00, ride 600.00, load 50.00, ride 2.00, ride 2.00. The middle ride is late, and so is the load's confirm.
        await city.bring(Ride(atc=0, amount_fen=60_000, when=earlier[0], record_serial=1, psam_serial=1))
        load = await city.load(1, 5_000, 0, balance_fen=40_000)
        assert load[1].answer == "00"
        await city.bring(Ride(atc=2, balance_fen=44_800, when=earlier[2], record_serial=3, psam_serial=3))
        await city.fold()
        view = await _view(url, 1)
        assert [(gap.lowest, gap.highest) for gap in view.gaps] == [(1, 1)]
        assert view.steps[-1].missing == 1
        first = await city.close()
        files = {path.name: path.read_bytes() for path in (tmp_path / f"{first:%Y%m%d}").iterdir()}

        await city.bring(Ride(atc=1, balance_fen=45_000, when=earlier[1], record_serial=2, psam_serial=2))
        await city.bring(Ride(card=2, atc=0, tac=b"wrng", when=earlier[1], record_serial=4, psam_serial=4))
        await city.fold()
        view = await _view(url, 1)
        assert [step.link.verdict.value for step in view.steps[1:] if step.link] == ["load open", "follows"]
        await city.confirm(1, 5_000, 0, load, balance_fen=40_000)
        second = await city.close()
        view = await _view(url, 1)
        assert [step.link.verdict.value for step in view.steps[1:] if step.link] == ["loaded", "follows"]
        assert view.figures.balance_fen == 100_000 + 5_000 - 60_400
        assert view.gaps[0].closed_at is not None
        assert view.alarms == []

        # What was closed stays as it was; the late ones are the open day's, each with its own date.
        assert files == {path.name: path.read_bytes() for path in (tmp_path / f"{first:%Y%m%d}").iterdir()}
        with psycopg.connect(url, autocommit=True) as plain:
            rows = plain.execute(
                "SELECT atc, business_date, happened_at::date FROM purse_record WHERE result = '10' ORDER BY atc"
            ).fetchall()
        dates = [moment.date() for moment in earlier]
        assert rows == [(0, first, dates[0]), (1, second, dates[1]), (2, first, dates[2])]
        written = [
            (line["date"], line["clearing_date"], line["amount"]) for line in _lines(tmp_path, second, "MR")
        ]
        assert written == [(number(dates[1]), number(second), 200)]
        (refused,) = _lines(tmp_path, second, "SS")
        assert (refused["date"], refused["decided_on"]) == (number(dates[1]), number(second))
        async with await connect(url) as connection:
            _, came = await report(connection, second)
        assert came == {(3, 1): (2, 1, 2), (2, int(psam_of(1).hex())): (2, 1, 2)}
    with connect_now(url) as audited:
        verdicts: Any = await asyncio.to_thread(audit, audited, tmp_path)
    assert [place for verdict in verdicts.verdicts for place in verdict.places] == []
