"""Our cards at other cities' merchants: every line judged once, paid to its city, and answered by the day's DT."""

import asyncio
from datetime import date, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from switch.clearing import received
from switch.clearing.resends import resend
from switch.domain.calendar import SHANGHAI
from switch.domain.errors import InputRefused
from switch.keys.software_vault import SoftwareVault
from switch.storage.pool import connect
from terminal_sim.records import Phase, RecordKind
from tests.helpers.cities import CENTRE, Installation, city_id, details, issuer_of, ride
from tests.helpers.depots import record_file

pytestmark = pytest.mark.server

US, THEM, OTHERS = 1, 2, 3


@pytest.fixture
async def city(postgres_url: str, tac_vault: SoftwareVault, tmp_path: Path) -> Installation:
    made = Installation(postgres_url, tac_vault, tmp_path / "one", city_id(US))
    await made.build()
    return made


def df(folder: Path, records: list[bytes], day: date, **names: Any) -> Path:
    return record_file("DF", folder, records, day, **{"sender": CENTRE, "receiver": city_id(US)} | names)


def assorted() -> list[tuple[bytes, str]]:
    """One record for each thing that can be said of one, with what is said."""
    good = ride(US, 1, THEM).pack()
    tomorrow = datetime.now(SHANGHAI) + timedelta(days=2)
    return [
        (good, "10"),
        (ride(US, 2, OTHERS, amount_fen=300, phase=Phase.ENTRY).pack(), "10"),
        (good, "03"),
        (good[:94] + bytes((good[94] ^ 1, good[95])), "02"),
        (ride(US, 3, THEM, tac=b"wrng").pack(), "01"),
        (ride(US, 1, THEM, amount_fen=201).pack(), "02"),  # the same counter, another purchase
        (ride(US, 4, THEM, kind=RecordKind.GREY).pack(), "04"),
        (ride(US, 4, THEM, atc=7, kind=RecordKind.TEST).pack(), "06"),
        (ride(US, 5, THEM, when=tomorrow).pack(), "07"),
        (ride(US, 5, THEM, when=datetime.now(SHANGHAI) - timedelta(days=91)).pack(), "05"),
        (ride(THEM, 1, OTHERS).pack(), "08"),  # not our card: the centre has sent it to the wrong city
        (ride(US, 5, US).pack(), "02"),  # our own acquirer does not come by the centre
        (ride(US, 5, THEM, acquirer="12345678").pack(), "02"),  # and of this acquirer nobody knows the city
        (ride(US, 5, THEM, psam=bytes.fromhex("331100000001")).pack(), "02"),  # our merchant's PSAM
        (ride(US, 6, THEM, atc=9, kind=RecordKind.LOCKED, amount_fen=0).pack(), "10"),
    ]


async def test_every_line_has_its_result_and_the_days_answer_repeats_all_of_them(
    city: Installation, tmp_path: Path
) -> None:
    day = await city.today()
    told = assorted()
    path = df(tmp_path, [raw for raw, _ in told], day)
    receipt = await city.take(path)
    found = await city.rows("SELECT result FROM purse_record ORDER BY entry_no")
    assert [result for (result,) in found] == [result for _, result in told]
    assert (await city.take(path)) == receipt._replace(repeated=True)
    paid = await city.rows(
        "SELECT debit_code, credit_code, credit_owner, amount_fen FROM purse_posting ORDER BY 3"
    )
    assert paid == [(2002, 2102, int(city_id(THEM)), 200), (2002, 2102, int(city_id(OTHERS)), 300)]
    folder = await city.close()
    answer = folder / f"DT{city_id(US)}{CENTRE}{day:%Y%m%d}001"
    assert details(answer) == [
        f"D{n:08d}{raw.hex().upper()}{result}{day:%Y%m%d}" for n, (raw, result) in enumerate(told, 1)
    ]
    # Our share of the fees: 5000 ppm and at least 1 fen, 7 tenths of it; 1 and 2 fen give 0 and 1.
    assert await city.rows(
        "SELECT debit_owner, credit_code, amount_fen FROM posting WHERE debit_code = 2102"
    ) == [(int(city_id(OTHERS)), 6001, 1)]
    before = {file.name: file.read_bytes() for file in folder.iterdir()}
    assert not [name for name in before if name[:2] in ("NS", "SS", "QS", "MR")], (
        "no merchant of ours, no depot"
    )
    for file in list(folder.iterdir()):
        file.unlink()
    await city.again(day)
    assert {file.name: file.read_bytes() for file in folder.iterdir()} == before
    assert city.audit_faults() == []


async def test_a_grey_record_is_answered_again_on_the_day_on_which_it_is_decided(
    city: Installation, tmp_path: Path
) -> None:
    first = await city.today()
    grey = ride(US, 4, THEM, atc=0, amount_fen=250, kind=RecordKind.GREY).pack()
    same_day = ride(US, 5, THEM, atc=0, amount_fen=150, kind=RecordKind.GREY).pack()
    proof = ride(US, 5, THEM, atc=1, balance_fen=100_000 - 150).pack()
    await city.take(df(tmp_path, [grey, same_day, proof], first))
    folder = await city.close()
    (answer,) = folder.glob("DT*001")
    assert [line[201:203] for line in details(answer)] == ["04", "00", "10"]
    second = await city.today()
    evidence = ride(US, 4, OTHERS, atc=0, amount_fen=90).pack()  # the counter was not used by the grey one
    await city.take(df(tmp_path, [evidence], second))
    folder = await city.close()
    assert [(path.name[-3:], details(path)) for path in sorted(folder.glob("DT*[0-9]"))] == [
        ("001", [f"D00000001{evidence.hex().upper()}10{second:%Y%m%d}"]),
        ("002", [f"D00000001{grey.hex().upper()}94{second:%Y%m%d}"]),
    ]
    first_dt, second_dt = sorted(folder.glob("DT*[0-9]"))
    kept = second_dt.read_bytes()
    async with await connect(city.url) as pg:
        again = [
            (await resend(pg, folder, name, "lost", "li wei")).name
            for name in (first_dt.name, second_dt.name, f"{first_dt.name[:-3]}003")
        ]
    assert [name[-3:] for name in again] == ["003", "004", "005"]
    assert second_dt.read_bytes() == kept
    assert details(folder / again[2]) == details(first_dt)
    assert city.audit_faults() == []


async def test_a_run_that_is_cut_off_goes_on_and_each_line_counts_once(
    city: Installation, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(received, "BLOCK_LINES", 3)
    day = await city.today()
    records = [ride(US, 1 + n % 6, THEM, atc=n // 6).pack() for n in range(8)]
    path = df(tmp_path, records, day)

    class Stop(Exception):
        pass

    def cut(done: int, _total: int) -> None:
        if done == 6:
            raise Stop

    with pytest.raises(Stop):
        await city.take(path, tell=cut)
    two = df(tmp_path, records[::-1], day, sequence=2)
    first, second = await asyncio.gather(city.take(path), city.take(two))
    assert first.results.get("10", (0, 0))[0] + second.results.get("10", (0, 0))[0] == 8
    assert await city.rows("SELECT count(*), count(DISTINCT raw) FROM purse_record WHERE result = '10'") == [
        (8, 8)
    ]


async def test_only_the_centres_files_to_us_are_taken(city: Installation, tmp_path: Path) -> None:
    day = await city.today()
    good = ride(US, 1, THEM).pack()
    assert (await city.take(df(tmp_path, [good], day, sender=city_id(THEM)))).status == "04"
    assert (await city.take(df(tmp_path, [good], day, receiver=city_id(THEM)))).status == "02"
    city.terms = city.terms._replace(interop_centre="")
    with pytest.raises(InputRefused, match="not set"):
        await city.take(df(tmp_path, [good], day))


async def test_psams_of_other_cities_have_no_holes_here_and_a_strangers_card_gets_a_purse(
    city: Installation, tmp_path: Path
) -> None:
    day = await city.today()
    records: list[Any] = [ride(US, 1, THEM, psam_serial=5).pack(), ride(US, 2, THEM, psam_serial=50).pack()]
    records.append(ride(US, 77, THEM, psam_serial=51).pack())
    assert (await city.take(df(tmp_path, records, day))).results == {"10": (3, 600)}
    await city.close()
    assert await city.rows("SELECT count(*) FROM purse_sequence WHERE kind = 2") == [(0,)]
    assert await city.rows("SELECT spent_fen FROM purse ORDER BY spent_fen DESC LIMIT 3") == [(200,)] * 3
    assert issuer_of(US)[:4].hex() == city_id(US)
    assert city.audit_faults() == []
