"""The hot list: drafts, versions, and downloads of every size, stable while they last."""

import json
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import psycopg
import pytest

from switch.domain.decisions import Outcome
from switch.domain.errors import InputRefused
from switch.domain.transactions import HotListDownload
from switch.messages.answers import build_answer
from switch.messages.framing import frame
from switch.messages.hot_list import HotListBlock, applies, apply_blocks, read_block
from switch.registry.hot_list import (
    discard,
    draft_of,
    import_draft,
    listed,
    newest_versions,
    publish,
    read_file,
)
from switch.registry.hot_list_download import HotLists, confirm_list
from tests.helpers.frames import VECTORS, frame_of, golden, message_of
from tests.unit.registry.conftest import Connect
from tests.unit.registry.helpers import PAN

pytestmark = pytest.mark.server

HEAD = "operation,asn,level,reason\n"
Take = Callable[..., Any]
SIZES = [0, 1, 39, 40, 41, 79, 80, 81, 120, 121]


def asn(number: int) -> str:
    return f"0313350019{number:010d}"


def added(*numbers: int, level: int = 1) -> str:
    return "".join(f"A,{asn(number)},{level:02d},COUNTERFEIT\n" for number in numbers)


def removed(*numbers: int) -> str:
    return "".join(f"D,{asn(number)},,\n" for number in numbers)


@pytest.fixture
def connection(city_url: str) -> Any:
    with psycopg.connect(city_url, autocommit=True) as opened:
        yield opened


@pytest.fixture
def take(connection: Any, tmp_path: Path) -> Take:
    """Import lines into the draft."""

    def imported(lines: str, *, full: bool = False) -> Any:
        file = tmp_path / "list.csv"
        file.write_text(HEAD + lines, encoding="utf-8")
        return import_draft(connection, file, "li wei", full=full)

    return imported


def version(connection: Any) -> int:
    made = publish(connection, "wang fang")
    assert made is not None
    assert made.entries == len(list(listed(connection)))
    return made.version


async def download(
    connection: Any, mode: str, held: int, *, terminal_no: int = 1, lists: HotLists | None = None
) -> list[HotListBlock]:
    lists = lists or HotLists()
    blocks: list[HotListBlock] = []
    while not blocks or blocks[-1].more:
        wanted = HotListDownload(mode, held, len(blocks) + 1)
        raw = await lists.block(connection, terminal_no, wanted)
        assert raw is not None
        blocks.append(read_block(raw))
    assert await lists.block(connection, terminal_no, HotListDownload(mode, held, len(blocks) + 1)) is None
    assert [block.block_no for block in blocks] == list(range(1, len(blocks) + 1))
    assert all(len(block.entries) == 40 for block in blocks[:-1])
    assert len({block[1:4] for block in blocks}) == 1
    return blocks


@pytest.mark.parametrize("size", SIZES)
async def test_a_full_list_of_any_size_comes_in_blocks_of_forty(
    take: Take, connection: Any, connect: Connect, size: int
) -> None:
    take(added(*range(size + 1)))
    first = version(connection)
    take(removed(size))  # so that an empty list can be published
    assert version(connection) == first + 1 == 2
    blocks = await download(await connect(), "F", 0)
    assert len(blocks) == max(1, -(-size // 40))
    assert blocks[0][1:4] == ("F", 0, 2)
    assert apply_blocks({"old": 1}, blocks) == {asn(number): 1 for number in range(size)}


@pytest.mark.parametrize("size", SIZES)
async def test_an_increment_of_any_size_leads_from_what_is_held_to_the_newest(
    take: Take, connection: Any, connect: Connect, size: int
) -> None:
    take(added(*range(1_000, 1_200)))
    version(connection)
    take(added(*range(size + 1)) + removed(1_000) + added(1_001, level=0))
    version(connection)
    take(removed(size) + added(1_000) + added(1_001))  # back to what it was: no part of the increment
    version(connection)
    held = {asn(number): 1 for number in range(1_000, 1_200)}
    blocks = await download(await connect(), "I", 1)
    assert len(blocks) == max(1, -(-size // 40))
    assert blocks[0][1:4] == ("I", 1, 3)
    assert applies(blocks[0], 1)
    assert not applies(blocks[0], 2)
    assert apply_blocks(held, blocks) == held | {asn(number): 1 for number in range(size)}


async def test_the_golden_answers_are_made_byte_for_byte(connection: Any, connect: Connect) -> None:
    def publish_empty(numbers: range) -> None:
        for number in numbers:
            connection.execute(
                "INSERT INTO hot_list_version (version, actor, entries, added, removed) VALUES (%s, 'a', 2, 0, 0)",
                [number],
            )

    def insert(card: str, level: int, since: int) -> None:
        connection.execute(
            "INSERT INTO hot_list_entry VALUES (%s, %s, 'COUNTERFEIT', %s)", [card, level, since]
        )

    publish_empty(range(1, 42))
    insert("03133500100000045673", 1, 41)
    insert("03133500100000890128", 0, 41)
    lists, reader = HotLists(), await connect()
    full = await lists.block(reader, 1, HotListDownload("F", 0, 1))
    assert full is not None
    outcome = Outcome("00", "407508000019", datetime(2024, 3, 15, 0, 15, 30, tzinfo=UTC), field62=full)
    prefix, mab = build_answer(message_of("ISO-16-BLACKLIST-REQ"), outcome, acquirer="49993350")
    mac = bytes.fromhex(golden()["ISO-16-BLACKLIST-RSP"]["field64"])
    assert frame(prefix + mab + mac) == frame_of("ISO-16-BLACKLIST-RSP")

    publish_empty(range(42, 44))
    connection.execute("UPDATE hot_list_entry SET until_version = 43 WHERE level = 0")
    insert("03133500100000001239", 1, 43)
    increment = await lists.block(reader, 1, HotListDownload("I", 41, 1))
    assert increment is not None
    vectors = json.loads((VECTORS / "offline.json").read_text())["vectors"]
    golden_increment = next(vector for vector in vectors if vector["id"] == "BL-INC")
    assert increment.hex() == golden_increment["in"]["block"].lower()


async def test_a_download_is_the_same_to_the_last_block_whatever_is_published_meanwhile(
    take: Take, connection: Any, connect: Connect
) -> None:
    take(added(*range(100)))
    version(connection)
    reader, one, other = await connect(), HotLists(), HotLists()
    raw = await one.block(reader, 1, HotListDownload("F", 0, 1))
    take(removed(*range(90)) + added(*range(500, 600)))
    version(connection)
    rest = [await other.block(reader, 1, HotListDownload("F", 0, number)) for number in (2, 3, 2)]
    assert await other.block(reader, 1, HotListDownload("F", 0, 4)) is None
    assert raw is not None
    assert rest[0] == rest[2]
    blocks = [read_block(block) for block in (raw, *rest[:2]) if block is not None]
    assert [block.version for block in blocks] == [1, 1, 1]
    assert apply_blocks({}, blocks) == {asn(number): 1 for number in range(100)}
    await confirm_list(reader, 1)
    await confirm_list(reader, 1)
    cursor = await reader.execute("SELECT hot_list_held, hot_list_offered FROM terminal_status")
    assert await cursor.fetchone() == (1, None)
    assert await one.block(reader, 1, HotListDownload("F", 0, 2)) is None  # that download is over
    assert (await download(reader, "F", 0))[0].version == 2


async def test_a_block_is_not_given_to_who_began_with_other_words_or_not_at_all(
    take: Take, connection: Any, connect: Connect
) -> None:
    take(added(*range(100)))
    version(connection)
    reader, lists = await connect(), HotLists()
    assert await lists.block(reader, 1, HotListDownload("F", 0, 2)) is None
    await lists.block(reader, 1, HotListDownload("F", 0, 1))
    assert await lists.block(reader, 1, HotListDownload("I", 0, 2)) is None
    assert await lists.block(reader, 1, HotListDownload("F", 1, 2)) is None
    assert await lists.block(reader, 2, HotListDownload("F", 0, 2)) is None
    assert await lists.block(reader, 1, HotListDownload("F", 0, 2)) is not None


async def test_an_increment_without_a_base_or_longer_than_the_list_is_the_full_list(
    take: Take, connection: Any, connect: Connect
) -> None:
    reader = await connect()
    empty = await download(reader, "I", 0)
    assert [block[:5] for block in empty] == [(False, "F", 0, 0, 1)]
    take(added(*range(10)))
    version(connection)
    take(removed(*range(10)) + added(*range(20, 25)))
    version(connection)
    for held in (0, 1, 3, 99_999_999):  # nothing, longer than full, from the future
        blocks = await download(reader, "I", held)
        assert blocks[0][1:4] == ("F", 0, 2)
    assert (await download(reader, "I", 2))[0] == (False, "I", 2, 2, 1, ())  # nothing new


def test_a_draft_publishes_what_it_changes_and_nothing_else(take: Take, connection: Any) -> None:
    assert publish(connection, "li wei") is None
    assert take(added(1, 2)) == take(added(1, 2)) == (2, 0)  # the same file again
    assert version(connection) == 1
    assert take(added(1, 2)) == (0, 0)
    assert publish(connection, "li wei") is None
    assert take(added(1, level=0) + removed(2, 3)) == (1, 2)  # a level that changes is both
    assert version(connection) == 2
    assert [row[3:] for row in newest_versions(connection, 5)] == [(1, 1, 2), (2, 2, 0)]
    assert take(added(7)) == (1, 0)
    assert take(removed(7)) == (0, 0)  # taken back before it was published
    take(added(8))
    discard(connection)
    assert draft_of(connection) == (0, 0)


def test_a_full_file_becomes_the_changes_that_lead_to_it(take: Take, connection: Any) -> None:
    take(added(1, 2, 3))
    version(connection)
    take(added(99))  # an older draft gives way
    assert take(added(2, 3, 4), full=True) == (1, 1)
    version(connection)
    assert [row[0] for row in listed(connection)] == [asn(2), asn(3), asn(4)]
    assert take("", full=True) == (0, 3)
    with pytest.raises(InputRefused, match="takes nothing off"):
        take(removed(2), full=True)


def test_a_card_that_was_only_reported_lost_stays_off_the_list(take: Take, connection: Any) -> None:
    lost = f"0{PAN}"
    for reason in ("REPLACED", "CANCELLED"):
        with pytest.raises(InputRefused, match="lost one stays off") as refused:
            take(added(1) + f"A,{lost},00,{reason}\n")
        assert PAN not in str(refused.value)
        assert "line 3" in str(refused.value)
    with pytest.raises(InputRefused, match="a loss report is no reason"):
        take(f"A,{lost},00,LOST\n")
    assert draft_of(connection) == (0, 0)
    connection.execute("UPDATE card SET state = 6 WHERE pan = %s", [PAN])
    assert take(f"A,{lost},00,REPLACED\n") == (1, 0)


@pytest.mark.parametrize(
    ("lines", "rule"),
    [
        ("A,123,00,COUNTERFEIT\n", "line 2: asn"),
        (f"A,{asn(1)[:-1]}٣,00,COUNTERFEIT\n", "line 2: asn"),
        (f"X,{asn(1)},00,COUNTERFEIT\n", "operation"),
        (f"A,{asn(1)},02,COUNTERFEIT\n", "level"),
        (f"A,{asn(1)},,COUNTERFEIT\n", "level"),
        (f"A,{asn(1)},00,\n", "reason"),
        (f"D,{asn(1)},00,\n", "has none"),
        (added(1) + removed(1), "line 3: the card is named twice"),
        (f"A,{asn(1)}\n", "4 values"),
        ('A,"x\n', "not CSV"),
    ],
)
def test_a_file_with_one_bad_line_is_refused_whole_and_shows_no_card(
    tmp_path: Path, lines: str, rule: str
) -> None:
    file = tmp_path / "list.csv"
    file.write_text(HEAD + lines, encoding="utf-8")
    with pytest.raises(InputRefused, match=rule) as refused:
        read_file(file)
    assert asn(1) not in str(refused.value)


def test_bytes_that_are_no_text_and_a_missing_head_are_refused(tmp_path: Path) -> None:
    file = tmp_path / "list.csv"
    for content, rule in [(b"\xff\xfe\x00", "UTF-8"), (b"", "first line"), (added(1).encode(), "first line")]:
        file.write_bytes(content)
        with pytest.raises(InputRefused, match=rule):
            read_file(file)


def test_two_publish_at_once_and_one_version_comes_of_it(take: Take, connection: Any, city_url: str) -> None:
    take(added(1))
    with psycopg.connect(city_url) as slow:
        slow.execute("SELECT 1")  # begins a transaction, which publish then does not end
        assert publish(slow, "slow") is not None
        with psycopg.connect(city_url, autocommit=True) as quick:
            quick.execute("SET lock_timeout = '100ms'")
            with pytest.raises(psycopg.errors.LockNotAvailable):
                publish(quick, "quick")
            assert newest_versions(quick, 5) == []  # not before the commit
        slow.commit()
    assert publish(connection, "late") is None
    assert [row.actor for row in newest_versions(connection, 5)] == ["slow"]


async def test_a_list_too_long_for_the_line_is_published_for_topics_only_and_no_block_of_it_is_sent(
    take: Take, connection: Any, connect: Connect, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("switch.registry.hot_list.LINE_MAX", 40)
    monkeypatch.setattr("switch.registry.hot_list_download.LINE_BYTES_MAX", 40 * 12)
    take(added(*range(40)))
    version(connection)
    reader, lists = await connect(), HotLists()
    assert [block.version for block in await download(reader, "F", 0)] == [1]
    take(added(40))
    with pytest.raises(InputRefused, match="longer than 40 cards"):
        publish(connection, "li wei")
    assert publish(connection, "li wei", beyond_line=True) is not None
    assert await lists.block(reader, 1, HotListDownload("F", 0, 1)) is None
    assert (await download(reader, "I", 1))[0][1:4] == (
        "I",
        1,
        2,
    )  # who held the one before needs one card only


async def test_an_entry_of_a_version_that_there_is_not_is_refused(city_url: str) -> None:
    add = "INSERT INTO hot_list_entry (asn, level, reason, from_version) VALUES (%s, 1, 'COUNTERFEIT', %s)"
    with psycopg.connect(city_url, autocommit=True) as connection:
        connection.execute(
            "INSERT INTO hot_list_version (version, actor, entries, added, removed) VALUES (1, 'a', 1, 1, 0)"
        )
        with pytest.raises(psycopg.errors.ForeignKeyViolation):
            connection.execute(add, [asn(1), 2])
        for short in (asn(1)[1:], asn(1)[1:] + "a", asn(1)[1:] + "٣"):
            with pytest.raises(psycopg.errors.CheckViolation):
                connection.execute(add, [short, 1])
        connection.execute(add, [asn(1), 1])
        with pytest.raises(psycopg.errors.ForeignKeyViolation):
            connection.execute("UPDATE hot_list_entry SET until_version = 2")
