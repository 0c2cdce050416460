"""Three cities and the centre between them, as four installations that exchange nothing but files."""

import shutil
from collections.abc import AsyncIterator
from datetime import date
from pathlib import Path

import psycopg
import pytest

from switch.keys.software_vault import SoftwareVault
from terminal_sim.records import RecordKind
from tests.conftest import AS_MIGRATED, database_url
from tests.helpers.cities import CENTRE, Centre, Installation, city_id, details, owed_fen, ride
from tests.helpers.depots import depot_file, record_file
from tests.helpers.offline import tac_vault as made_vault

pytestmark = pytest.mark.server


class Country:
    """The installations, by the number of the city, and the nets that the centre has told each city."""

    def __init__(self, cities: dict[int, Installation], centre: Centre, folder: Path) -> None:
        self.cities, self.centre, self.folder = cities, centre, folder
        self.sequence = 1

    async def depot(self, city: int, *records: bytes) -> dict[str, tuple[int, int]]:
        """Records of a city's buses come in."""
        at = self.cities[city]
        self.sequence += 1
        path = depot_file(self.folder, records, await at.today(), sequence=self.sequence, sender=at.own_id)
        return dict((await at.take(path)).results)

    async def close_all(self) -> date:
        """Every installation closes its day; which one that was."""
        day = await self.centre.today()
        for one in (*self.cities.values(), self.centre):
            assert await one.today() == day
            await one.close()
        return day

    def sent(self, city: int, kind: str, day: date) -> list[Path]:
        """What a city's close has written for the centre."""
        found = self.cities[city].folder.glob(f"{day:%Y%m%d}/{kind}{city_id(city)}{CENTRE}*.ok")
        return sorted(path.with_suffix("") for path in found)

    async def to_centre(self, city: int, kind: str, day: date) -> list[dict[str, tuple[int, int]]]:
        """The centre takes a city's files."""
        receipts = [await self.centre.take(path) for path in self.sent(city, kind, day)]
        assert {receipt.status for receipt in receipts} <= {"00"}
        return [dict(receipt.results) for receipt in receipts]

    async def to_city(self, city: int, kind: str, day: date) -> dict[str, tuple[int, int]]:
        """A city takes what the centre has for it."""
        (path,) = self.centre.files(kind, city_id(city), day)
        receipt = await self.cities[city].take(path)
        assert receipt.status == "00"
        return dict(receipt.results)

    def nets(self) -> dict[str, int]:
        """What all NP together say, each member by its own."""
        sums = dict.fromkeys([*map(city_id, self.cities), CENTRE], 0)
        for member in sums:
            for path in self.centre.files("NP", member):
                lines = {line[9:17]: line[97:113] for line in details(path)}
                assert sum(int(net[1:]) * (-1 if net[0] == "D" else 1) for net in lines.values()) == 0
                net = lines.get(member, "C0")
                sums[member] += int(net[1:]) * (-1 if net[0] == "D" else 1)
        return sums


@pytest.fixture
async def country(server_url: str, tmp_path: Path) -> AsyncIterator[Country]:
    vault: SoftwareVault = made_vault(tmp_path)
    names = ["interop_1", "interop_2", "interop_3", "interop_centre"]
    with psycopg.connect(server_url, autocommit=True) as server:
        for name in names:
            server.execute(f"CREATE DATABASE {name} {AS_MIGRATED}".encode())
    urls = [database_url(server_url, name) for name in names]
    cities = {n: Installation(urls[n - 1], vault, tmp_path / names[n - 1], city_id(n)) for n in (1, 2, 3)}
    centre = Centre(urls[3], vault, tmp_path / names[3])
    for one in (*cities.values(), centre):
        await one.build()
    yield Country(cities, centre, tmp_path)
    with psycopg.connect(server_url, autocommit=True) as server:
        for name in names:
            server.execute(f"DROP DATABASE {name} WITH (FORCE)".encode())


async def test_a_country_of_three_cities_settles_to_the_fen(country: Country) -> None:
    cities, centre = country.cities, country.centre
    here = ride(1, 1, 1, amount_fen=150).pack()
    of_2_at_1 = [ride(2, card, 1, amount_fen=1_000 * card).pack() for card in (1, 2)]
    of_3_at_1 = ride(3, 1, 1, amount_fen=777).pack()
    assert await country.depot(1, here, *of_2_at_1, of_3_at_1, of_3_at_1) == {
        "10": (1, 150),
        "11": (3, 3_777),
        "03": (1, 777),
    }
    of_1_at_2 = ride(1, 2, 2, amount_fen=4_321).pack()
    of_3_at_2 = ride(3, 2, 2, amount_fen=905).pack()
    bad_tac = ride(1, 3, 2, amount_fen=600, tac=b"wrng").pack()
    await country.depot(2, of_1_at_2, of_3_at_2, bad_tac)
    of_1_at_3 = ride(1, 4, 3, amount_fen=350).pack()
    grey = ride(1, 5, 3, amount_fen=250, kind=RecordKind.GREY).pack()
    await country.depot(3, of_1_at_3, grey)
    first = await country.close_all()

    # FH of two cities in time, with what a careless one may send; the third is late.
    centre.at(first, 1, 1)
    assert await country.to_centre(1, "FH", first) == [{"11": (3, 3_777)}]
    assert await country.to_centre(2, "FH", first) == [{"11": (3, 5_826)}]
    again = await centre.take(country.sent(1, "FH", first)[0])
    assert again.repeated
    stray = ride(2, 3, 3, amount_fen=100).pack()  # city 3's merchant in city 1's file
    unknown = ride(1, 1, 1, amount_fen=10)._replace(issuer=bytes.fromhex("99990571FFFFFFFF")).pack()
    odd = [of_3_at_1, stray, unknown, ride(1, 6, 1, amount_fen=20).pack()]
    path = record_file("FH", country.folder, odd, first, sender=city_id(1), receiver=CENTRE, sequence=2)
    assert (await centre.take(path)).results == {"03": (1, 777), "02": (2, 120), "08": (1, 10)}
    assert (await centre.run()).forwarded == (), "until two o'clock the date may grow"
    centre.at(first, 1, 2)
    assert (await centre.run()).forwarded == (first,)
    centre.at(first, 1, 2, 1)
    assert await country.to_centre(3, "FH", first) == [{"11": (2, 600)}]
    assert await centre.rows("SELECT clearing_date - %s::date, late FROM interop_arrival ORDER BY file_no", first) == [
        (0, False), (0, False), (0, False), (1, True),
    ]  # fmt: skip

    # Cities judge their cards. City 3 has taken its file, but its answer comes too late.
    assert await country.to_city(1, "DF", first) == {"10": (1, 4_321), "01": (1, 600)}
    assert await country.to_city(2, "DF", first) == {"10": (2, 3_000)}
    assert await country.to_city(3, "DF", first) == {"10": (2, 1_682)}
    second = await country.close_all()
    centre.at(first, 2, 1)
    assert await country.to_centre(1, "DT", second) == [{"10": (1, 4_321), "01": (1, 600)}]
    assert await country.to_centre(2, "DT", second) == [{"10": (2, 3_000)}]
    ran = await centre.run()
    assert (ran.forwarded, ran.decided) == ((), ()), "city 3 may still answer"
    centre.at(first, 2, 2)
    assert (await centre.run()).forwarded == (second,), "the late file is in its DF"
    centre.at(first, 2, 20)
    assert await country.to_centre(3, "DT", second) == [{"late": (2, 1_682)}]
    (decided,) = (await centre.run()).decided
    assert (decided.clearing_date, decided.unanswered) == (first, 2)
    assert (await centre.run()).decided == ()

    # What was decided goes back; the late date follows, with a grey record that its city holds.
    assert await country.to_city(1, "DT", first) == {"00": (3, 3_777), "unknown": (3, 130)}
    assert await country.to_city(2, "DT", first) == {"00": (2, 5_226), "01": (1, 600)}
    assert await country.to_city(1, "DF", second) == {"10": (1, 350), "04": (1, 250)}
    third = await country.close_all()
    centre.at(second, 2, 1)
    assert await country.to_centre(1, "DT", third) == [{"10": (1, 350), "04": (1, 250)}]
    (decided,) = (await centre.run()).decided
    assert (decided.clearing_date, decided.unanswered) == (second, 0), "as soon as all have answered"
    assert await country.to_city(3, "DT", second) == {"00": (1, 350), "04": (1, 250)}
    proof = ride(1, 5, 1, atc=1, amount_fen=90, balance_fen=100_000 - 250).pack()
    await country.depot(1, proof)
    fourth = await country.close_all()
    centre.at(third, 2, 1)
    assert await country.to_centre(1, "DT", fourth) == [{"00": (1, 250)}]
    ran = await centre.run()
    (decided,) = ran.decided
    assert decided.clearing_date == third, "a date without files, so that the decision counts somewhere"
    assert await country.to_city(3, "DT", third) == {"00": (1, 250)}
    await country.close_all()

    nets = country.nets()
    assert sum(nets.values()) == 0
    assert nets[CENTRE] > 0
    for number, city in cities.items():
        assert owed_fen(city.url) == nets[city_id(number)], f"the books of city {number} and its NP"
        assert city.audit_faults() == []
    assert centre.audit_faults() == []
    await _once_more(country, first)


async def _once_more(country: Country, day: date) -> None:
    """Files that are lost are written again as they were, and members pay or are blocked."""
    centre = country.centre
    folder = centre.folder / f"{day:%Y%m%d}"
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    shutil.rmtree(folder)
    await centre.rewrite(day)
    names = [
        row[0] for row in await centre.rows("SELECT name FROM interop_file WHERE clearing_date = %s", day)
    ]
    assert {path.name for path in folder.iterdir()} == {*names, *(f"{name}.ok" for name in names)}
    assert all(before[path.name] == path.read_bytes() for path in folder.iterdir())
