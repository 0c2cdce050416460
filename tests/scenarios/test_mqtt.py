"""Terminals that have no TCP at all: sign-on, purchases, lists, batches and settlement over a real broker with its access list."""

import contextlib
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import psycopg
import pytest

from switch.transports.mqtt_line import LineLostError, LineTerms
from switch.transports.mqtt_topics import HOT_LISTS, encoded
from terminal_sim.crypto import WorkingKeys
from terminal_sim.frames import PinPad, Terminal
from terminal_sim.mqtt import MQTT_311, Broker, MqttConnection, MqttLineError
from terminal_sim.mqtt_batches import Receipt, pack_batch, sm3
from terminal_sim.mqtt_device import MqttDevice, prefix_of
from terminal_sim.pos_answers import Balanced
from terminal_sim.pos_downloads import Holdings, fetch_hot_list, fetch_parameters, upload_status
from tests.helpers.certificates import Authority
from tests.helpers.mosquitto import SWITCH_PASSWORD, SWITCH_USER, Mosquitto, client_tls
from tests.helpers.mqtt import MqttTown, Station, booked, listening, passwords, publishing
from tests.helpers.rides import Bus
from tests.helpers.switch_process import SwitchProcess, until
from tests.helpers.town import MERCHANT, OTHER_MERCHANT, Town, terminal_of

pytestmark = [pytest.mark.server, pytest.mark.slow]

FARE_FEN = 200


@pytest.fixture(scope="module")
def mqtt(built_town: Town, tmp_path_factory: pytest.TempPathFactory) -> Iterator[MqttTown]:
    """A town of whom nobody listens on TCP but the database's own process; audited at the end."""
    town = built_town.copy(tmp_path_factory.mktemp("mqtt"))
    with Mosquitto(tmp_path_factory.mktemp("broker"), passwords()) as broker:
        made = MqttTown(town, broker)
        try:
            made.serve()
            yield made
            town.run("audit")
        finally:
            town.stop_all()


@pytest.fixture
def switch(mqtt: MqttTown) -> SwitchProcess:
    process = mqtt.town.processes[0]
    assert process.alive()
    return process


async def bus_of(mqtt: MqttTown, **changes: object) -> tuple[MqttDevice, Bus]:
    """A bus that has signed on."""
    terminal = mqtt.town.new_bus()
    device = mqtt.device(terminal, **changes)  # type: ignore[arg-type]  # only what device() takes
    await device.sign_on()
    return device, Bus(terminal)


def batch_of(device: MqttDevice, serial: int, *records: bytes) -> bytes:
    """EPB1 under the device's keys of now."""
    assert device.pos.pin_pad is not None
    return pack_batch(device.pos.terminal, device.pos.pin_pad, serial, records)


def at(mqtt: MqttTown, terminal: Terminal) -> contextlib.AbstractAsyncContextManager[Station]:
    """A second line of a terminal, on which the test sends what it wants."""
    line = mqtt.line_of(terminal.terminal_id, client_id=f"station-{terminal.terminal_id}")
    return Station.at(line, terminal.terminal_id)


async def drained(station: Station) -> None:
    """What its other line was answered has come here too: an echo of our own comes after it."""
    pos = MqttDevice(terminal_of(0), Broker("", 0, "")).pos
    pos.terminal = Terminal(station.terminal_id, MERCHANT, bytes(16), 5)
    request = pos.pack(pos.echo())[2:]
    await station.line.publish(f"{station.prefix}/iso/up", request, correlation=b"last")
    while (await station.next()).correlation != b"last":
        pass


def good(device: MqttDevice, receipt: Receipt) -> bool:
    """Whether its MAC is one of this moment's key."""
    assert device.pos.pin_pad is not None
    return receipt.mac_id == 5 and device.pos.pin_pad.mac_holds(receipt.signed, receipt.mac)


@pytest.mark.parametrize("mac_id", [1, 2, 3, 4])
async def test_a_terminal_of_any_mac_signs_on_buys_and_settles_over_mqtt(mqtt: MqttTown, mac_id: int) -> None:
    device = mqtt.device(mqtt.town.new_terminal(mac_id))
    try:
        assert (await device.echo()).approved
        assert (await device.sign_on()).approved
        assert (await device.purchase(mqtt.town.new_card(), 1_500)).approved
        assert not (await device.purchase(mqtt.town.new_card(), 10_000_000)).approved
        assert await device.settle() == (Balanced.YES, Balanced.YES)
        assert (await device.sign_on()).approved
        assert device.pos.batch_no == 2
    finally:
        device.close()


async def test_a_bus_fetches_lists_hands_its_batches_in_and_settles_with_both_ways_of_uploading(
    mqtt: MqttTown,
) -> None:
    device, bus = await bus_of(mqtt, batch=7, version=MQTT_311)
    try:
        holdings = Holdings()
        await fetch_parameters(device, holdings)
        await fetch_hot_list(device, holdings)
        assert holdings.parameters
        assert (await upload_status(device, holdings)).approved
        card, other = mqtt.town.new_card("purse"), mqtt.town.new_card("purse")
        device.batches.add(bus.ride(card, atc, FARE_FEN) for atc in range(20))
        assert set((await device.hand_in(3)).values()) == {"10"}
        device.pos.store_record(bus.ride(other, 0, FARE_FEN))
        assert await device.settle() == (Balanced.YES, Balanced.YES)
        assert booked(mqtt.town, device.pos.terminal) == [("10", 21)]
    finally:
        device.close()


async def test_each_batch_result_and_the_stored_receipt_under_todays_key(mqtt: MqttTown) -> None:
    device, bus = await bus_of(mqtt)
    terminal = device.pos.terminal
    card = mqtt.town.new_card("purse")
    first, bad, second = (bus.ride(card, atc, FARE_FEN) for atc in range(3))
    bad = bad[:94] + bytes([bad[94] ^ 1]) + bad[95:]
    async with at(mqtt, terminal) as station:
        payload = batch_of(device, 1, first, bad, second, first)
        receipt = await station.receipt_of(payload)
        assert (receipt.result, [code for _, code in receipt.results]) == ("00", ["10", "02", "10", "03"])
        assert [number for number, _ in receipt.results] == [
            one[59:63] for one in (first, bad, second, first)
        ]
        assert (receipt.digest, good(device, receipt)) == (sm3(payload), True)
        assert await station.receipt_of(payload) == receipt
        other = await station.receipt_of(batch_of(device, 1, first))
        assert (other.result, other.results, good(device, other)) == ("94", (), True)
        repeated = await station.receipt_of(batch_of(device, 2, first, second))
        assert [code for _, code in repeated.results] == ["03", "03"]
        broken = await station.receipt_of(payload[:-1])
        assert (broken.result, broken.serial, good(device, broken)) == ("30", 1, True)
        assert (await station.receipt_of(b"noise" * 9)).result == "30"
        false = await station.receipt_of(payload[:-1] + bytes([payload[-1] ^ 1]))
        assert (false.result, good(device, false)) == ("A0", True)
        pad = device.pos.pin_pad
        assert pad is not None
        foreign = Terminal(terminal.terminal_id, OTHER_MERCHANT, terminal.tmk, 5)
        assert (await station.receipt_of(pack_batch(foreign, pad, 3, [first]))).result == "97"
        assert (await station.receipt_of(pack_batch(terminal_of(50_001), pad, 3, [first]))).result == "30"
        await device.sign_on()
        assert device.pos.pin_pad is not pad
        await drained(station)
        again = await station.receipt_of(batch_of(device, 1, first, bad, second, first))
        assert (again.result, again.results, good(device, again)) == ("00", receipt.results, True)
        late = await station.receipt_of(payload)
        assert late.result == "A0"  # the new keys have been used: the old ones are gone
    device.close()
    assert booked(mqtt.town, terminal) == [("02", 1), ("03", 3), ("10", 2)]


async def test_a_terminal_without_keys_and_one_that_is_not_registered_are_told_so_without_a_mac(
    mqtt: MqttTown,
) -> None:
    terminal = mqtt.town.new_bus()
    pad = PinPad(terminal, WorkingKeys(bytes(16), bytes(16), None))
    record = Bus(terminal).ride(mqtt.town.new_card("purse"), 0, FARE_FEN)
    async with at(mqtt, terminal) as station:
        receipt = await station.receipt_of(pack_batch(terminal, pad, 1, [record]))
        assert (receipt.result, receipt.mac_id, receipt.mac) == ("77", 0, bytes(8))
    stranger = Terminal("STRANGER", MERCHANT, bytes(16), 5)
    async with at(mqtt, stranger) as station:
        receipt = await station.receipt_of(pack_batch(stranger, pad, 1, [record]))
        assert (receipt.result, receipt.mac_id) == ("97", 0)
    assert booked(mqtt.town, terminal) == []


async def test_a_batch_that_comes_again_after_the_settlement_gets_its_receipt_and_counts_where_it_was_taken(
    mqtt: MqttTown,
) -> None:
    device, bus = await bus_of(mqtt)
    records = [bus.ride(mqtt.town.new_card("purse"), 0, FARE_FEN) for _ in range(3)]
    async with at(mqtt, device.pos.terminal) as station:
        receipt = await station.receipt_of(batch_of(device, 1, *records))
        device.pos.batch.note_results([(record, "10") for record in records])
        assert await device.settle() == (Balanced.YES, Balanced.YES)
        await drained(station)
        closed = await station.receipt_of(batch_of(device, 2, *records))
        assert (closed.result, closed.results) == ("77", ())
        await device.sign_on()
        await drained(station)
        again = await station.receipt_of(batch_of(device, 1, *records))
        assert (again.result, again.results) == ("00", receipt.results)
        last = await station.receipt_of(batch_of(device, 2, *records))
        assert [code for _, code in last.results] == ["03"] * 3
    assert await device.settle() == (Balanced.YES, Balanced.YES)
    device.close()


async def test_a_missing_batch_is_a_gap_of_its_terminal(mqtt: MqttTown) -> None:
    device, bus = await bus_of(mqtt)
    async with at(mqtt, device.pos.terminal) as station:
        for serial in (3, 6):
            record = bus.ride(mqtt.town.new_card("purse"), 0, FARE_FEN)
            assert (await station.receipt_of(batch_of(device, serial, record))).result == "00"
    device.close()

    def found() -> bool:
        with psycopg.connect(mqtt.town.database_url) as connection:
            rows = connection.execute(
                "SELECT missing::text FROM purse_gap JOIN terminal ON terminal_no = owner"
                " WHERE kind = 4 AND closed_at IS NULL AND terminal_id = %s",
                [device.pos.terminal.terminal_id],
            ).fetchall()
        return rows == [("[4,6)",)]

    until(found, 60, "the fold of the gap")


async def test_an_answer_goes_where_the_terminal_asks_for_it_within_its_own_topics(mqtt: MqttTown) -> None:
    device, _ = await bus_of(mqtt)
    other = mqtt.town.new_bus()
    prefix = prefix_of(device.pos.terminal.terminal_id)
    async with at(mqtt, device.pos.terminal) as station:
        for topic, expected in (
            (f"{prefix}/kiosk/down", f"{prefix}/kiosk/down"),
            (f"{prefix_of(other.terminal_id)}/iso/down", f"{prefix}/iso/down"),
            (f"{prefix}/iso/up", f"{prefix}/iso/down"),
            ("$SYS/broker", f"{prefix}/iso/down"),
        ):
            request = device.pos.pack(device.pos.echo())[2:]
            await station.line.publish(
                f"{prefix}/iso/up", request, response_topic=topic, correlation=b"\0\1\2"
            )
            answer = await station.next()
            assert (answer.topic, answer.correlation) == (expected, b"\0\1\2")
    device.close()


async def test_the_access_list_keeps_terminals_to_their_own_topics(mqtt: MqttTown) -> None:
    mine, theirs = mqtt.town.new_bus(), mqtt.town.new_bus()
    async with at(mqtt, theirs) as victim, at(mqtt, mine) as station:
        topic = f"{prefix_of(theirs.terminal_id)}/iso"
        echo = MqttDevice(theirs, mqtt.line_of(theirs.terminal_id)).pos
        await station.line.publish(f"{topic}/up", echo.pack(echo.echo())[2:])
        await station.line.publish(f"{topic}/down", b"a false answer")
        await station.line.publish("ccs/v1/list/hot/manifest", b"a false list", retain=True)
        with contextlib.suppress(MqttLineError):  # a broker may refuse it, or let nothing through
            await station.line.subscribe([f"{topic}/down", "ccs/v1/+/+/down", "#"])
        await victim.line.publish(f"{topic}/up", echo.pack(echo.echo())[2:])
        assert (await victim.next()).payload  # its own answer, and the first that came
        own = MqttDevice(mine, mqtt.line_of(mine.terminal_id)).pos
        await station.line.publish(f"{station.prefix}/iso/up", own.pack(own.echo())[2:])
        own_topic = f"{station.prefix}/iso/down"
        came = [await station.next()]
        while came[-1].topic != own_topic:
            came.append(await station.next())
        while not station.came.empty():  # the same once more, by each subscription that fits
            came.append(await station.next())
        assert {one.topic for one in came if not one.topic.startswith("ccs/v1/list/")} == {own_topic}
        assert b"a false list" not in [one.payload for one in came]
        assert victim.came.empty()
    for change in ({"password": "wrong"}, {"username": "nobody"}, {"username": "", "password": ""}):
        with pytest.raises(MqttLineError):
            await MqttConnection.open(mqtt.line_of(mine.terminal_id, **change), lambda _message, _mid: True)


async def test_noise_is_counted_and_acknowledged_and_others_do_not_notice(
    mqtt: MqttTown, switch: SwitchProcess
) -> None:
    noisy, calm = mqtt.town.new_bus(), mqtt.town.new_bus()
    device = mqtt.device(calm)
    answers = [device.sign_on()]
    async with at(mqtt, noisy) as station:
        up = f"{station.prefix}/iso/up"
        frames = [b"", b"\x60", b"\x60" + bytes(3_000), b"GET / HTTP/1.1\r\nHost: somewhere\r\n\r\n"]
        pos = MqttDevice(calm, mqtt.line_of(calm.terminal_id)).pos
        frames.append(pos.pack(pos.echo())[2:])  # of another terminal
        frames.append(pos.pack(pos.echo())[2:].replace(b"\x08\x20", b"\x08\x30", 1))  # an answer
        for frame in frames:
            await station.line.publish(up, frame)
        await station.line.publish(f"{station.prefix}/purse/up", bytes(192_043))
        await station.line.publish(
            f"{station.prefix}/purse/up", bytes(250_000)
        )  # the broker keeps that from us
        station.line.publish_unsafely(up, pos.pack(pos.echo())[2:])
        own = MqttDevice(noisy, mqtt.line_of(noisy.terminal_id)).pos
        await station.line.publish(up, own.pack(own.echo())[2:])
        assert (await station.next()).topic == f"{station.prefix}/iso/down"
    assert (await answers[0]).approved
    assert (await device.purchase(mqtt.town.new_card(), 500)).approved
    device.close()
    for reason, at_least in (("size", 4), ("framing", 2), ("sender", 1), ("qos", 1)):
        assert switch.metric("cardswitch_mqtt_refused_total", reason=reason) >= at_least, reason
    until(lambda: switch.metric("cardswitch_mqtt_in_flight") == 0, 30, "the end of all messages")
    assert switch.get("/readyz?verbose")[1].count("[+] mqtt ok") == 1


async def test_what_is_published_for_all_is_kept_for_those_who_come_later(mqtt: MqttTown) -> None:
    line = LineTerms("127.0.0.1", mqtt.broker.port, "publisher", SWITCH_USER, SWITCH_PASSWORD)
    topic = f"{HOT_LISTS}somebody-else-s"  # what the switch itself says has other names
    async with publishing(line) as publisher:
        await publisher.publish(topic, b"version 7", retain=True)
    device, _ = await bus_of(mqtt)
    assert (await device.echo()).approved
    assert device.lists[topic] == b"version 7"
    async with publishing(line) as publisher:
        await publisher.publish(topic, b"", retain=True)
    device.close()
    with pytest.raises(LineLostError):
        async with publishing(replace(line, password="wrong")):
            pass


async def test_over_tls_a_terminal_is_who_its_certificate_says(mqtt: MqttTown, tmp_path: Path) -> None:
    authority, stranger = Authority(tmp_path, "city"), Authority(tmp_path, "nobody")
    terminal, other = mqtt.town.new_bus(), mqtt.town.new_bus()
    server, ours = authority.issue("broker"), authority.issue(SWITCH_USER)
    name = encoded(terminal.terminal_id)
    pair, false = authority.issue(name), stranger.issue(name + "-false")
    broker = Mosquitto(
        tmp_path / "tls", certificate=server.certificate, key=server.key, authority=authority.file
    )
    with broker:
        town = MqttTown(mqtt.town, broker)
        settings = {
            "mqtt__host": "127.0.0.1",
            "mqtt__port": broker.port,
            "mqtt__client_id": "tls",
            "mqtt__tls_authority": authority.file,
            "mqtt__tls_certificate": ours.certificate,
            "mqtt__tls_key": ours.key,
        }
        process = listening(mqtt.town.serve_beside(**settings))
        tls = client_tls(authority.file, pair.certificate, pair.key)
        device = town.device(terminal, tls=tls, username="", password="")
        assert (await device.sign_on()).approved
        assert (await device.purchase(mqtt.town.new_card(), 700)).approved
        topic = f"{prefix_of(other.terminal_id)}/iso/up"
        assert device.connection is not None
        await device.connection.publish(topic, device.pos.pack(device.pos.echo())[2:])
        assert (await device.echo()).approved
        assert process.metric("cardswitch_mqtt_refused_total") == 0  # the broker has kept it from us
        device.close()
        for context in (
            client_tls(authority.file, false.certificate, false.key),
            client_tls(authority.file),
        ):
            with pytest.raises(MqttLineError):
                await MqttConnection.open(
                    town.line_of(terminal.terminal_id, tls=context, username="", password=""), lambda *_: True
                )
        mqtt.town.stop(process)
