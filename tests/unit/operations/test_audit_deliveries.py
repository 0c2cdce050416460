"""One value changed in what is kept of signatures, generations and deliveries, and the audit names table and key."""

import asyncio
from collections.abc import Iterator
from datetime import date
from hashlib import new as new_digest
from pathlib import Path
from typing import Any

import psycopg
import pytest

from switch.clearing.close import day_folder
from switch.clearing.deliveries import Deliveries, PartnerTerms, Receipt
from switch.clearing.files import Written
from switch.clearing.resends import resend
from switch.clearing.signatures import Signature, sign_files
from switch.keys import sm2
from switch.storage.pool import connect
from tests.helpers.audit_changes import Change
from tests.helpers.partners import MERCHANT, OTHER, closed_city
from tests.unit.operations.audit_changed import check_named, report_of
from tests.unit.operations.conftest import _NO_CONSTRAINTS, Audited, reading_again

pytestmark = [pytest.mark.server, pytest.mark.slow]

TABLES = (
    "clearing_hot_list",
    "file_signature",
    "clearing_resend",
    "delivery",
    "delivery_day",
    "delivery_receipt",
    "delivery_inbox",
)


class Signer:
    """A key pair that is made here."""

    pair = sm2.generate()

    def sign(self, sm3: bytes) -> Signature:
        return Signature("FSK/SM2/v1/local", self.pair.public, sm2.to_der(sm2.sign(self.pair, sm3)))


async def deliver(url: str, folder: Path, day: date) -> None:
    """Files sent again, signed, sent, acknowledged and rejected; one that came."""
    terms = PartnerTerms("second", (OTHER, MERCHANT), ("CM", "NP", "MR"), day, "/in")
    async with await connect(url) as pg:
        place = day_folder(folder, day)
        name = min(path.name for path in place.glob("CM*99993310*1"))
        sm3 = new_digest("sm3", (place / name).read_bytes()).hexdigest().upper()
        await sign_files(pg, place, [Written(name, sm3, 0)], Signer())
        await resend(pg, place, name, "lost", "li wei", Signer())
        await resend(pg, place, name, "lost again", "li wei")
        deliveries = Deliveries(pg, terms)
        await deliveries.queue()
        for accepted in (True, False, True):
            waiting = await deliveries.next_waiting()
            assert waiting is not None
            await deliveries.execute("begin_attempt", number=waiting.number)
            await deliveries.execute("sent", number=waiting.number)
            await deliveries.apply_receipt(Receipt(waiting.name, accepted, b"", 1))
        came = {"name": f"XF{OTHER}99990000{day:%Y%m%d}001", "sm3": bytes(32)}
        await deliveries.execute("add_inbox", size=1, **came)
        await deliveries.execute("end_inbox", state="KEPT", said="", **came)
        async with pg.transaction():  # the day is closed
            await pg.execute("SET LOCAL session_replication_role = replica")
            await pg.execute(
                "INSERT INTO hot_list_version VALUES (1, now(), 'test', 0, 0, 0), (2, now(), 'test', 0, 0, 0)"
            )
            await pg.execute("INSERT INTO clearing_hot_list VALUES (%s, %s, 1, NULL)", (day, OTHER))


@pytest.fixture(scope="module")
def delivered(server_url: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Audited]:
    folder = tmp_path_factory.mktemp("delivered")
    with closed_city(server_url, "audited_deliveries", folder) as city:
        asyncio.run(deliver(city.url, folder, city.day))
        with psycopg.connect(city.url, autocommit=True) as connection:
            for (statement,) in connection.execute(_NO_CONSTRAINTS.encode()).fetchall():
                connection.execute(statement)
        yield city.url, folder


@pytest.fixture(scope="module")
def reader(delivered: Audited) -> Iterator[psycopg.Connection[Any]]:
    """Through which the audit reads."""
    with reading_again(delivered[0]) as connection:
        yield connection


@pytest.fixture(scope="module")
def owner(delivered: Audited) -> Iterator[psycopg.Connection[Any]]:
    """A connection for which no trigger fires."""
    with psycopg.connect(delivered[0], autocommit=True) as connection:
        connection.prepare_threshold = None
        connection.execute("SET session_replication_role = replica")
        yield connection


def flipped(column: str, at: int = 5) -> str:
    return f"set_byte({column}, {at}, get_byte({column}, {at}) # 1)"


CHANGES = [
    Change("file_signature", "sm3", flipped("sm3")),
    Change("file_signature", "signature", flipped("signature", 40)),
    Change("file_signature", "public_key", flipped("public_key")),
    Change("clearing_resend", "sm3", flipped("sm3")),
    Change("clearing_resend", "size_bytes", "size_bytes + 1"),
    Change("clearing_resend", "name", "left(name, 26) || '007'"),
    Change("clearing_resend", "made_at", "made_at - interval '3 days'"),
    Change("clearing_hot_list", "version", "7"),
    Change("clearing_hot_list", "base", "0"),
    Change("delivery", "sm3", flipped("sm3")),
    Change("delivery", "size_bytes", "size_bytes - 1"),
    Change("delivery", "of_date", "of_date - 1"),
    Change("delivery", "number", "number + 100"),
    Change("delivery", "state", "'ACKNOWLEDGED'", "state = 'REJECTED'"),
    Change("delivery", "state", "'SENT'", "state = 'ACKNOWLEDGED'"),
    Change("delivery_receipt", "outcome", "'ACK_TWICE'", "outcome = 'ACKNOWLEDGED'", named="delivery"),
    Change("delivery_day", "files", "files + 1"),
    Change("delivery_inbox", "state", "'TAKEN'"),
]


@pytest.mark.parametrize("change", CHANGES, ids=str)
def test_one_value_changed_is_found_and_named(
    delivered: Audited,
    reader: psycopg.Connection[Any],
    owner: psycopg.Connection[Any],
    change: Change,
) -> None:
    check_named(delivered, reader, owner, change)


def test_nothing_is_named_that_was_not_changed(delivered: Audited, reader: psycopg.Connection[Any]) -> None:
    for table in TABLES:
        report = report_of(delivered, reader, table)
        named = {place.table for verdict in report.verdicts for place in verdict.places}
        assert not named & set(TABLES), (table, report)


def test_a_generation_or_signature_that_was_changed_on_disk_is_named(
    delivered: Audited, reader: psycopg.Connection[Any]
) -> None:
    _, folder = delivered
    for pattern, table in (
        ("CM*002", "clearing_resend"),
        ("CM*1.sig", "file_signature"),
        ("CM*003.ok", "clearing_resend"),
    ):
        (path,) = folder.rglob(pattern)
        before = path.read_bytes()
        path.write_bytes(before[:-4] + bytes([before[-4] ^ 1]) + before[-3:])  # a signature may hold any byte
        named = {
            place.table
            for verdict in report_of(delivered, reader, table).verdicts
            for place in verdict.places
        }
        path.write_bytes(before)
        assert table in named
