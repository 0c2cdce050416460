"""A close that is killed, or whose disk is full, is finished by the next run with the same bytes."""

import asyncio
import resource
import signal
import sys
from collections.abc import Callable
from datetime import date
from pathlib import Path
from typing import Any

import pytest
from psycopg import AsyncConnection
from psycopg.conninfo import conninfo_to_dict, make_conninfo

from switch.clearing.close import STEPS, CloseTerms, close_day, day_folder
from switch.clearing.day_reports import REPORTS, report_folder
from switch.clearing.evidence.seal_file import read_seal
from switch.clearing.files import NAME_LENGTH, check_file
from switch.storage.pool import connect_now
from tests.helpers.clearing_day import add_records

pytestmark = pytest.mark.server

Pg = AsyncConnection[Any]
Contents = Callable[[Path], dict[str, bytes]]


async def close_elsewhere(
    url: str, folder: Path, day: date, at: str = "", before: Callable[[], None] | None = None
) -> tuple[int, str]:
    """Close in a process of its own: exit status and what it said."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "tests.helpers.closing", url, str(folder), day.isoformat(), at),
        stderr=asyncio.subprocess.PIPE,
        preexec_fn=before,
    )
    _, said = await process.communicate()
    assert process.returncode is not None
    return process.returncode, said.decode()


def without_instant(files: dict[str, bytes]) -> dict[str, bytes]:
    """Contents without the instant of the first close, and what hangs on it: the digest, the mark and the seal. Reports have none."""
    return {
        name: content[:32] + content[46:-66] if len(name) == NAME_LENGTH else content
        for name, content in files.items()
        if not name.endswith((".ok", ".seal"))
    }


KILLED_AT = [at for step in STEPS for at in (step.name, f"{step.name}.")]
KILLED_AT[KILLED_AT.index("files.") : KILLED_AT.index("files.")] = [
    "files:1",
    "files:half",
    "files:3",
    "files:2",
]
KILLED_AT[KILLED_AT.index("reports.") : KILLED_AT.index("reports.")] = [
    "reports:1",
    "reports:5",
    "reports:half",
]


async def test_a_file_that_is_lost_is_written_again_as_it_was_though_the_first_close_was_killed_twice(
    pg: Pg, postgres_url: str, day: date, terms: CloseTerms, contents: Contents
) -> None:
    await add_records(pg, day, 900_000, 1, [("10", 200), ("04", 150), ("01", 70)])
    for at in ["postings", "files:2"]:
        status, said = await close_elsewhere(postgres_url, terms.folder, day, at)
        assert status == -signal.SIGKILL, said
    assert await close_elsewhere(postgres_url, terms.folder, day) == (0, "")
    first = contents(terms.folder)
    for folder in (day_folder(terms.folder, day), report_folder(terms.folder, day)):
        for path in folder.iterdir():
            path.unlink()
    closed = await close_day(pg, day, terms, "a tester")
    assert len(closed.rewritten) == 12
    assert len(closed.reports) == len(REPORTS)
    assert contents(terms.folder) == first


async def test_a_database_restored_into_the_middle_of_a_close_writes_what_was_written_after_its_backup(
    pg: Pg, postgres_url: str, day: date, contents: Contents, tmp_path: Path
) -> None:
    await add_records(pg, day, 900_000, 1, [("10", 200), ("04", 150), ("01", 70)])
    await pg.close()
    folder = tmp_path / "clearing"
    status, said = await close_elsewhere(postgres_url, folder, day, "postings")
    assert status == -signal.SIGKILL, said
    backup = make_conninfo(postgres_url, dbname="backup")
    with connect_now(make_conninfo(postgres_url, dbname="postgres")) as server:
        server.execute("DROP DATABASE IF EXISTS backup")
        server.execute(f"CREATE DATABASE backup TEMPLATE {conninfo_to_dict(postgres_url)['dbname']}")
        assert await close_elsewhere(postgres_url, folder, day) == (0, "")
        before = contents(folder)
        # The disk is ahead of the database now: files with digests that it does not know.
        assert await close_elsewhere(backup, folder, day) == (0, "")
        assert contents(folder) == before
        server.execute("DROP DATABASE backup")


async def test_a_database_restored_to_before_a_close_does_not_close_that_day_again_over_its_files(
    pg: Pg, postgres_url: str, day: date, contents: Contents, tmp_path: Path
) -> None:
    await pg.close()
    folder = tmp_path / "clearing"
    earlier = make_conninfo(postgres_url, dbname="earlier")
    with connect_now(make_conninfo(postgres_url, dbname="postgres")) as server:
        server.execute("DROP DATABASE IF EXISTS earlier")
        server.execute(f"CREATE DATABASE earlier TEMPLATE {conninfo_to_dict(postgres_url)['dbname']}")
        assert await close_elsewhere(postgres_url, folder, day) == (0, "")
        handed_out = contents(folder)
        status, said = await close_elsewhere(earlier, folder, day)
        assert status == 7
        assert "was handed out with other content, and stays" in said
        assert contents(folder) == handed_out
        server.execute("DROP DATABASE earlier")


@pytest.mark.slow
async def test_a_close_killed_at_every_point_makes_the_day_that_an_undisturbed_close_makes(
    pg: Pg, postgres_url: str, day: date, contents: Contents, tmp_path: Path
) -> None:
    await add_records(pg, day, 900_000, 1, [("10", 200), ("04", 150), ("01", 70)])
    await pg.close()  # a database can be copied while nobody is connected
    twin = make_conninfo(postgres_url, dbname="twin")
    with connect_now(make_conninfo(postgres_url, dbname="postgres")) as server:
        server.execute("DROP DATABASE IF EXISTS twin")
        server.execute(f"CREATE DATABASE twin TEMPLATE {conninfo_to_dict(postgres_url)['dbname']}")
    killed, undisturbed = tmp_path / "killed", tmp_path / "undisturbed"
    for at in [*KILLED_AT, "done."]:
        status, said = await close_elsewhere(postgres_url, killed, day, at)
        assert status == -signal.SIGKILL, f"{at}: {said}"
        _check_half(contents(killed), day_folder(killed, day))
    assert await close_elsewhere(postgres_url, killed, day) == (0, "")
    assert await close_elsewhere(twin, undisturbed, day) == (0, "")
    assert without_instant(contents(killed)) == without_instant(contents(undisturbed))
    assert contents(killed).keys() == contents(undisturbed).keys()
    assert _evidence(postgres_url, day) == _evidence(twin, day)
    with connect_now(make_conninfo(postgres_url, dbname="postgres")) as server:
        server.execute("DROP DATABASE twin")


def _evidence(url: str, day: date) -> list[tuple[Any, ...]]:
    """Digests of the steps, but for those of instants (of the end, the seal, the first close), of files, which hold one, and of the tree, which hangs on a secret."""
    with connect_now(url) as connection:
        digests = connection.execute(
            "SELECT step, CASE WHEN step NOT IN ('cut-over', 'seal', 'adjudicate', 'evidence') THEN input_sha256 END,"
            " CASE WHEN step NOT IN ('cut-over', 'seal', 'files', 'evidence') THEN output_sha256 END, error"
            " FROM clearing_step WHERE business_date = %s ORDER BY ordinal",
            (day,),
        ).fetchall()
    assert all(any(row[1:3]) for row in digests[2:-1])
    return digests


def _check_half(half: dict[str, bytes], folder: Path) -> None:
    for name in half:
        if name.endswith(".ok"):
            assert name.removesuffix(".ok") in half, "a mark without its file"
        elif name.endswith(".seal"):
            read_seal(half[name])
        elif len(name) == NAME_LENGTH:
            with (folder / name).open("rb") as stream:
                check_file(name, stream)  # whatever bears a name is whole


async def test_fees_are_posted_once_however_often_the_close_is_killed(
    pg: Pg, postgres_url: str, day: date, tmp_path: Path
) -> None:
    for at in ("postings", "postings.", "files", "files:1", ""):
        await close_elsewhere(postgres_url, tmp_path, day, at)
    cursor = await pg.execute(
        "SELECT (SELECT sum(amount_fen)::bigint FROM posting WHERE credit_code IN (6001, 2102)),"
        " (SELECT sum(fee_fen)::bigint FROM clearing_charge WHERE business_date = %s)",
        (day,),
    )
    row = await cursor.fetchone()
    assert row is not None
    assert row[0] == row[1] > 0


async def test_a_full_disk_is_a_clear_error_with_nothing_half_written_and_the_next_run_completes(
    pg: Pg, postgres_url: str, day: date, contents: Contents, tmp_path: Path
) -> None:
    def limit() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (60_000, 60_000))

    folder = tmp_path / "clearing"
    status, said = await close_elsewhere(postgres_url, folder, day, before=limit)
    assert status == 7
    assert "cannot write" in said
    assert "run the same command again" in said
    assert not [name for name in contents(folder) if name.endswith(".tmp")]
    _check_half(contents(folder), day_folder(folder, day))
    assert await close_elsewhere(postgres_url, folder, day) == (0, "")
    names = {name for name in contents(folder) if len(name) == NAME_LENGTH}
    assert len(names) == 8
    cursor = await pg.execute("SELECT state FROM business_day WHERE business_date = %s", (day,))
    assert await cursor.fetchone() == (2,)
