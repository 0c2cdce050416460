"""The outbox in the database: who may claim what, ends that are written once, and what operators do about refusals."""

import asyncio
from datetime import timedelta

import pytest

from switch.domain.errors import InputRefused
from switch.ledger.outbox import End, Verdict, claim, figures, record
from switch.ledger.outbox_desk import listed, outstanding, retry, settle, stand_in_days
from switch.storage.pool import connect
from tests.helpers.outbox import (
    PRICE,
    counted,
    one,
    put_items,
    put_legs,
    put_reversals,
    put_stood_in,
)

pytestmark = pytest.mark.server
LEASE_S = 60.0


async def claimed(connection, limit=100, *, host="bank", shard=0, lease_s=LEASE_S):
    return await claim(connection, shard, host, limit=limit, lease_s=lease_s)


def confirmed(message):
    return End(message, Verdict.CONFIRMED, "00", tried=True)


def refused(message, code="12"):
    return End(message, Verdict.REFUSED, code, tried=True)


def later(message, wait_s=0.0, *, tried=True):
    return End(message, Verdict.LATER, "91", tried=tried, wait_s=wait_s)


async def test_a_claim_takes_what_is_due_of_one_host_and_shard_once(pg):
    await put_reversals(pg, 3)
    await put_reversals(pg, 2, first=10, host="other")
    await put_reversals(pg, 2, first=20, shard=1)
    await pg.execute("UPDATE host_outbox SET due_at = now() + interval '1 hour' WHERE outbox_no = 3")
    found = await claimed(pg)
    assert [message.outbox_no for message in found] == [1, 2]
    assert found[0].leg is not None
    assert (found[0].leg.trace, found[0].leg.pan) == (1, "6228480123456789006")
    assert "6228480123456789006" not in repr(found)
    assert await claimed(pg) == []
    assert len(await claimed(pg, 1, shard=1)) == 1
    assert len(await claimed(pg, host="other")) == 2


async def test_two_that_claim_at_once_get_different_messages(postgres_url, pg):
    await put_reversals(pg, 400)
    connections = [await connect(postgres_url) for _ in range(4)]

    async def take(connection):
        found = []
        while some := await claimed(connection, 7):
            found += [message.outbox_no for message in some]
        return found

    taken = await asyncio.gather(*map(take, connections))
    for connection in connections:
        await connection.close()
    # One that meets a row somebody else has in hand passes it by, so all is taken when nobody is at work any more.
    rest = [message.outbox_no for message in await claimed(pg, 400)]
    assert sorted([*(number for some in taken for number in some), *rest]) == list(range(1, 401))


async def test_a_claim_whose_owner_died_is_free_when_its_lease_is_over(pg):
    await put_reversals(pg, 1)
    [first] = await claimed(pg, lease_s=0.05)
    await asyncio.sleep(0.1)
    [second] = await claimed(pg)
    assert (second.outbox_no, second.tries) == (first.outbox_no, 0)
    assert second.held_until > first.held_until
    # The first lives after all, and says that it should be tried again: that is the second's matter now.
    assert await record(pg, 0, "bank", [later(first)]) == []
    assert await claimed(pg) == []
    assert await record(pg, 0, "bank", [confirmed(first)]) == [1]  # but what is confirmed is confirmed
    assert await record(pg, 0, "bank", [refused(second)]) == []
    assert await one(pg, "SELECT result, last_end, tries FROM host_outbox") == (1, "00", 1)


async def test_only_the_oldest_open_message_of_a_leg_can_be_claimed(pg):
    await put_legs(pg, 2)
    await put_items(pg, 6, first_leg=1, per_leg=3)
    taken = []
    for _ in range(3):
        found = await claimed(pg)
        taken.append([message.outbox_no for message in found])
        assert await claimed(pg) == []
        await record(pg, 0, "bank", [confirmed(found[0]), refused(found[1])])
    assert taken == [[1, 4], [2, 5], [3, 6]]


async def test_one_that_waits_keeps_the_later_ones_of_its_leg_waiting(pg):
    await put_legs(pg, 1)
    await put_items(pg, 2, first_leg=1, per_leg=2)
    [first] = await claimed(pg)
    await record(pg, 0, "bank", [later(first, 3600.0)])
    assert await claimed(pg) == []


async def test_many_ends_are_written_in_one_statement_each_by_its_own_rule(pg):
    await put_reversals(pg, 4)
    found = await claimed(pg)
    ends = [confirmed(found[0]), refused(found[1]), later(found[2], 100.0), later(found[3], tried=False)]
    assert sorted(await record(pg, 0, "bank", ends)) == [1, 2, 3, 4]
    cursor = await pg.execute(
        "SELECT result, tries, last_end, done_at IS NULL, sending, due_at > now() + interval '90 seconds'"
        " FROM host_outbox ORDER BY outbox_no"
    )
    assert [row[:5] for row in await cursor.fetchall()] == [
        (1, 1, "00", False, False),
        (2, 1, "12", False, False),
        (None, 1, "91", True, False),
        (None, 0, "", True, False),
    ]
    assert [message.outbox_no for message in await claimed(pg)] == [4]


async def test_an_advice_leaves_what_is_outstanding_once_though_two_say_so(postgres_url, pg):
    await put_stood_in(pg, 40)
    found = await claimed(pg)
    connections = [await connect(postgres_url) for _ in range(4)]
    # The same ends, in any order, from all of them at once.
    ends = [
        [confirmed(m) if (m.outbox_no + n) % 3 else refused(m) for m in found[:: (-1) ** n]] for n in range(4)
    ]
    counts = await asyncio.gather(
        *(record(connection, 0, "bank", some) for connection, some in zip(connections, ends, strict=True))
    )
    for connection in connections:
        await connection.close()
    assert sorted(number for some in counts for number in some) == list(range(1, 41))
    assert await outstanding(pg) == {"bank": (0, 0)}


async def test_a_stand_in_figure_that_is_wrong_does_not_keep_the_outbox_from_being_written(pg):
    await put_stood_in(pg, 2)
    await pg.execute("UPDATE stand_in SET outstanding_fen = 1, outstanding_count = 1")
    found = await claimed(pg)
    assert len(await record(pg, 0, "bank", [confirmed(message) for message in found])) == 2
    assert await outstanding(pg) == {"bank": (0, 0)}


async def test_a_return_of_what_was_stood_in_is_no_advice_of_it(pg):
    await put_stood_in(pg, 1)
    await put_items(pg, 1, first=2, first_leg=1, step=3)
    [advice] = await claimed(pg)
    assert advice.is_first
    await record(pg, 0, "bank", [confirmed(advice)])
    [other] = await claimed(pg)
    assert not other.is_first


async def test_the_figures_are_by_host(pg):
    await put_reversals(pg, 3)
    await put_reversals(pg, 1, first=10, host="other")
    found = await claimed(pg)
    await record(pg, 0, "bank", [refused(found[0]), confirmed(found[1])])
    shown = await figures(pg, [0, 1])
    assert (shown["bank"].open, shown["bank"].refused) == (1, 1)
    assert 59 < shown["bank"].oldest_s < 600
    assert (shown["other"].open, shown["other"].refused) == (1, 0)


async def test_a_refused_message_is_sent_again_or_settled_by_an_operator_who_is_noted(pg):
    await put_reversals(pg, 2)
    await record(pg, 0, "bank", [refused(message) for message in await claimed(pg)])
    assert [item.outbox_no for item in await listed(pg, refused=True)] == [1, 2]
    await retry(pg, "bank", 1, actor="li wei")
    await settle(pg, "bank", 2, actor="wang fang", reason="paid back by  hand")
    assert [item.outbox_no for item in await listed(pg, refused=True)] == []
    assert [item.outbox_no for item in await listed(pg)] == [1]
    [again] = await claimed(pg)
    assert (again.outbox_no, again.trace, again.tries) == (1, 1, 1)
    cursor = await pg.execute("SELECT actor, subject, change FROM registry_change ORDER BY change_no")
    assert await cursor.fetchall() == [
        ("li wei", "host bank outbox 0/1", {"move": "retry"}),
        ("wang fang", "host bank outbox 0/2", {"move": "settle", "reason": "paid back by hand"}),
    ]
    for host, number in (("bank", 1), ("bank", 2), ("bank", 3), ("other", 1)):
        with pytest.raises(InputRefused):
            await settle(pg, host, number, actor="li wei", reason="again")
        with pytest.raises(InputRefused):
            await retry(pg, host, number, actor="li wei")
    with pytest.raises(InputRefused, match="reason"):
        await settle(pg, "bank", 1, actor="li wei", reason=" ")


async def test_a_refused_advice_that_is_sent_again_is_outstanding_again(pg):
    await put_stood_in(pg, 2)
    await record(pg, 0, "bank", [refused(message) for message in await claimed(pg)])
    assert await outstanding(pg) == {"bank": (0, 0)}
    await retry(pg, "bank", 1, actor="li wei")
    assert await outstanding(pg) == {"bank": (PRICE, 1)}
    await record(pg, 0, "bank", [confirmed(message) for message in await claimed(pg)])
    assert await outstanding(pg) == {"bank": (0, 0)}
    [day] = await stand_in_days(pg)
    assert (day.host, day.approved, day.advised, day.refused, day.outstanding) == ("bank", 2, 1, 1, 0)
    assert (day.approved_fen, day.advised_fen, day.refused_fen) == (2 * PRICE, PRICE, PRICE)


async def test_a_refused_message_is_not_sent_after_a_later_one_of_its_leg_was_confirmed(pg):
    await put_legs(pg, 1)
    await put_items(pg, 2, first_leg=1, per_leg=2)
    [first] = await claimed(pg)
    await record(pg, 0, "bank", [refused(first)])
    [second] = await claimed(pg)  # on its way
    with pytest.raises(InputRefused, match="later"):
        await retry(pg, "bank", 1, actor="li wei")
    await record(pg, 0, "bank", [later(second, 3600.0)])  # not known to the host: the first may go before it
    await retry(pg, "bank", 1, actor="li wei")
    [first] = await claimed(pg)
    await record(pg, 0, "bank", [refused(first)])
    await pg.execute("UPDATE host_outbox SET due_at = now() WHERE outbox_no = 2")
    [second] = await claimed(pg)
    await record(pg, 0, "bank", [confirmed(second)])
    with pytest.raises(InputRefused, match="later"):
        await retry(pg, "bank", 1, actor="li wei")
    assert await counted(pg) == {1: 1, 2: 1}


async def test_claims_look_up_legs_by_index_whatever_the_statistics_say(pg):
    """A table without statistics must not be read from end to end for each claim."""
    await put_reversals(pg, 5_000)
    await pg.execute("SET enable_seqscan = on")
    before = await one(pg, "SELECT now()")
    for _ in range(10):
        assert len(await claimed(pg, 10)) == 10
    scans = "SELECT seq_tup_read FROM pg_stat_xact_user_tables WHERE relname = 'host_leg'"
    async with pg.transaction():
        await claimed(pg, 10)
        assert await one(pg, scans) == 0
    assert await one(pg, "SELECT now()") - before < timedelta(minutes=5)
