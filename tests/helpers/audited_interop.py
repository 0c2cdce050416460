"""What the audited city has to do with other cities: it is a city and the interop centre in one, with one neighbour that is played here."""

from datetime import UTC, date, datetime, time, timedelta
from pathlib import Path

from switch.clearing.centre import CentreTerms
from switch.clearing.centre_run import Ran, run_centre
from switch.domain.calendar import SHANGHAI
from switch.storage.pool import connect
from terminal_sim.records import RecordKind
from tests.helpers.audited_city import INTEROP, City, centre_terms
from tests.helpers.cities import details
from tests.helpers.depots import answer_file, record_file
from tests.helpers.offline import CITY, OWN, Ride

THEIR_PSAM = bytes.fromhex("331000000099")


def _at(day: date, days: int, hours: int) -> datetime:
    return datetime.combine(day + timedelta(days), time(hours), SHANGHAI).astimezone(UTC)


def _elsewhere(card: int, atc: int, amount_fen: int, balance_fen: int = 100_000, **more: object) -> bytes:
    ride = Ride(
        card=card, atc=atc, amount_fen=amount_fen, balance_fen=balance_fen, acquirer=CITY, psam=THEIR_PSAM
    )
    return ride._replace(**more).pack()  # type: ignore[arg-type]  # whatever a ride has


async def _run(city: City, now: datetime) -> Ran:
    terms: CentreTerms = centre_terms(city.folder, now)
    async with await connect(city.url) as connection:
        return await run_centre(connection, terms)


def _file(city: City, kind: str, sender: str, receiver: str, day: date) -> Path:
    (path,) = city.folder.glob(f"*/{kind}{sender}{receiver}{day:%Y%m%d}001")
    return path


async def first_day(city: City, day: date) -> None:
    """A file about our cards elsewhere: one is good, one has a wrong TAC, one is grey until the next day."""
    records = [
        _elsewhere(11, 0, 1_000),
        _elsewhere(7, 0, 400, kind=RecordKind.GREY),
        _elsewhere(11, 9, 50, tac=b"wrng"),
    ]
    path = record_file("DF", city.folder, records, day, sender=INTEROP, receiver=OWN, sequence=5)
    assert {code: count for code, (count, _) in (await city.take(path)).results.items()} == {
        "10": 1,
        "04": 1,
        "01": 1,
    }


async def second_day(city: City, first: date) -> None:
    """Both cities' files come to the centre, which hands them on; the neighbour answers for three of its four cards, and holds one of them."""
    city.centre_now = _at(first, 1, 1)
    assert (await city.take(_file(city, "FH", OWN, INTEROP, first))).status == "00"
    theirs = [_elsewhere(7, 0, 300), _elsewhere(11, 1, 2_000, 99_000)]
    path = record_file("FH", city.folder, [*theirs, theirs[0]], first, sender=CITY, receiver=INTEROP)
    assert (await city.take(path)).results == {"11": (2, 2_300), "03": (1, 300)}
    assert (await _run(city, _at(first, 1, 2))).forwarded == (first,)
    city.centre_now = _at(first, 1, 3)
    assert (await city.take(_file(city, "DF", INTEROP, OWN, first))).results == {"10": (2, 2_300)}
    lines = details(_file(city, "DF", INTEROP, CITY, first))
    assert len(lines) == 4
    _, *cards = [bytes.fromhex(line[9:201]) for line in lines]
    said = list(zip(cards, ("10", "01", "04"), strict=True))
    answer = answer_file(city.folder, said, first, sender=CITY, receiver=INTEROP)
    assert (await city.take(answer)).status == "00"


async def third_day(city: City, first: date, second: date) -> None:
    """Our answer, which the second day's close has written, is taken; then the date is over, and we take what was decided."""
    city.centre_now = _at(first, 2, 1)
    assert (await city.take(_file(city, "DT", OWN, INTEROP, second))).status == "00"
    (decided,) = (await _run(city, _at(first, 2, 20))).decided
    assert decided.unanswered == 1
    receipt = await city.take(_file(city, "DT", INTEROP, OWN, first))
    assert receipt.results == {"00": (1, 200), "late": (2, 400), "04": (1, 200)}
