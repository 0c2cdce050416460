"""A planted set is the same for the same seed, and what it says is wrong is all that is wrong."""

from collections import Counter
from datetime import UTC, datetime

import pytest

from terminal_sim.planted import FaultKind, Key, PlantedCity, Upload
from terminal_sim.records import crc16

TODAY = datetime(2026, 11, 26, 9, tzinfo=UTC)


def planted(seed: int = 7, rides: int = 2_000, faults: int = 20) -> PlantedCity:
    return PlantedCity(
        rides=rides,
        faults=faults,
        seed=seed,
        today=TODAY,
        root=bytes(16),
        issuer=bytes.fromhex("99993350FFFFFFFF"),
    )


def sent(city: PlantedCity) -> list[tuple[Key, bytes]]:
    return [
        (Key(upload.terminal, int.from_bytes(raw[59:63])), raw)
        for upload in city.uploads()
        for raw in upload.records
    ]


def test_the_same_seed_gives_the_same_bytes_and_another_one_others() -> None:
    first, again, other = (list(planted(seed).uploads()) for seed in (7, 7, 8))
    assert first == again
    assert first != other


def test_each_kind_is_planted_equally_often_each_on_a_record_of_its_own() -> None:
    city = planted()
    assert Counter(fault.kind for fault in city.faults) == dict.fromkeys(FaultKind, 2)
    keys = [key for fault in city.faults for key in fault.keys]
    assert len(keys) == len(set(keys))


def test_every_record_that_a_reader_wrote_is_sent_once_but_the_duplicates_and_the_lost() -> None:
    city = planted()
    of_kind = {kind: {fault.keys[0] for fault in city.faults if fault.kind is kind} for kind in FaultKind}
    counts = Counter(key for key, _ in sent(city))
    assert {key for key, count in counts.items() if count == 2} == of_kind[FaultKind.DUPLICATE]
    written = {Key(key.terminal, serial) for key in counts for serial in range(1, key.serial + 1)}
    assert written - counts.keys() == of_kind[FaultKind.LOST]


def test_only_records_that_were_broken_have_a_wrong_crc() -> None:
    city = planted()
    broken = {fault.keys[0] for fault in city.faults if fault.kind is FaultKind.CRC_BROKEN}
    assert {key for key, raw in sent(city) if crc16(raw[:94]).to_bytes(2) != raw[94:]} == broken


def test_a_set_too_small_for_its_faults_is_refused_and_no_card_number_is_printed() -> None:
    with pytest.raises(ValueError, match="too few"):
        planted(rides=200, faults=20)
    city = planted()
    assert "31335" not in repr(city)
    assert "31335" not in repr(Upload(1, (bytes.fromhex("0331335002") + bytes(90),)))
