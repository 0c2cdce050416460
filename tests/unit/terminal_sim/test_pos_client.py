"""A terminal on a real loopback line, also through a bad one."""

import asyncio
from collections.abc import AsyncIterator

import pytest

from switch.messages.codec import encode
from switch.messages.message import Message
from terminal_sim.faults import FaultProxy, Faults
from terminal_sim.frames import CardData, Totals
from terminal_sim.pos import Pos
from terminal_sim.pos_answers import Answer, Balanced, Request
from terminal_sim.pos_batch import NotNowError
from terminal_sim.pos_client import Line, NoAnswerError, PosClient, RefusedError, answer_key
from tests.unit.terminal_sim.false_switch import FalseSwitch, changed, lost_times
from tests.unit.terminal_sim.test_pos import record

CARD = CardData("3133500100000001239")
PATIENT_S, IMPATIENT_S = 20.0, 0.2


@pytest.fixture
def switch() -> FalseSwitch:
    return FalseSwitch()


@pytest.fixture
async def port(switch: FalseSwitch) -> AsyncIterator[int]:
    server = await switch.serve()
    yield server.sockets[0].getsockname()[1]
    server.close()
    await server.wait_closed()


@pytest.fixture
async def client(switch: FalseSwitch, port: int) -> AsyncIterator[PosClient]:
    made = PosClient(Pos(switch.terminal), Line("127.0.0.1", port), timeout_s=PATIENT_S)
    yield made
    made.close()


class Impatient(PosClient):
    """Waits in vain for a moment only, so many times for each kind of message; what is answered may take its time."""

    def __init__(self, client: PosClient, lost: dict[str, int]) -> None:
        super().__init__(client.pos, client.line, timeout_s=PATIENT_S)
        self.lost = lost

    async def exchange(self, request: Request) -> Answer:
        await self.connect()
        lost = self.lost.get(request.mti, 0)
        self.lost[request.mti] = lost - 1
        self._timeout_s = IMPATIENT_S if lost > 0 else PATIENT_S
        try:
            return await super().exchange(request)
        finally:
            self._timeout_s = PATIENT_S


async def test_a_working_day(client: PosClient, switch: FalseSwitch) -> None:
    first = await client.purchase(CARD, 1000, pin="123456")
    assert first.approved
    assert first.receipt is not None
    assert (await client.balance(CARD)).approved
    assert (await client.void(first.receipt)).approved
    second = (await client.purchase(CARD, 500)).receipt
    assert second is not None
    assert (await client.refund(second, 100)).approved
    for serial in range(12):
        client.pos.store_record(record(serial))
    assert (await client.echo()).approved
    assert client.pos.batch.accounts == Totals(1500, 2, 1100, 2)
    assert await client.settle() == (Balanced.YES, Balanced.YES)
    assert [len(m.fields[62]) // 96 for m in switch.seen("0320") if 62 in m.fields] == [5, 5, 2]
    await client.ready()
    assert client.pos.batch_no == 2
    assert (await client.sign_off()).approved
    assert switch.sessions == 2


async def test_an_unbalanced_settlement_sends_the_details_and_the_records_again(
    client: PosClient, switch: FalseSwitch
) -> None:
    for _ in range(9):
        await client.purchase(CARD, 10)
    client.pos.store_record(record(1))
    switch.answers["0500"] = lambda m, fields: (
        fields | {48: m.fields[48][:30] + "2" + m.fields[48][31:61] + "3"}
    )
    assert await client.settle() == (Balanced.NO, Balanced.UNDECIDED)
    assert [m.fields[60][8:] for m in switch.seen("0320")] == ["203", "201", "201", "203", "202"]
    assert switch.seen("0320")[-1].fields[48] == "0010"


async def test_a_lost_answer_is_reversed_before_anything_else(client: PosClient, switch: FalseSwitch) -> None:
    await client.ready()
    switch.answers["0200"] = lost_times(1)
    outcome = await Impatient(client, {"0200": 1}).purchase(CARD, 1000)
    assert (outcome.approved, outcome.reversal) == (False, "00")
    reversal = switch.seen("0400")[0]
    assert reversal.fields[39] == "98"
    assert reversal.fields[11] == switch.seen("0200")[0].fields[11]
    assert client.pos.batch.accounts == Totals()
    assert (await client.purchase(CARD, 1000)).approved


async def test_an_unanswered_reversal_is_tried_three_times_and_then_before_the_next_purchase(
    client: PosClient, switch: FalseSwitch
) -> None:
    await client.ready()
    hurried = Impatient(client, {"0200": 1, "0400": 6})
    switch.answers["0200"] = lost_times(1)
    switch.answers["0400"] = lost_times(6)
    outcome = await hurried.purchase(CARD, 1000)
    assert (outcome.answer, outcome.reversal) == (None, "")
    assert len(switch.seen("0400")) == 3
    with pytest.raises(NotNowError):
        await hurried.purchase(CARD, 70)
    assert len(switch.seen("0400")) == 6
    assert len(switch.seen("0200")) == 1
    assert (await client.purchase(CARD, 70)).approved
    assert client.pos.batch.accounts == Totals(70, 1)


async def test_a_wrong_mac_leads_to_a_new_sign_on_and_a_reversal(
    client: PosClient, switch: FalseSwitch
) -> None:
    await client.ready()

    def spoil(_message: Message, fields: dict[int, object]) -> dict[int, object]:
        switch.spoil_mac = True
        return fields

    def repair(_message: Message, fields: dict[int, object]) -> dict[int, object]:
        switch.spoil_mac = False
        return fields

    switch.answers = {"0200": spoil, "0800": repair}
    outcome = await client.purchase(CARD, 1000)
    assert outcome.reversal == "00"
    assert switch.seen("0400")[0].fields[39] == "A0"
    assert switch.sessions == 2


async def test_a_refund_and_an_upload_are_sent_again_as_they_were(
    client: PosClient, switch: FalseSwitch
) -> None:
    receipt = (await client.purchase(CARD, 1000)).receipt
    assert receipt is not None
    hurried = Impatient(client, {"0220": 2, "0320": 2})
    switch.answers = {"0220": lost_times(2), "0320": lost_times(2)}
    assert (await hurried.refund(receipt, 300)).approved
    assert len({m.body for m in switch.seen("0220")}) == 1
    client.pos.store_record(record(1))
    assert await hurried.upload_records() == {1: "10"}
    assert [len(switch.seen("0220")), len(switch.seen("0320"))] == [3, 3]
    assert len({m.body for m in switch.seen("0320")}) == 1
    assert client.pos.batch.purse == Totals(100, 1)


async def test_an_answer_a0_makes_it_sign_on_and_send_again_under_the_new_keys(
    client: PosClient, switch: FalseSwitch
) -> None:
    await client.ready()
    client.pos.store_record(record(1))
    calls: list[int] = []

    def once(_message: Message, fields: dict[int, object]) -> dict[int, object]:
        calls.append(1)
        return fields if len(calls) > 1 else fields | {39: "A0"}

    switch.answers["0320"] = once
    assert await client.upload_records() == {1: "10"}
    first, second = switch.seen("0320")
    assert first.mab == second.mab
    assert first.field64 != second.field64


async def test_refusals_escape_with_their_code(client: PosClient, switch: FalseSwitch) -> None:
    switch.answers["0800"] = changed(f39="97", f62=None)
    with pytest.raises(RefusedError) as caught:
        await client.purchase(CARD, 1)
    assert caught.value.code == "97"
    del switch.answers["0800"]
    switch.answers["0500"] = changed(f39="96")
    with pytest.raises(RefusedError, match="settlement"):
        await client.settle()
    client.pos.store_record(record(1))
    switch.answers["0320"] = changed(f39="96", f62=None)
    with pytest.raises(RefusedError, match="upload"):
        await client.settle()


async def test_many_requests_of_one_terminal_in_flight_find_their_answers(
    client: PosClient, switch: FalseSwitch
) -> None:
    await client.ready()
    outcomes = await asyncio.gather(*(client.purchase(CARD, amount) for amount in range(1, 31)))
    assert all(outcome.receipt is not None for outcome in outcomes)
    assert [o.receipt.amount_fen for o in outcomes if o.receipt] == list(range(1, 31))
    assert client.pos.batch.accounts == Totals(sum(range(1, 31)), 30)


async def test_nobody_listening_is_no_answer(client: PosClient, port: int) -> None:
    lonely = PosClient(client.pos, Line("127.0.0.1", 1), timeout_s=PATIENT_S)
    with pytest.raises(NoAnswerError):
        await lonely.sign_on()


async def test_an_abandoned_purchase_is_owed_a_reversal(client: PosClient, switch: FalseSwitch) -> None:
    await client.ready()
    switch.answers["0200"] = lost_times(1)
    task = asyncio.ensure_future(client.purchase(CARD, 1000))
    while not switch.seen("0200"):
        await asyncio.sleep(0.001)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert len(client.pos.reversals) == 1
    assert await client.finish_reversals()


async def test_a_line_that_breaks_is_made_anew(client: PosClient, switch: FalseSwitch, port: int) -> None:
    async with FaultProxy("127.0.0.1", port) as proxy:
        client.line = Line("127.0.0.1", proxy.port)
        assert (await client.purchase(CARD, 1)).approved
        proxy.down = Faults(cut_after_bytes=0)
        broken = asyncio.ensure_future(client.purchase(CARD, 2))
        while not proxy.counts["down cut"]:
            await asyncio.sleep(0.001)
        proxy.down = Faults()
        outcome = await broken
        assert outcome.reversal == "00"
        assert (await client.purchase(CARD, 3)).approved
    assert client.pos.batch.accounts == Totals(4, 2)


async def test_books_agree_after_a_day_on_a_bad_line(
    client: PosClient, switch: FalseSwitch, port: int
) -> None:
    """Every purchase ends approved, or reversed; nothing is counted twice or lost."""
    async with FaultProxy("127.0.0.1", port, seed=7) as proxy:
        hurried = PosClient(client.pos, Line("127.0.0.1", proxy.port), timeout_s=0.2, tries=20)
        await hurried.ready()
        proxy.up = Faults(drop=0.15, repeat=0.15)
        proxy.down = Faults(drop=0.15, repeat=0.15, delay=0.3, delay_s=(0.0, 0.005))
        approved = 0
        for amount in range(1, 41):
            outcome = await hurried.purchase(CARD, amount)
            approved += amount if outcome.approved else 0
            assert outcome.approved or outcome.reversal == "00"
        hurried.close()
    assert client.pos.batch.accounts.debit_fen == approved
    reversed_traces = {m.fields[11] for m in switch.seen("0400")}
    booked = {
        m.fields[11]: int(m.fields[4]) for m in switch.seen("0200") if m.fields[11] not in reversed_traces
    }
    assert sum(booked.values()) == approved


@pytest.mark.parametrize(
    ("mti", "fields", "key"),
    [
        ("0210", {2: "3133500100000001239", 3: "001000", 4: "000000000001", 11: "000123"}, ("0210", 123)),
        ("0210", {2: "62284801234567890", 3: "001000", 11: "000123"}, ("0210", 123)),
        ("0330", {11: "999999", 39: "00"}, ("0330", 999_999)),
        ("0830", {39: "00", 41: "33500001"}, ("0830", 0)),
    ],
)
def test_answers_are_recognised_by_their_first_bytes(
    mti: str, fields: dict[int, str], key: tuple[str, int]
) -> None:
    assert answer_key(encode(Message(b"\x60" + bytes(4), bytes.fromhex("613100310001"), mti, fields))) == key


@pytest.mark.parametrize("body", [b"", bytes(21), b"\x60" * 21 + b"\xff" * 9, bytes(13) + b"\xff" * 8])
def test_answers_that_cannot_be_recognised_do_no_harm(body: bytes) -> None:
    assert answer_key(body) in (None, ("", 0), ("0000", 0))
