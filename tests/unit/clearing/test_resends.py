"""A file sent again: the same lines under the next number, written down in the open day, and the closed day as it was."""

from collections.abc import Callable
from datetime import date, timedelta
from pathlib import Path
from typing import Any

import psycopg
import pytest
from psycopg import AsyncConnection

from switch.clearing import resends
from switch.clearing.close import CloseTerms, close_day, day_folder
from switch.clearing.files import FileInMaking, FolderError, Written
from switch.clearing.lint import lint_file
from switch.clearing.resends import read_resends, resend
from switch.domain.errors import InputRefused
from switch.storage.pool import connect

pytestmark = pytest.mark.server

Pg = AsyncConnection[Any]
Contents = Callable[[Path], dict[str, bytes]]


@pytest.fixture
async def folder(pg: Pg, day: date, terms: CloseTerms) -> Path:
    """The folder of a closed day."""
    await close_day(pg, day, terms, "test")
    return day_folder(terms.folder, day)


def file_of(folder: Path, kind: str) -> str:
    return min(path.name for path in folder.glob(f"{kind}*1"))


async def test_the_next_generation_has_the_same_lines_and_the_file_itself_stays(
    pg: Pg, day: date, folder: Path, contents: Contents
) -> None:
    name = file_of(folder, "CM")
    before = contents(folder)
    first = await resend(pg, folder, name, "lost at the partner", "li wei")
    second = await resend(pg, folder, first.name, "lost again", "wang fang")
    assert (first.name, second.name) == (name[:-3] + "002", name[:-3] + "003")
    assert (first.original, second.original) == (name, name)
    assert (first.of_date, first.business_date) == (day, day + timedelta(days=1))
    after = contents(folder)
    assert {key: after[key] for key in before} == before
    assert sorted(after.keys() - before.keys()) == sorted(
        f"{again}{end}" for again in (first.name, second.name) for end in ("", ".ok")
    )
    for again in (first, second):
        assert lint_file(folder / again.name).faults == ()
        assert after[again.name].splitlines()[1:-1] == before[name].splitlines()[1:-1]
        assert after[again.name][:29] + after[again.name][32:82] == before[name][:29] + before[name][32:82]


async def test_what_is_lost_of_it_is_written_again_as_it_was_with_the_days_other_files(
    pg: Pg, day: date, folder: Path, terms: CloseTerms, contents: Contents
) -> None:
    again = await resend(pg, folder, file_of(folder, "MR"), "lost", "li wei")
    before = contents(folder)
    (folder / again.name).unlink()
    (folder / file_of(folder, "NP")).unlink()
    closed = await close_day(pg, day, terms, "test")
    assert contents(folder) == before
    assert again.name in closed.rewritten


class Mortal(FileInMaking):
    """Fails when the file has its name and nobody knows yet."""

    def finish(self) -> Written:
        super().finish()
        raise FolderError("the power went")


async def test_a_run_that_was_stopped_is_ended_by_the_next_and_uses_no_number_up(
    pg: Pg, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    name = file_of(folder, "CM")
    with monkeypatch.context() as patched:
        patched.setattr(resends, "FileInMaking", Mortal)
        with pytest.raises(FolderError):
            await resend(pg, folder, name, "lost", "li wei")
    assert not (folder / f"{name[:-3]}002.ok").exists()
    ended = await resend(pg, folder, name, "lost, tried once more", "wang fang")
    assert (ended.name, ended.reason, ended.finished) == (f"{name[:-3]}002", "lost", True)
    assert lint_file(folder / ended.name).notes == ()
    assert (await resend(pg, folder, name, "now again", "li wei")).name == f"{name[:-3]}003"


async def test_what_cannot_be_sent_again_is_refused(
    pg: Pg, postgres_url: str, day: date, folder: Path
) -> None:
    name = file_of(folder, "QS") if list(folder.glob("QS*1")) else file_of(folder, "NP")
    for wrong, words in [
        (name[:18] + f"{day + timedelta(days=1):%Y%m%d}001", "no file of a closed day"),
        (name[:-3] + "002", "was never sent"),
        ("nonsense", "name must be"),
    ]:
        with pytest.raises(InputRefused, match=words):
            await resend(pg, folder, wrong, "why", "li wei")
    async with await connect(postgres_url) as other:
        await other.execute("SELECT pg_advisory_lock(%s, hashtext(%s))", (resends.RESEND_LOCK, name[:-3]))
        with pytest.raises(InputRefused, match="by another process"):
            await resend(pg, folder, name, "why", "li wei")
        await other.execute("SELECT pg_advisory_unlock_all()")  # a closed line's server may take a moment
    (folder / name).write_bytes((folder / name).read_bytes() + b"x")
    with pytest.raises(InputRefused, match=f"close --date {day}"):
        await resend(pg, folder, name, "why", "li wei")
    assert await read_resends(pg, day) == []


async def test_a_row_is_never_changed(pg: Pg, folder: Path) -> None:
    await resend(pg, folder, file_of(folder, "NP"), "lost", "li wei")
    for statement in ("UPDATE clearing_resend SET reason = 'x'", "DELETE FROM clearing_resend"):
        with pytest.raises(psycopg.errors.RestrictViolation):
            await pg.execute(statement)
