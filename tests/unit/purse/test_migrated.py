"""Books of a version that did not know where counters begin: the migration finds out, and the fold goes on from there."""

import shutil
from pathlib import Path

import psycopg
import pytest

from switch.keys.software_vault import SoftwareVault
from switch.operations.audit import audit
from switch.purse.intake import IntakeWriter, inline_tacs
from switch.purse.shadow import fold_purses
from switch.storage.migrate import MIGRATIONS, migrate
from switch.storage.pool import connect, connect_now
from tests.conftest import database_url
from tests.helpers.offline import Ride, build, pan_of, upload
from tests.unit.purse.conftest import Office

pytestmark = pytest.mark.server

# As the fold of that version left them: from the number that was seen first.
BEFORE = """
INSERT INTO purse_sequence (kind, owner, next_no, missing)
VALUES (1, card_key(%(known)s), 8, '{[0,3),[4,7)}'), (1, card_key(%(stray)s), 21, '{}'), (2, 335000000001, 51, '{[49,50)}'), (3, 1, 51, '{}');
INSERT INTO purse_gap (kind, owner, missing, opened_at)
VALUES (1, card_key(%(known)s), '[0,3)', now()), (1, card_key(%(known)s), '[4,7)', now()), (2, 335000000001, '[49,50)', now());
UPDATE purse SET next_atc = 8 WHERE card_no = 1;
UPDATE purse_watermark SET folded_to = transaction_horizon();
"""


async def test_counters_of_an_older_version_get_their_beginning(
    server_url: str, vault: SoftwareVault, tmp_path: Path
) -> None:
    with psycopg.connect(server_url, autocommit=True) as server:
        server.execute("CREATE DATABASE older")
    url = database_url(server_url, "older")
    for file in MIGRATIONS.glob("*.sql"):
        if file.stem != "0023_purse_shadow":  # the intake of today wants the rest of the schema
            shutil.copy(file, tmp_path)
    migrate(url, tmp_path)
    await build(url)
    office = Office(IntakeWriter(lambda: connect(url), inline_tacs(vault), 2))
    stray = "0" + pan_of(555)
    rides = [
        Ride(atc=3, psam_serial=48, record_serial=50),
        Ride(atc=7, psam_serial=50, record_serial=47),
        Ride(asn=stray, atc=20, psam_serial=46, record_serial=48),
        Ride(asn=stray, atc=18, psam_serial=47, record_serial=49),
    ]
    await office.take(upload(*(ride.pack() for ride in rides)))
    with psycopg.ClientCursor(psycopg.connect(url, autocommit=True)) as cursor:
        cursor.execute(BEFORE, {"known": pan_of(1), "stray": stray[1:]})
        cursor.connection.close()
    migrate(url)
    with connect_now(url) as connection:
        rows = connection.execute(
            "SELECT kind, first_no, next_no, missing::text FROM purse_sequence ORDER BY kind, first_no"
        ).fetchall()
        holes = connection.execute(
            "SELECT kind, missing::text FROM purse_gap WHERE closed_at IS NULL ORDER BY kind, missing"
        ).fetchall()
    assert rows == [
        (1, 0, 8, "{[0,3),[4,7)}"),
        (1, 18, 21, "{[19,20)}"),
        (2, 46, 51, "{[49,50)}"),
        (3, 47, 51, "{}"),
    ]
    assert holes == [(1, "[0,3)"), (1, "[19,20)"), (1, "[4,7)"), (2, "[49,50)")]
    await office.take(upload(Ride(asn=stray, atc=19, psam_serial=49, record_serial=51).pack()))
    async with await connect(url) as link:
        assert await fold_purses(link) == 1
    await office.close()
    with connect_now(url) as connection:
        report = audit(connection, tmp_path)
        places = [
            place
            for verdict in report.verdicts
            for place in verdict.places
            if place.table in ("purse_sequence", "purse_gap", "purse_alarm")
        ]
    assert places == []
    with psycopg.connect(server_url, autocommit=True) as server:
        server.execute("DROP DATABASE older WITH (FORCE)")
