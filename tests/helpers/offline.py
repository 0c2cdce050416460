"""A town with buses for tests of offline records: registry rows, an open day, sessions, and records with good TACs.

Records are packed and signed by the simulator's code, which shares nothing with the switch's.
"""

import itertools
from collections.abc import Callable
from datetime import date, datetime, timedelta
from pathlib import Path
from typing import Any, NamedTuple

import psycopg

from switch.domain.calendar import SHANGHAI
from switch.domain.decisions import Outcome
from switch.domain.identifiers import luhn_digit
from switch.keys.ceremony import Custodian
from switch.keys.opening import create_vault
from switch.keys.records import KeyLevel, KeySpec, KeyStore
from switch.keys.sealing import UnlockSecret
from switch.keys.software_vault import SoftwareVault
from switch.keys.stores import JsonKeyStore
from switch.purse.intake import Upload
from switch.storage.pool import connect
from terminal_sim import crypto
from terminal_sim.records import GREY_TAC, OfflineRecord, Phase, Place, RecordKind, bcd_moment
from tests.helpers.days import make_days

OWN = "99993350"
CITY = "99993310"  # another city: its cards are foreign, its merchants are paid by interop
ISSUER = bytes.fromhex("99993350FFFFFFFF")
FOREIGN_ISSUER = bytes.fromhex("99993310FFFFFFFF")
ROOT = bytes(range(1, 17))  # DTK root of both algorithms
VALID_FROM, VALID_THROUGH = date(2020, 1, 1), date(2040, 12, 31)
MERCHANTS = 3  # the third belongs to another city
TERMINALS = 8  # terminal n belongs to merchant 1, but 7 to merchant 2 and 8 to merchant 3
CARDS = 20


def pan_of(serial: int) -> str:
    """A citizen card number with its check digit."""
    digits = f"31335001{serial:010d}"
    return digits + luhn_digit(digits)


def merchant_of(terminal_no: int) -> int:
    return {7: 2, 8: 3}.get(terminal_no, 1)


def psam_of(terminal_no: int) -> bytes:
    return bytes.fromhex(f"3350000000{terminal_no:02d}")


async def build(url: str) -> None:
    """Registry, sessions with batch 1 open, and business days with their partitions."""
    connection = await connect(url)
    await make_days(connection)
    async with connection.cursor() as cursor:
        execute = cursor.execute
        await execute(
            "INSERT INTO institution VALUES (%s, 'own', 'ISSUER'), (%s, 'next city', 'CITY')", (OWN, CITY)
        )
        await execute(
            "INSERT INTO card_issuer VALUES (%s, %s, true), (%s, %s, false)",
            (ISSUER, OWN, FOREIGN_ISSUER, CITY),
        )
        for number in range(1, MERCHANTS + 1):
            acquirer = CITY if number == 3 else OWN
            await execute(
                "INSERT INTO merchant (merchant_id, name, category, acquirer_id) VALUES (%s, 'bus', '4111', %s)",
                (f"99335005411{number:04d}", acquirer),
            )
        for number in range(1, TERMINALS + 1):
            merchant_no = merchant_of(number)
            await execute(
                "INSERT INTO terminal (terminal_id, merchant_no, mac_algorithm) VALUES (%s, %s, 5)",
                (f"335000{number:02d}", merchant_no),
            )
            await execute(
                "INSERT INTO psam VALUES (%s, %s, %s)", (psam_of(number).hex(), merchant_no, number)
            )
            await execute("INSERT INTO terminal_session VALUES (%s, 1, 1, 1, now())", (number,))
            await execute(
                "INSERT INTO terminal_batch (terminal_no, batch_no, opened_on)"
                " SELECT %s, 1, business_date FROM business_day"
                " WHERE begins_at <= clock_timestamp() AND clock_timestamp() < ends_at",
                (number,),
            )
        for number in range(1, CARDS + 1):
            pan, shard = pan_of(number), number % 2
            await execute("INSERT INTO card_route VALUES (%s, %s, %s, %s)", (pan, shard, number, number))
            await execute(
                "INSERT INTO card VALUES (%s, %s, %s, %s, 1, %s, %s)",
                (shard, pan, number, number, VALID_FROM, VALID_THROUGH),
            )
            await execute(
                "INSERT INTO purse (shard, card_no, asn, loaded_fen) VALUES (%s, %s, %s, 100000)",
                (shard, number, "0" + pan),
            )
        await execute("SELECT setval('card_no', 1000)")
    await connection.close()


UNLOCK = UnlockSecret(b"a key file for the tests, 32 bytes", "hkdf")


def enter_tac_roots(store: KeyStore, unlock: UnlockSecret) -> SoftwareVault:
    """A vault with the roots under which the simulator signs these records."""
    vault = create_vault(store, unlock, rehearsal=True)
    first = bytes(range(100, 116))
    second = bytes(a ^ b for a, b in zip(first, ROOT, strict=True))
    for algorithm in ("3DES", "SM4"):
        spec = KeySpec("DTK", algorithm, 1, "national", KeyLevel.ROOT, 1)
        Custodian(vault, store).enter(spec, [first, second], ("li wei", "wang fang"))
    return vault


def tac_vault(folder: Path) -> SoftwareVault:
    """The same in a file of a folder."""
    return enter_tac_roots(JsonKeyStore(folder / "keys.json"), UNLOCK)


_psam_serials = itertools.count(1)
_record_serials = itertools.count(1)


class Ride(NamedTuple):
    """What a record says; `pack` signs it. Defaults are a good purchase of a minute ago."""

    card: int = 1
    atc: int = 0
    amount_fen: int = 200
    balance_fen: int = 100_000
    terminal_no: int = 1
    kind: RecordKind = RecordKind.NORMAL
    sm4: bool = True
    when: datetime | None = None
    psam_serial: int | None = None
    record_serial: int | None = None
    issuer: bytes = ISSUER
    acquirer: str | None = None
    tac: bytes | None = None
    asn: str = ""
    psam: bytes = b""
    phase: Phase = Phase.NONE
    line: str = "0001"
    station: str = "0000"
    entry_station: str = "0000"
    full_fare_fen: int | None = None
    transfer: bool = False

    def pack(self) -> bytes:
        algorithm = crypto.Algorithm.SM4 if self.sm4 else crypto.Algorithm.TRIPLE_DES
        asn = bytes.fromhex(self.asn or "0" + pan_of(self.card))
        moment = bcd_moment(self.when or datetime.now(SHANGHAI) - timedelta(minutes=1))
        psam = self.psam or psam_of(self.terminal_no)
        serial = (next(_psam_serials) if self.psam_serial is None else self.psam_serial).to_bytes(4)
        tac, tti = self.tac, 6 if self.phase is Phase.NONE else 9
        if tac is None and self.kind is RecordKind.GREY:
            tac = GREY_TAC
        if tac is None:
            issuer_key = crypto.diversify(algorithm, ROOT, self.issuer)
            dtk = crypto.diversify(algorithm, issuer_key, asn[2:])
            data = self.amount_fen.to_bytes(4) + bytes((tti,)) + psam + serial + moment
            tac = crypto.tac(algorithm, dtk, data)
        acquirer = self.acquirer or (CITY if merchant_of(self.terminal_no) == 3 else OWN)
        record = OfflineRecord(
            kind=self.kind,
            tti=tti,
            algorithm_id=4 if self.sm4 else 0,
            key_version=1,
            key_index=0x41 if self.sm4 else 1,
            asn=asn,
            issuer_id=self.issuer,
            card_city=b"\x33\x50",
            card_type=1,
            card_subtype=0,
            offline_atc=self.atc,
            amount_fen=self.amount_fen,
            balance_before_fen=self.balance_fen,
            moment=moment,
            psam_number=psam,
            psam_serial=serial,
            tac=tac,
            full_fare_fen=self.amount_fen if self.full_fare_fen is None else self.full_fare_fen,
            phase=self.phase,
            place=Place(bytes.fromhex(acquirer + "FFFFFFFF"), line=self.line, station=self.station),
            entry_station=self.entry_station,
            transfer=self.transfer,
        )
        number = next(_record_serials) if self.record_serial is None else self.record_serial
        return record.pack(number)


_stans = itertools.count(1)


def upload(*records: bytes, terminal_no: int = 1, stan: int | None = None, **changes: Any) -> Upload:
    """An upload message of a terminal in its batch 1."""
    stan = next(_stans) if stan is None else stan
    merchant_no = merchant_of(terminal_no)
    made = Upload(
        terminal_no=terminal_no,
        terminal_id=f"335000{terminal_no:02d}",
        merchant_no=merchant_no,
        acquirer_id=CITY if merchant_no == 3 else OWN,
        batch_no=1,
        stan=stan,
        digest=hash((stan, records)).to_bytes(32, signed=True),
        generation=1,
        since=date.today() - timedelta(days=2),  # noqa: DTZ011  any early day does
        records=records,
    )
    return made._replace(**changes)


def results(outcome: Outcome | None) -> list[str]:
    """Result codes in the answer to an upload."""
    assert outcome is not None
    assert outcome.answer == "00", outcome.answer
    packed = outcome.field62
    return [packed[at + 4 : at + 6].decode() for at in range(1, len(packed), 6)]


Fetch = Callable[..., list[Any]]


def fetcher(url: str) -> Fetch:
    """One-off queries."""

    def fetch(query: str, *values: Any) -> list[Any]:
        with psycopg.connect(url, autocommit=True) as connection:
            return connection.execute(query.encode(), values).fetchall()

    return fetch
