"""Lists at a real broker: validators hold exactly what was published by command, whatever the broker forgets or is told by others."""

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from switch.messages.answers import Processing
from switch.transports.mqtt_line import LineTerms
from terminal_sim.lists import ListKeeper, ListRefusedError
from terminal_sim.mqtt import Delivered, MqttConnection
from terminal_sim.mqtt_device import MqttDevice
from terminal_sim.pos_downloads import Holdings, fetch_parameters, upload_status
from tests.helpers.lists import hot, make_target, now_topic, signed
from tests.helpers.mosquitto import SWITCH_PASSWORD, SWITCH_USER, Mosquitto
from tests.helpers.mqtt import ANSWER_S, MqttTown, passwords, publishing
from tests.helpers.town import Town

pytestmark = [pytest.mark.server, pytest.mark.slow]

NOW = now_topic("HOT")
CARDS = range(2_003)  # two blocks


@pytest.fixture(scope="module")
def mqtt(built_town: Town, tmp_path_factory: pytest.TempPathFactory) -> Iterator[MqttTown]:
    """A town with a broker and one process; audited at the end."""
    town = built_town.copy(tmp_path_factory.mktemp("mqtt"))
    with Mosquitto(tmp_path_factory.mktemp("broker"), passwords()) as broker:
        made = MqttTown(town, broker)
        try:
            made.serve()
            yield made
            town.run("audit")
        finally:
            town.stop_all()


@pytest.fixture(scope="module")
def public(mqtt: MqttTown) -> bytes:
    """The key that terminals check their lists by."""
    keys = json.loads(mqtt.town.run("keys", "list", "--json"))["keys"]
    return next(bytes.fromhex(key["public_key"]) for key in keys if key["name"] == "LSK/SM2/v1/local")


def publish(mqtt: MqttTown, add: range = range(0), remove: range = range(0), *plan: str) -> int:
    """Through the command line; the new version."""
    lines = ["operation,asn,level,reason"]
    lines += [f"A,0313350019{number:010d},01,COUNTERFEIT" for number in add]
    lines += [f"D,0313350019{number:010d},," for number in remove]
    file: Path = mqtt.town.folder / "list.csv"
    file.write_text("\n".join(lines) + "\n", encoding="utf-8")
    mqtt.town.run("hotlist", "import", str(file))
    made: int = json.loads(mqtt.town.run("lists", "publish", "hot", *plan, "--json"))["published"]
    return made


def status_of(mqtt: MqttTown) -> dict[str, object]:
    (status,) = json.loads(mqtt.town.run("lists", "status", "hot", "--json"))["lists"]
    found: dict[str, object] = status
    return found


def asns(*parts: range) -> dict[str, int]:
    return {f"0313350019{number:010d}": 1 for part in parts for number in part}


class Validator:
    """A terminal's lists, by topic, and its line for status uploads."""

    def __init__(self, device: MqttDevice, keeper: ListKeeper) -> None:
        self.device = device
        self.keeper = keeper
        self.hot = keeper.lists["hot"]
        self.asked: set[str] = set()
        self.manifests: list[bytes] = []  # of hot lists, as they came
        self._came: asyncio.Queue[Delivered] = asyncio.Queue()
        self._line: MqttConnection

    @contextlib.asynccontextmanager
    async def listening(self, mqtt: MqttTown) -> AsyncIterator["Validator"]:
        """Ask for what is wanted by a connection of its own."""
        name = self.device.pos.terminal.terminal_id
        self._line = await MqttConnection.open(
            mqtt.line_of(name, client_id=f"lists-{name}"), lambda message, _mid: self._take(message)
        )
        try:
            await self.ask_again()
            yield self
        finally:
            self._line.close()

    def _take(self, message: Delivered) -> bool:
        self._came.put_nowait(message)
        return True

    async def ask_again(self) -> None:
        """Subscribe to everything that is wanted: what is retained comes once more."""
        self.asked = set()
        await self._ask()

    async def _ask(self) -> None:
        new = [topic for topic in self.keeper.wanted_topics() if topic not in self.asked]
        self.asked.update(new)
        if new:
            await self._line.subscribe(new)

    async def hear(self) -> str:
        """Take one message, and ask for what it makes necessary. The rule by which it was refused, if it was."""
        async with asyncio.timeout(ANSWER_S):
            message = await self._came.get()
        refused = ""
        try:
            self.keeper.take(message.topic, message.payload)
        except ListRefusedError as error:
            refused = str(error)
        if message.topic == NOW:
            self.manifests.append(message.payload)
        await self._ask()
        return refused

    async def hear_manifest(self) -> str:
        """Up to the next manifest of the hot list, however it is received."""
        seen = len(self.manifests)
        while True:
            refused = await self.hear()
            if len(self.manifests) > seen:
                return refused

    async def until_holds(self, version: int) -> None:
        while self.hot.version != version:
            await self.hear()

    async def report(self) -> Processing:
        """Its status, over its own topic up."""
        holdings = Holdings()
        await fetch_parameters(self.device, holdings)
        holdings.more = self.keeper.status()
        processing: Processing = (await upload_status(self.device, holdings)).processing
        return processing


async def validator(mqtt: MqttTown, public: bytes) -> Validator:
    """One that has signed on and holds nothing."""
    terminal = mqtt.town.new_bus()
    device = mqtt.device(terminal)
    await device.sign_on()
    return Validator(device, ListKeeper(terminal.terminal_id, {1: public}, "5411"))


async def test_validators_hold_what_was_published_then_what_changed_and_in_stages_and_their_status_is_its_coverage(
    mqtt: MqttTown, public: bytes
) -> None:
    first = publish(mqtt, add=CARDS)
    one, other = [await validator(mqtt, public) for _ in range(2)]
    async with one.listening(mqtt), other.listening(mqtt):
        for each in (one, other):
            await each.until_holds(first)
            assert each.keeper.hot_list() == asns(CARDS)
            assert await each.report() != Processing.FETCH_HOT_LIST
        status = status_of(mqtt)
        assert (status["held"], status["reached"], status["coverage_pct_now"]) == (2, 2, 100.0)

        second = publish(mqtt, add=range(5_000, 5_001), remove=range(2))
        listed = asns(range(2, 2_003), range(5_000, 5_001))
        for each in (one, other):
            await each.until_holds(second)
            assert each.keeper.hot_list() == listed
            assert {topic for topic in each.asked if f"/hot/{second}/" in topic} == {
                f"ccs/v1/list/hot/{second}/I{first}/1"
            }

        mqtt.town.run("lists", "group", "pilot", "--add", one.device.pos.terminal.terminal_id)
        third = publish(mqtt, range(6_000, 6_001), range(0), "--stages", "pilot,100", "--soak", "86400")
        await one.until_holds(third)
        await other.hear_manifest()
        assert (other.hot.version, other.hot.wanted, other.keeper.hot_list()) == (second, None, listed)
        assert (await one.report(), await other.report()) == (Processing.NONE, Processing.NONE)
        status = status_of(mqtt)
        assert (status["state"], status["held"], status["reached"]) == ("RUNNING", 1, 1)
        mqtt.town.run("lists", "rollout", "hot")
        await other.until_holds(third)
        assert other.keeper.hot_list() == listed | asns(range(6_000, 6_001))
    for each in (one, other):
        each.device.close()


async def test_old_and_false_lists_change_nothing_and_a_broker_that_forgot_everything_is_told_it_again(
    mqtt: MqttTown, public: bytes
) -> None:
    before = publish(mqtt, add=range(7_000, 7_002))
    knowing, new = [await validator(mqtt, public) for _ in range(2)]
    async with knowing.listening(mqtt):
        await knowing.until_holds(before)
        old = knowing.manifests[-1]
        version = publish(mqtt, add=range(7_002, 7_003))
        await knowing.until_holds(version)
        held, serial = knowing.keeper.hot_list(), knowing.hot.serial

        # Somebody has got hold of the switch's own password at the broker.
        target, _ = make_target("HOT", version + 1, hot(range(3)), {})
        line = LineTerms("127.0.0.1", mqtt.broker.port, "thief", SWITCH_USER, SWITCH_PASSWORD)
        async with publishing(line) as thief:
            await thief.publish(NOW, signed("HOT", serial + 1, [target]), retain=True)
            assert await knowing.hear_manifest() == "manifest: the signature is wrong"
            assert (knowing.hot.serial, knowing.keeper.hot_list()) == (serial, held)
            assert knowing.keeper.status()["36"] == "11"
            await knowing.report()
            assert status_of(mqtt)["refused"] == 1
            await thief.publish(NOW, old, retain=True)
            assert await knowing.hear_manifest() == ""
            assert (knowing.hot.serial, knowing.hot.wanted, knowing.keeper.hot_list()) == (serial, None, held)
        async with new.listening(mqtt):  # it has seen nothing newer; but what it is told of is gone
            await new.hear_manifest()
            assert new.hot.version == 0
            assert new.hot.wanted is not None
            assert new.hot.wanted.version == before

    mqtt.broker.kill()
    mqtt.broker.start()
    async with knowing.listening(mqtt), new.listening(mqtt):
        await new.until_holds(version)
        assert new.keeper.hot_list() == held
        await knowing.hear_manifest()
        assert (knowing.hot.serial, knowing.hot.refusal, knowing.keeper.hot_list()) == (serial, "", held)
        assert "36" not in knowing.keeper.status()
    for each in (knowing, new):
        each.device.close()
