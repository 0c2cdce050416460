"""What a terminal makes of lists by topic: exactly the list that was signed, or the one that it had, whatever comes between.

The encoder is the switch's, the decoder the terminal's own, written from docs/lists.md.
"""

from datetime import datetime, timedelta

import pytest

from switch.keys import sm2
from switch.messages.list_blocks import (
    BLOCK_ENTRIES_MAX,
    Form,
    Manifest,
    block_topic,
    blocks_of,
    manifest_topic,
    pack_block,
    pack_manifest,
    slot_of,
)
from terminal_sim.lists import ListKeeper, ListRefusedError
from tests.helpers.lists import MADE_AT, SIGNING_KEY, Retained, hot, keeper_of, make_target, signed

K = BLOCK_ENTRIES_MAX
SIZES = [0, 1, K - 1, K, K + 1, 2 * K - 1, 2 * K, 2 * K + 1, 5 * K, 5 * K + 1]
NOW = manifest_topic("HOT")


def brought(keeper: ListKeeper, broker: Retained, manifest: bytes) -> list[str]:
    broker.messages[NOW] = manifest
    return broker.serve(keeper)


def holding(numbers: range, version: int = 1) -> tuple[ListKeeper, Retained]:
    """A terminal that holds such a list, and the broker that gave it."""
    target, broker = make_target("HOT", version, hot(numbers), {})
    keeper = keeper_of()
    assert brought(keeper, broker, signed("HOT", version, [target])) == []
    assert keeper.lists["hot"].version == version
    return keeper, broker


@pytest.mark.parametrize("size", SIZES)
def test_a_list_of_any_size_comes_whole_and_changes_by_an_increment_of_any_size(size: int) -> None:
    keeper, _ = holding(range(size))
    assert keeper.lists["hot"].entries == hot(range(size))
    # One comes off and the others come on: an increment of exactly this size, to a list of another.
    old = hot(range(size))
    new = hot(range(1, 2 * size - 1))
    target, broker = make_target("HOT", 2, new, {1: old})
    assert [form.entries for form in target.forms] == [len(new), size]
    assert brought(keeper, broker, signed("HOT", 2, [target])) == []
    held = keeper.lists["hot"]
    assert (held.version, held.entries) == (2, new)
    assert keeper.status() == {"31": "00000002", "33": "00000000", "34": "00000000"}


def test_the_largest_block_and_the_last_number_are_taken_and_nothing_above() -> None:
    assert [blocks_of(size) for size in (0, 1, K, K + 1, 1_000_000)] == [1, 1, 1, 2, 500]
    full = bytes(12 * K)
    assert len(pack_block("HOT", 0, 1, 65_535, 65_535, full)) == 24 + 12 * K + 32
    for number, blocks, packed in [
        (0, 1, full),
        (2, 1, full),
        (1, 65_536, full),
        (1, 1, full + bytes(12)),
        (1, 1, b"A"),
    ]:
        with pytest.raises(ValueError, match="list block"):
            pack_block("HOT", 0, 1, number, blocks, packed)


def test_blocks_lost_doubled_and_out_of_order_leave_the_old_list_whole_until_all_are_there() -> None:
    keeper, _ = holding(range(10))
    new = hot(range(5, 4 * K))
    target, broker = make_target("HOT", 2, new, {})
    blocks = {topic: payload for topic, payload in broker.messages.items() if topic != NOW}
    topics = sorted(blocks, reverse=True)
    keeper.take(topics[0], blocks[topics[0]])  # before the manifest: nobody knows yet what it is
    keeper.take(NOW, signed("HOT", 2, [target]))
    for topic in topics[:-1] * 2:
        keeper.take(topic, blocks[topic])
    assert keeper.lists["hot"].entries == hot(range(10))
    assert keeper.wanted_topics()[-1] == topics[-1]  # and it is this one that it asks for again
    keeper.take(topics[-1], blocks[topics[-1]])
    assert keeper.lists["hot"].entries == new


def test_a_truncated_or_altered_block_is_refused_and_asked_for_again() -> None:
    keeper, _ = holding(range(10))
    target, broker = make_target("HOT", 2, hot(range(20)), {})
    topic = block_topic("HOT", 2, 0, 1)
    good = broker.messages[topic]
    keeper.take(NOW, signed("HOT", 2, [target]))
    for bad in (good[:-1], good[:40], good[:30] + bytes([good[30] ^ 1]) + good[31:], good + b"x"):
        with pytest.raises(ListRefusedError, match="block: damaged"):
            keeper.take(topic, bad)
        assert keeper.lists["hot"].entries == hot(range(10))
    assert keeper.status()["36"] == "12"
    # Whole in itself, and yet not what was signed: a broker that makes its own.
    with pytest.raises(ListRefusedError, match="not signed"):
        keeper.take(topic, pack_block("HOT", 0, 2, 1, 1, bytes(12 * 20)))
    assert (keeper.lists["hot"].version, keeper.status()["36"]) == (1, "13")
    assert topic in keeper.wanted_topics()
    keeper.take(topic, good)
    assert keeper.lists["hot"].entries == hot(range(20))
    assert "36" not in keeper.status()


def test_a_manifest_that_was_not_signed_for_this_list_by_this_key_is_refused() -> None:
    keeper, _ = holding(range(10))
    target, _ = make_target("HOT", 2, hot(range(20)), {})
    good = signed("HOT", 2, [target])
    stranger = sm2.generate()
    forged = good[:-64] + sm2.sign(stranger, good[:-64])
    for bad in (
        forged,
        good[:-1],
        good[:60] + bytes([good[60] ^ 1]) + good[61:],
        b"",
        b"ELM1",
        signed("CITY", 9, [target]),
    ):
        if bad:
            with pytest.raises(ListRefusedError, match="manifest"):
                keeper.take(NOW, bad)
        else:
            keeper.take(NOW, bad)  # somebody took the retained message away
    with pytest.raises(ListRefusedError, match="key that is not known"):
        keeper.take(NOW, signed("HOT", 2, [target], key_version=2))
    assert keeper.wanted_topics() == [manifest_topic(kind) for kind in ("HOT", "CITY", "PARAM")]
    assert keeper.status()["36"] == "11"


def test_a_retained_list_from_last_week_changes_nothing_and_is_not_fresh() -> None:
    keeper, last_week = holding(range(10), version=7)
    target, broker = make_target("HOT", 8, hot(range(20)), {7: hot(range(10))})
    later = MADE_AT + timedelta(days=6)
    assert brought(keeper, broker, signed("HOT", 8, [target], made_at=later)) == []
    assert last_week.serve(keeper) == []
    held = keeper.lists["hot"]
    assert (held.version, held.fresh_at) == (8, datetime(2024, 3, 21, 8, 30))  # noqa: DTZ001 - a device's clock
    # Signed anew under a later serial the older version is still no reason to go back.
    older, broker = make_target("HOT", 7, hot(range(10)), {})
    assert brought(keeper, broker, signed("HOT", 9, [older], made_at=later)) == []
    assert held.version == 8
    assert not keeper.stale("hot", datetime(2024, 3, 28, 8, 30), 7)  # noqa: DTZ001
    assert keeper.stale("hot", datetime(2024, 3, 28, 8, 31), 7)  # noqa: DTZ001
    assert keeper_of().stale("hot", datetime(2024, 3, 15), 7)  # noqa: DTZ001 - it has never had one


def test_an_increment_whose_base_is_not_what_it_should_be_ends_in_the_full_list() -> None:
    keeper, _ = holding(range(10))
    keeper.lists["hot"].entries.pop(next(iter(hot(range(1)))))  # a bad sector
    new = hot(range(3, 20))
    target, broker = make_target("HOT", 2, new, {1: hot(range(10))})
    assert (
        brought(keeper, broker, signed("HOT", 2, [target])) == []
    )  # it mends itself: what was lost comes off anyway
    assert keeper.lists["hot"].entries == new
    keeper.lists["hot"].entries.popitem()
    newer = hot(range(3, 21))
    target, broker = make_target("HOT", 3, newer, {2: new})
    assert brought(keeper, broker, signed("HOT", 3, [target])) == ["list: not the one that was signed"]
    assert keeper.lists["hot"].entries == newer
    fresh = keeper_of()  # no base at all
    assert broker.serve(fresh) == []
    assert fresh.lists["hot"].entries == newer


def test_a_list_of_another_version_under_way_gives_way_to_the_newest() -> None:
    keeper, _ = holding(range(10))
    second, early = make_target("HOT", 2, hot(range(K + 5)), {})
    keeper.take(NOW, signed("HOT", 2, [second]))
    keeper.take(block_topic("HOT", 2, 0, 1), early.messages[block_topic("HOT", 2, 0, 1)])
    third, late = make_target("HOT", 3, hot(range(K + 9)), {1: hot(range(10))})
    assert brought(keeper, late, signed("HOT", 3, [third])) == []
    keeper.take(block_topic("HOT", 2, 0, 2), early.messages[block_topic("HOT", 2, 0, 2)])
    assert (keeper.lists["hot"].version, keeper.lists["hot"].entries) == (3, hot(range(K + 9)))


def test_a_stage_is_a_part_of_all_slots_and_named_terminals_and_a_stop_leaves_who_was_reached() -> None:
    old, new = hot(range(10)), hot(range(20))
    before, broker = make_target("HOT", 1, old, {})
    after, more = make_target("HOT", 2, new, {1: old})
    broker.messages |= more.messages
    ids = [f"335000{number:02d}" for number in range(30)]
    pilot = max(ids, key=slot_of)
    percent = sorted(map(slot_of, ids))[10]
    keepers = {terminal_id: keeper_of(terminal_id) for terminal_id in [*ids[:6], pilot]}
    staged = signed("HOT", 2, [after, before], percent=percent, named=(pilot,))
    for terminal_id, keeper in keepers.items():
        assert brought(keeper, broker, staged) == []
        reached = slot_of(terminal_id) < percent or terminal_id == pilot
        assert (keeper.lists["hot"].version, keeper.lists["hot"].entries) == (
            (2, new) if reached else (1, old)
        )
        assert keeper.lists["hot"].fresh_at is not None
    later = MADE_AT + timedelta(days=1)
    for keeper in keepers.values():
        version = keeper.lists["hot"].version
        assert brought(keeper, broker, signed("HOT", 3, [after, before], percent=0, made_at=later)) == []
        assert keeper.lists["hot"].version == version
        assert not keeper.stale("hot", datetime(2024, 3, 16, 9, 0), 1)  # noqa: DTZ001


def test_what_does_not_fit_into_a_manifest_is_not_signed() -> None:
    target, _ = make_target("HOT", 1, hot(range(1)), {})
    good = Manifest("HOT", 1, MADE_AT, 1, 100, (), (target,))
    for bad in (
        good._replace(targets=()),
        good._replace(targets=(target,) * 3),
        good._replace(percent=101),
        good._replace(named=("123",)),
        good._replace(named=tuple(f"{number:08d}" for number in range(4_097))),
        good._replace(targets=(target._replace(forms=()),)),
        good._replace(targets=(target._replace(forms=target.forms * 9),)),
        good._replace(targets=(target._replace(forms=(Form(1, 1, 1, bytes(32)),)),)),
    ):
        with pytest.raises(ValueError, match=r"manifest|target|terminal ids"):
            pack_manifest(bad)
    assert len(pack_manifest(good._replace(named=tuple(f"{number:08d}" for number in range(4_096))))) == (
        20 + 4_096 * 8 + 1 + 41 + 43
    )
    assert SIGNING_KEY.public[0] == 4
