"""The interop centre: what it hands on, what it refuses, when a date is over, what it does with answers, and runs that stop."""

import asyncio
from collections.abc import Sequence
from datetime import date, timedelta
from pathlib import Path
from typing import Any

import pytest

from switch.clearing import centre_run, received
from switch.clearing.interop_desk import fund
from switch.clearing.lint import lint_file
from switch.clearing.received import Receipt
from switch.clearing.signatures import FileSigner
from switch.domain.errors import InputRefused
from switch.keys.software_vault import SoftwareVault
from switch.operations.delivering import Deliverer
from switch.storage.pool import connect
from tests.helpers.cities import CENTRE, Centre, city_id, details, issuer_of, ride
from tests.helpers.depots import answer_file, record_file
from tests.helpers.partners import check_whole, partner_settings, settings_of
from tests.helpers.signing import FSK, signing_vault
from tests.helpers.sshd import Sshd

pytestmark = pytest.mark.server


@pytest.fixture
async def centre(postgres_url: str, tac_vault: SoftwareVault, tmp_path: Path) -> Centre:
    made = Centre(postgres_url, tac_vault, tmp_path / "centre")
    await made.build()
    made.at(await made.today(), 0, 23, 30)
    return made


@pytest.fixture
async def day(centre: Centre) -> date:
    return await centre.today()


def fh(centre: Centre, records: Sequence[bytes], day: date, city: int, sequence: int = 1) -> Path:
    folder = centre.folder.parent
    return record_file("FH", folder, records, day, sender=city_id(city), receiver=CENTRE, sequence=sequence)


async def answered(
    centre: Centre, answers: Sequence[tuple[bytes, str]], day: date, city: int, sequence: int = 1
) -> Receipt:
    path = answer_file(
        centre.folder.parent, answers, day, sender=city_id(city), receiver=CENTRE, sequence=sequence
    )
    return await centre.take(path)


def counts(receipt: Receipt) -> dict[str, int]:
    return {code: count for code, (count, _) in receipt.results.items()}


class _Stop(Exception):
    pass


def _stop(*_: object, **__: object) -> Any:
    raise _Stop


async def test_each_line_is_handed_on_or_refused_by_the_first_rule_it_breaks(
    centre: Centre, day: date
) -> None:
    async with await connect(centre.url) as connection:
        for change in (
            "UPDATE card_issuer SET scope = 'LOCAL' WHERE institution_id = '99993313'",
            "INSERT INTO institution VALUES ('99993314', 'far city', 'CITY', 'HANGZHOU'), ('99993315', 'a bank', 'BANK', 'NATION')",
            "INSERT INTO card_issuer (issuer_id, institution_id, own, circle) VALUES ('\\x99993314FFFFFFFF', '99993314', false, 'DELTA')",
            "INSERT INTO card_issuer (issuer_id, institution_id, own, circle) VALUES ('\\x99993315FFFFFFFF', '99993315', false, 'LOCAL')",
        ):
            await connection.execute(change.encode())
    good = ride(2, 1, 1).pack()
    #   record, refused
    cases: list[tuple[bytes, str | None]] = [
        (good, None),
        (good, "03"),
        (good[:94] + bytes((good[94] ^ 1, good[95])), "02"),  # unreadable
        (ride(2, 1, 3).pack(), "02"),  # another city's merchant
        (ride(1, 1, 1).pack(), "02"),  # the sender's own card
        (ride(2, 1, 1, acquirer="12345678").pack(), "02"),  # an acquirer of no city: the code in the record is 3350
        (ride(2, 1, 1)._replace(issuer=bytes.fromhex("99990571FFFFFFFF")).pack(), "08"),
        (ride(2, 1, 1)._replace(issuer=issuer_of(5)).pack(), "08"),  # known, and no member
        (ride(3, 1, 1).pack(), "08"),  # its cards are for their own city
        (ride(2, 2, 1, atc=7, amount_fen=0).pack(), None),
    ]  # fmt: skip
    receipt = await centre.take(fh(centre, [raw for raw, _ in cases], day, 1))
    assert receipt.status == "00"
    found = await centre.rows("SELECT refused FROM interop_record ORDER BY line")
    assert [refused for (refused,) in found] == [refused for _, refused in cases]
    assert counts(receipt) == {"11": 2, "03": 1, "02": 4, "08": 3}
    # The far city's merchants take cards of the Hangzhou circle, and it lies outside of it itself; its cards may come to us.
    far = await centre.take(fh(centre, [ride(2, 3, 4).pack()], day, 4))
    assert counts(far) == {"08": 1}
    near = await centre.take(fh(centre, [ride(4, 3, 2).pack(), good], day, 2))
    assert counts(near) == {"11": 1, "02": 1}
    assert centre.audit_faults() == []


async def test_strangers_and_files_that_are_not_whole_are_refused(centre: Centre, day: date) -> None:
    records = [ride(2, 1, 1).pack(), ride(2, 2, 1).pack()]
    assert (await centre.take(fh(centre, records, day, 9))).status == "04"
    path = fh(centre, records, day, 1)
    whole = path.read_bytes()
    for content, status in (
        (whole[:-3] + b"x\r\n", "01"),
        (whole[:82] + whole[285:], "02"),
        (whole.replace(b"D00000002", b"D\xff0000002"), "02"),
    ):
        path.write_bytes(content)
        assert (await centre.take(path)).status == status
    path.write_bytes(whole)
    assert (await centre.take(path)).status == "00"
    other = fh(centre, records[:1], day, 1)
    assert (await centre.take(other)).status == "03"
    assert await centre.rows("SELECT count(*) FROM interop_record") == [(2,)]
    assert (await answered(centre, [(records[0], "11")], day, 2)).status == "02"


async def test_a_file_that_ends_after_its_time_counts_for_the_next_date_and_nothing_is_lost(
    centre: Centre, day: date, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(received, "BLOCK_LINES", 2)
    early = [ride(2, 1, 1).pack()]
    await centre.take(fh(centre, early, day, 1))
    records = [ride(1, n, 2).pack() for n in (1, 2, 3)]
    path = fh(centre, records, day, 2)

    def cut(done: int, _total: int) -> None:
        if done == 2:
            raise _Stop

    with pytest.raises(_Stop):
        await centre.take(path, tell=cut)
    centre.at(day, 1, 2)
    ran = await centre.run()
    assert ran.forwarded == (day,)
    assert [path.name[:18] for path in centre.files("DF", "")] == [f"DF{CENTRE}{city_id(2)}"]
    assert counts(await centre.take(path)) == {"11": 3}
    centre.at(day, 1, 1)  # the clock is set back: what is settled stays so
    late = await centre.take(fh(centre, [ride(3, 1, 1).pack()], day, 1, 2))
    assert counts(late) == {"11": 1}
    assert (await centre.run()).forwarded == ()
    centre.at(day, 2, 2)
    assert (await centre.run()).forwarded == (day + timedelta(1),)
    assert len(details(centre.files("DF", city_id(1))[0])) == 3
    assert await centre.rows("SELECT clearing_date, late FROM interop_arrival ORDER BY file_no") == [
        (day, False), (day + timedelta(1), True), (day + timedelta(1), True),
    ]  # fmt: skip
    assert centre.audit_faults() == []


async def test_answers_count_once_in_time_and_from_the_cards_city_only(centre: Centre, day: date) -> None:
    records = [ride(2, n, 1, amount_fen=100 * n).pack() for n in range(1, 7)]
    await centre.take(fh(centre, records, day, 1))
    assert counts(await answered(centre, [(records[0], "10")], day, 2)) == {"unknown": 1}, "not handed on yet"
    centre.at(day, 1, 2)
    await centre.run()
    a, b, c, d, e, _ = records
    said = [(a, "10"), (a, "01"), (b, "01"), (c, "04"), (ride(2, 1, 1).pack(), "10")]
    first = await answered(centre, said, day, 2, 2)
    assert counts(first) == {"10": 1, "late": 1, "01": 1, "04": 1, "unknown": 1}
    again = [(a, "02"), (c, "04"), (d, "00")]
    assert counts(await answered(centre, again, day, 2, 3)) == {"late": 2, "00": 1}
    assert counts(await answered(centre, [(e, "01")], day, 3)) == {"unknown": 1}, "another city's card"
    centre.at(day, 2, 20)
    late = await answered(centre, [(e, "01"), (c, "94")], day, 2, 4)
    assert counts(late) == {"late": 1, "94": 1}, "what is held has more time"
    (decided,) = (await centre.run()).decided
    assert decided.unanswered == 2
    (path,) = centre.files("DT", city_id(1))
    two_days_on = f"{day + timedelta(2):%Y%m%d}"
    assert [line[201:] for line in details(path)] == [
        *(f"{result}{day:%Y%m%d}" for result in ("10", "01", "94", "00")), f"00{two_days_on}", f"00{two_days_on}",
    ]  # fmt: skip
    paid = 100 + 400 + 500 + 600
    assert decided.nets_fen[city_id(2)] < -paid + 10
    assert centre.audit_faults() == []


async def test_what_is_held_for_too_long_is_accepted(centre: Centre, day: date) -> None:
    record = ride(2, 1, 1).pack()
    await centre.take(fh(centre, [record], day, 1))
    centre.at(day, 1, 2)
    await centre.run()
    assert counts(await answered(centre, [(record, "04")], day, 2)) == {"04": 1}
    centre.at(day, 1, 3)
    (decided,) = (await centre.run()).decided
    assert decided.nets_fen == {}
    await _another(centre, day, 66)
    ran = await centre.run()
    assert [(one.clearing_date, one.nets_fen[city_id(2)]) for one in ran.decided] == [
        (day + timedelta(66), -200)
    ]
    assert centre.audit_faults() == []


async def _another(centre: Centre, day: date, days: int) -> None:
    """A later date, for which only something that is answered at once has come."""
    centre.at(day, days, 12)
    raw = ride(3, 1, 1, amount_fen=0).pack()
    await centre.take(fh(centre, [raw], day, 1, 2))
    centre.at(day, days + 1, 2)
    assert (await centre.run()).forwarded == (day + timedelta(days),)
    assert counts(await answered(centre, [(raw, "10")], day, 3)) == {"10": 1}


async def test_a_run_that_dies_anywhere_is_done_by_the_next_with_the_same_bytes(
    centre: Centre, day: date, monkeypatch: pytest.MonkeyPatch
) -> None:
    records = [ride(2, n, 1).pack() for n in (1, 2)]
    await centre.take(fh(centre, records, day, 1))
    centre.at(day, 1, 2)
    await centre.run()
    await answered(centre, [(raw, "10") for raw in records], day, 2)
    for place in ("_add_positions", "_plan", "FileInMaking", "sync_folder", "mark_complete"):
        monkeypatch.setattr(centre_run, place, _stop)
        with pytest.raises(_Stop):
            await centre.run()
        monkeypatch.undo()
        assert len(centre.files("NP", CENTRE)) == 0
    await centre.run()
    folder = centre.folder / f"{day:%Y%m%d}"
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    assert sorted(name[:2] for name in before if len(name) == 29) == ["DF", "DT", "NP", "NP", "NP"]
    assert not [name for name in before if name.endswith(".tmp")]
    for path in list(folder.iterdir()):
        path.unlink()
    await centre.rewrite(day)
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before
    assert centre.audit_faults() == []


async def test_files_are_signed_once_before_they_are_marked_and_what_went_out_unsigned_stays_so(
    centre: Centre, day: date, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    vault = signing_vault(tmp_path)
    records = [ride(2, n, 1).pack() for n in (1, 2)]
    await centre.take(fh(centre, records, day, 1))
    centre.at(day, 1, 2)
    await centre.run()
    centre.signer = FileSigner(vault)
    await answered(centre, [(raw, "10") for raw in records], day, 2)
    monkeypatch.setattr(centre_run, "mark_complete", _stop)
    with pytest.raises(_Stop):
        await centre.run()  # a signature is stored, and its file is not marked
    monkeypatch.undo()
    assert centre.audit_faults() == []
    await centre.run()
    folder = centre.folder / f"{day:%Y%m%d}"
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    signed = [name for name in before if len(name) == 29 and not name.startswith("DF")]
    assert sorted(name for name in before if name.endswith(".sig")) == sorted(f"{n}.sig" for n in signed)
    for name in signed:
        report = lint_file(folder / name, keys=[vault.public_key(FSK)])
        assert (report.faults, report.notes) == ((), ("the signature is right",))
    assert centre.audit_faults() == []
    (folder / f"{signed[0]}.sig").write_bytes(b"another")
    (folder / f"{signed[1]}.sig").unlink()
    next(folder.glob("DF*1")).unlink()
    assert len(centre.audit_faults()) == 3
    await centre.rewrite(day)
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before
    assert centre.audit_faults() == []


async def test_a_run_that_dies_before_it_marks_the_last_file_of_a_date_leaves_none_unmarked(
    centre: Centre, day: date, monkeypatch: pytest.MonkeyPatch
) -> None:
    await centre.take(fh(centre, [ride(2, 1, 1).pack()], day, 1))
    centre.at(day, 1, 2)
    monkeypatch.setattr(centre_run, "mark_complete", _stop)
    with pytest.raises(_Stop):
        await centre.run()  # the only file that the date has so far
    monkeypatch.undo()
    await centre.run()
    (path,) = centre.files("DF", city_id(2))
    assert path.with_name(f"{path.name}.ok").exists()
    assert centre.audit_faults() == []


async def test_what_the_centre_writes_is_delivered_to_members_that_are_partners(
    centre: Centre, day: date, tmp_path: Path
) -> None:
    records = [ride(2, n, 1).pack() for n in (1, 2)]
    await centre.take(fh(centre, records, day, 1))
    centre.at(day, 1, 2)
    await centre.run()
    with Sshd(tmp_path / "partner") as server:
        partner = partner_settings(
            server, day, parties=[city_id(2)], types=["DF", "DT", "NP"], outbox="", sends=[]
        )
        at = settings_of(centre.folder, centre.url, partner)
        (first,) = await Deliverer(centre.url, at).once()
        assert ([name[:2] for name in first.sent], first.fault) == (["DF"], "")
        await answered(centre, [(raw, "10") for raw in records], day, 2)
        await centre.run()
        (second,) = await Deliverer(centre.url, at).once()
        assert ([name[:2] for name in second.sent], second.fault) == (["NP"], "")
        assert {name[10:18] for name in (*first.sent, *second.sent)} == {city_id(2)}
        assert check_whole(server) == {*first.sent, *second.sent}
        late = partner_settings(
            server, day + timedelta(1), name="late", parties=[city_id(1)], types=["DT", "NP"]
        )
        (none,) = await Deliverer(centre.url, settings_of(centre.folder, centre.url, late)).once()
        assert (none.sent, none.fault) == ((), "")
    assert centre.audit_faults() == []
    async with await connect(centre.url) as connection:
        await connection.execute("UPDATE delivery SET size_bytes = size_bytes + 1 WHERE number = 2")
    assert any("delivery" in str(fault) for fault in centre.audit_faults())


async def test_two_runs_at_once_and_two_files_with_the_same_records(centre: Centre, day: date) -> None:
    records = [ride(2, 1 + n % 6, 1, atc=n // 6).pack() for n in range(60)]
    one, two = fh(centre, records, day, 1), fh(centre, records[::-1], day, 1, 2)
    first, second = await asyncio.gather(centre.take(one), centre.take(two))
    assert counts(first).get("11", 0) + counts(second).get("11", 0) == 60
    assert counts(first).get("03", 0) + counts(second).get("03", 0) == 60
    async with await connect(centre.url) as connection:
        await connection.execute("SELECT pg_advisory_lock(%s, 0)", (centre_run.CENTRE_LOCK,))
        with pytest.raises(InputRefused, match="another run"):
            await centre.run()
        await connection.execute(
            "SELECT pg_advisory_unlock_all()"
        )  # a closed line's server may take a moment
    centre.at(day, 1, 2)
    await centre.run()
    said = [(raw, "10") for raw in records]
    third, fourth = await asyncio.gather(
        answered(centre, said, day, 2), answered(centre, said[::-1], day, 2, 2)
    )
    assert counts(third).get("10", 0) + counts(fourth).get("10", 0) == 60
    await centre.run()
    (path,) = centre.files("DT", city_id(1))
    assert len(details(path)) == 60, "what a city sends twice is answered once"
    assert centre.audit_faults() == []


async def test_a_member_that_has_not_paid_in_time_is_blocked_alone_until_it_has(
    centre: Centre, day: date
) -> None:
    await centre.take(fh(centre, [ride(2, 1, 1).pack(), ride(3, 1, 1).pack()], day, 1))
    centre.at(day, 1, 2)
    await centre.run()
    centre.at(day, 2, 20)
    await centre.run()
    ((settled,),) = await centre.rows("SELECT settlement_date FROM interop_day")
    assert settled > day + timedelta(2)
    async with await connect(centre.url) as connection:
        assert await fund(connection, city_id(3), day, "li wei") == (-200, True)
        assert await fund(connection, city_id(3), day, "li wei") == (-200, False)
        for member, rule in ((city_id(1), "owes nothing"), ("12345678", "no position")):
            with pytest.raises(InputRefused, match=rule):
                await fund(connection, member, day, "li wei")
    centre.at(settled, 0, 9, 59)
    assert (await centre.run()).blocked == ()
    centre.at(settled, 0, 10)
    assert (await centre.run()).blocked == ((day, city_id(2), -200),)
    states = "SELECT institution_id, state FROM interop_position ORDER BY 1"
    assert await centre.rows(states) == [
        (city_id(1), "RECEIVES"), (city_id(2), "BLOCKED"), (city_id(3), "FUNDED"),
    ]  # fmt: skip
    async with await connect(centre.url) as connection:
        assert await fund(connection, city_id(2), day, "li wei") == (-200, True)
    assert (await centre.run()).blocked == ()
    assert centre.audit_faults() == []
