"""MQTT on bad days: whatever dies, is lost or comes twice, every ride is booked once and every terminal gets its receipt."""

import asyncio
import contextlib
import os
import signal
from collections.abc import Iterator

import psycopg
import pytest

from terminal_sim.frames import Terminal
from terminal_sim.mqtt import MqttConnection
from terminal_sim.mqtt_batches import pack_batch
from terminal_sim.mqtt_device import MqttDevice
from tests.helpers.mosquitto import SWITCH_PASSWORD, SWITCH_USER, Mosquitto
from tests.helpers.mqtt import MqttTown, Station, accepted_once, booked, passwords
from tests.helpers.rides import Bus
from tests.helpers.switch_process import SwitchProcess, postgres_pids, until
from tests.helpers.till import Seen, Till
from tests.helpers.town import Town

pytestmark = [pytest.mark.server, pytest.mark.slow]

FARE_FEN = 200


@pytest.fixture(scope="module")
def base(town: Town) -> SwitchProcess:
    """Holds the database and hears nothing of MQTT."""
    return town.serve()


@pytest.fixture(scope="module")
def mqtt(town: Town, base: SwitchProcess, tmp_path_factory: pytest.TempPathFactory) -> Iterator[MqttTown]:
    with Mosquitto(tmp_path_factory.mktemp("broker"), passwords()) as broker:
        yield MqttTown(town, broker)


@pytest.fixture(scope="module")
def both(mqtt: MqttTown) -> list[SwitchProcess]:
    """Two processes on one shared subscription."""
    return [mqtt.serve_beside("left"), mqtt.serve_beside("right")]


async def bus_of(mqtt: MqttTown, rides: int, amount_fen: int = FARE_FEN, **changes: object) -> MqttDevice:
    """A bus that has signed on and has records to hand in."""
    device = mqtt.device(mqtt.town.new_bus(), **changes)  # type: ignore[arg-type]  # only what device() takes
    await device.sign_on()
    bus, card = Bus(device.pos.terminal), mqtt.town.new_card("purse")
    device.batches.add(bus.ride(card, atc, amount_fen) for atc in range(rides))
    return device


@contextlib.contextmanager
def session_held(town: Town, terminal: Terminal) -> Iterator[None]:
    """Somebody has the lock on a terminal's session: its batches wait at the database, before anything is decided."""
    with psycopg.connect(town.database_url) as connection:
        connection.execute(
            "SELECT FROM terminal_session JOIN terminal USING (terminal_no) WHERE terminal_id = %s FOR UPDATE OF terminal_session",
            [terminal.terminal_id],
        )
        yield


async def waiting_at(processes: list[SwitchProcess], many: int) -> None:
    """Until so many messages wait inside the switch."""

    def there() -> bool:
        return sum(process.metric("cardswitch_mqtt_in_flight") for process in processes) >= many

    await asyncio.to_thread(until, there, 60, "the arrival of the batches")


async def test_a_broker_that_dies_before_the_acknowledgement_costs_nothing_and_tcp_does_not_notice(
    mqtt: MqttTown, both: list[SwitchProcess]
) -> None:
    device = await bus_of(mqtt, 10, receipt_s=2.0)
    with session_held(mqtt.town, device.pos.terminal):
        handed_in = asyncio.create_task(device.hand_in())
        await waiting_at(both, 1)
        mqtt.broker.kill()
    lost = [lambda p=process: p.metric("cardswitch_mqtt_connected") == 0 for process in both]
    for condition in lost:
        await asyncio.to_thread(until, condition, 60, "the loss of the line")
    till = await Till(mqtt.town.new_terminal(), Seen(), both[0].line).sign_on()
    assert (await till.buy(mqtt.town.new_card(), 1_500)).fields[39] == "00"
    till.hang_up()
    status, text = both[0].get("/readyz?verbose")
    assert (status, "[~] mqtt" in text) == (200, True)
    mqtt.broker.start()
    assert set((await handed_in).values()) == {"10"}
    assert accepted_once(mqtt.town, device.pos.terminal) == list(range(1, 11))
    assert sum(process.metric("cardswitch_mqtt_undelivered_total", channel="purse") for process in both) >= 1
    device.close()


@pytest.mark.parametrize("point", ["batch committed", "receipt published"])
async def test_a_switch_that_dies_between_commit_and_acknowledgement_is_sent_the_batch_again(
    mqtt: MqttTown, tmp_path_factory: pytest.TempPathFactory, point: str
) -> None:
    with Mosquitto(tmp_path_factory.mktemp("alone"), passwords()) as broker:
        alone = MqttTown(mqtt.town, broker)
        # Signed on over TCP: the point would be met by the answer of a sign-on.
        till = await Till(mqtt.town.new_bus(), Seen(), mqtt.town.processes[0].line).sign_on()
        assert (await till.buy(mqtt.town.new_card(), 100)).fields[39] == "00"
        till.hang_up()
        pad = till.pos.pin_pad
        assert pad is not None
        bus, card = Bus(till.terminal), mqtt.town.new_card("purse")
        payload = pack_batch(till.terminal, pad, 1, [bus.ride(card, atc, FARE_FEN) for atc in range(5)])
        # A busy machine may take longer to start the next one than a broker should keep what is for it.
        keep = {"mqtt__session_s": 3_600}
        doomed = alone.serve_beside("alone", fail_at=point, **keep)
        async with Station.at(alone.line_of(till.terminal.terminal_id), till.terminal.terminal_id) as station:
            await station.line.publish(f"{station.prefix}/purse/up", payload)
            await asyncio.to_thread(until, lambda: not doomed.alive(), 60, "the death of the switch")
            mqtt.town.stop(doomed)
            assert booked(mqtt.town, till.terminal) == [("10", 5)]
            process = await asyncio.to_thread(alone.serve_beside, "alone", **keep)
            receipt = await station.next_receipt()  # sent again by the broker, not by the terminal
            if point == "receipt published":
                assert await station.next_receipt() == receipt
            assert [code for _, code in receipt.results] == ["10"] * 5
            assert pad.mac_holds(receipt.signed, receipt.mac)
        mqtt.town.stop(process)
    assert accepted_once(mqtt.town, till.terminal) == list(range(1, 6))


async def test_a_client_taken_over_in_mid_batch_gets_its_receipt_and_so_does_one_whose_switch_was_taken_over(
    mqtt: MqttTown, both: list[SwitchProcess]
) -> None:
    device = await bus_of(mqtt, 10, receipt_s=2.0)
    with session_held(mqtt.town, device.pos.terminal):
        handed_in = asyncio.create_task(device.hand_in())
        await waiting_at(both, 1)
        thief = await MqttConnection.open(device.broker, lambda _message, _mid: True)
        for client in ("left-0", "right-0"):
            line = mqtt.line_of("", client_id=client, username=SWITCH_USER, password=SWITCH_PASSWORD)
            await MqttConnection.open(line, lambda _message, _mid: True)
    assert set((await handed_in).values()) == {"10"}
    thief.abort()
    device.close()
    assert accepted_once(mqtt.town, device.pos.terminal) == list(range(1, 11))
    lost = [
        lambda p=process: p.metric("cardswitch_mqtt_lines_ended_total", reason="lost") >= 1
        for process in both
    ]
    for condition in lost:  # also the one that had nothing to answer
        await asyncio.to_thread(until, condition, 60, "the loss of the line")


async def test_what_a_full_broker_throws_away_is_seen_as_a_gap_and_sent_again(
    mqtt: MqttTown, tmp_path_factory: pytest.TempPathFactory
) -> None:
    with Mosquitto(tmp_path_factory.mktemp("small"), passwords(), queued_max=4) as broker:
        small = MqttTown(mqtt.town, broker)
        process = small.serve_beside("small", mqtt__receive_maximum=1)
        device = small.device(mqtt.town.new_bus())
        await device.sign_on()
        bus, pad = Bus(device.pos.terminal), device.pos.pin_pad
        assert pad is not None
        card = mqtt.town.new_card("purse")
        payloads = [
            pack_batch(device.pos.terminal, pad, serial, [bus.ride(card, serial, FARE_FEN)])
            for serial in range(14)
        ]
        line = small.line_of(device.pos.terminal.terminal_id, client_id="station")
        async with Station.at(line, device.pos.terminal.terminal_id) as station:
            await station.receipt_of(payloads[0])
            with session_held(mqtt.town, device.pos.terminal):
                for payload in payloads[1:13]:  # the broker confirms every one of them
                    await station.line.publish(f"{station.prefix}/purse/up", payload)
                await waiting_at([process], 1)
            named = {0}
            while 5 not in named:  # one on its way and four in the queue
                named.add((await station.next_receipt()).serial)
            named.add((await station.receipt_of(payloads[13])).serial)
            lost = sorted(set(range(14)) - named)
            assert lost, "the broker has kept everything"

            def gaps() -> str:
                with psycopg.connect(mqtt.town.database_url) as connection:
                    row = connection.execute(
                        "SELECT missing::text FROM purse_sequence JOIN terminal ON terminal_no = owner"
                        " WHERE kind = 4 AND terminal_id = %s",
                        [device.pos.terminal.terminal_id],
                    ).fetchone()
                return row[0] if row is not None else ""

            expected = f"{{[{lost[0]},{lost[-1] + 1})}}"
            await asyncio.to_thread(until, lambda: gaps() == expected, 60, "the fold of the gap")
            for serial in lost:
                assert (await station.receipt_of(payloads[serial])).result == "00"
            await asyncio.to_thread(until, lambda: gaps() == "{}", 60, "the end of the gap")
        device.close()
        mqtt.town.stop(process)
    assert accepted_once(mqtt.town, device.pos.terminal) == list(range(1, 15))


async def test_the_largest_batch_with_one_bad_crc_in_the_middle_loses_that_record_only(
    mqtt: MqttTown, both: list[SwitchProcess]
) -> None:
    device = await bus_of(mqtt, 0, batch=2_000)
    bus, card = Bus(device.pos.terminal), mqtt.town.new_card("purse")
    records = [bus.ride(card, atc, 1) for atc in range(2_000)]
    records[1_000] = records[1_000][:50] + b"\xaa" + records[1_000][51:]
    device.batches.add(records)
    results = await device.hand_in(3)
    assert [number for number, code in results.items() if code != "10"] == [records[1_000][59:63]]
    assert booked(mqtt.town, device.pos.terminal) == [("02", 1), ("10", 1_999)]
    with psycopg.connect(mqtt.town.database_url) as connection:
        raw = connection.execute(
            "SELECT raw FROM purse_quarantine JOIN terminal USING (terminal_no) WHERE terminal_id = %s",
            [device.pos.terminal.terminal_id],
        ).fetchall()
    assert raw == [(records[1_000],)]
    device.close()


async def test_two_processes_share_the_load_and_the_same_batch_through_both_is_booked_once(
    mqtt: MqttTown, both: list[SwitchProcess]
) -> None:
    before = [process.metric("cardswitch_mqtt_receipts_total", result="00") for process in both]
    device = await bus_of(mqtt, 0)
    pad, terminal = device.pos.pin_pad, device.pos.terminal
    assert pad is not None
    bus, card = Bus(terminal), mqtt.town.new_card("purse")
    line = mqtt.line_of(terminal.terminal_id, client_id="station")
    async with Station.at(line, terminal.terminal_id) as station:
        for serial in range(1, 4):
            payload = pack_batch(terminal, pad, serial, [bus.ride(card, serial, FARE_FEN) for _ in range(2)])
            with session_held(mqtt.town, terminal):
                for _ in range(4):
                    await station.line.publish(f"{station.prefix}/purse/up", payload)
                await waiting_at(both, 4)
            receipts = [await station.next_receipt() for _ in range(4)]
            assert receipts == [receipts[0]] * 4
            assert [code for _, code in receipts[0].results] == ["10", "02"]
    after = [process.metric("cardswitch_mqtt_receipts_total", result="00") for process in both]
    assert all(now > then for now, then in zip(after, before, strict=True))
    assert booked(mqtt.town, terminal) == [("02", 3), ("10", 3)]
    device.close()


async def test_a_database_that_dies_while_batches_come_delays_them_and_loses_none(
    mqtt: MqttTown, both: list[SwitchProcess]
) -> None:
    devices = [await bus_of(mqtt, 40, batch=5, receipt_s=5.0) for _ in range(2)]
    handed_in = [asyncio.create_task(device.hand_in()) for device in devices]
    await asyncio.to_thread(
        until, lambda: bool(accepted_once(mqtt.town, devices[0].pos.terminal)), 60, "a booking"
    )
    os.kill(min(postgres_pids(mqtt.town.data_dir)), signal.SIGKILL)
    for device, task in zip(devices, handed_in, strict=True):
        assert set((await task).values()) == {"10"}
        assert accepted_once(mqtt.town, device.pos.terminal) == list(range(1, 41))
        device.close()


async def test_a_switch_told_to_stop_answers_what_it_has_and_takes_nothing_more(
    mqtt: MqttTown, both: list[SwitchProcess]
) -> None:
    device = await bus_of(mqtt, 10, receipt_s=60.0)
    with session_held(mqtt.town, device.pos.terminal):
        handed_in = asyncio.create_task(device.hand_in(1))
        await waiting_at(both, 1)
        for process in both:
            process.terminate()
        await asyncio.to_thread(
            until, lambda: not any(map(_listens, both)), 60, "the end of their subscriptions"
        )
    assert set((await handed_in).values()) == {"10"}
    for process in both:
        assert await asyncio.to_thread(process.wait) == 0
        mqtt.town.processes.remove(process)
    device.close()


def _listens(process: SwitchProcess) -> bool:
    """Whether a process that drains would still accept a terminal: its HTTP goes last, perhaps while we ask."""
    try:
        return process.alive() and process.get("/readyz")[0] == 200
    except OSError:
        return False
