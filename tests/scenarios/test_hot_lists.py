"""The hot list over the wire, by two processes: full and increment, a publish in between, and who is asked to fetch it."""

import json
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path

import pytest

from switch.domain.calendar import SHANGHAI
from switch.messages.answers import Processing
from switch.messages.hot_list import read_block
from terminal_sim.lists import ListKeeper
from terminal_sim.pos import Pos
from terminal_sim.pos_client import PosClient
from terminal_sim.pos_downloads import Holdings, fetch_hot_list, fetch_parameters, upload_status
from tests.helpers.till import Seen, Till
from tests.helpers.town import Town
from tests.scenarios.conftest import Two, asked

pytestmark = pytest.mark.server


@pytest.fixture(scope="module")
def city(built_town: Town, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Two]:
    """A town of this module, whose list is nobody else's."""
    town = built_town.copy(tmp_path_factory.mktemp("listed"))
    one = town.serve()
    try:
        yield Two(town, one, town.serve_beside())
        town.run("audit")
    finally:
        town.stop_all()


def asn(number: int) -> str:
    return f"0313350019{number:010d}"


def publish(city: Two, add: range = range(0), remove: range = range(0)) -> int:
    """Through the command line; the new version."""
    lines = ["operation,asn,level,reason"]
    lines += [f"A,{asn(number)},01,COUNTERFEIT" for number in add]
    lines += [f"D,{asn(number)},," for number in remove]
    file: Path = city.town.folder / "list.csv"
    file.write_text("\n".join(lines) + "\n", encoding="utf-8")
    city.town.run("hotlist", "import", str(file))
    made: int = json.loads(city.town.run("hotlist", "publish", "--json"))["published"]["version"]
    return made


async def test_terminals_are_asked_for_a_new_list_fetch_it_whole_then_what_changed_and_are_left_alone(
    city: Two,
) -> None:
    client, holdings = PosClient(Pos(city.town.new_terminal()), city.one.line), Holdings()
    await fetch_parameters(client, holdings)
    assert (await upload_status(client, holdings)).processing == Processing.NONE
    first = publish(city, add=range(81))
    card = city.town.new_card()
    for line in (city.other.line, city.one.line):
        client.close()
        client.line = line
        assert await asked(client, card) == Processing.FETCH_HOT_LIST
        assert (await client.balance(card)).processing == Processing.NONE  # asked, and not pressed
    blocks = await fetch_hot_list(client, holdings)
    assert [(block.mode, len(block.entries)) for block in blocks] == [("F", 40), ("F", 40), ("F", 1)]
    assert holdings.hot_list == {asn(number): 1 for number in range(81)}
    assert holdings.hot_list_version == first
    assert (await upload_status(client, holdings)).processing == Processing.NONE

    second = publish(city, add=range(100, 141), remove=range(5))
    assert await asked(client, card) == Processing.FETCH_HOT_LIST
    blocks = await fetch_hot_list(client, holdings)
    assert [(block.mode, block.base, len(block.entries)) for block in blocks] == [
        ("I", first, 40),
        ("I", first, 6),
    ]
    assert holdings.hot_list == {asn(number): 1 for number in (*range(5, 81), *range(100, 141))}
    assert holdings.hot_list_version == second
    assert (await upload_status(client, holdings)).processing == Processing.NONE
    holdings.hot_list_version = first  # it lost the new one
    assert (await upload_status(client, holdings)).processing == Processing.FETCH_HOT_LIST
    status = json.loads(city.town.run("terminals", "status", client.pos.terminal.terminal_id, "--json"))
    assert status["terminals"][0]["differences"] == [
        {"name": "hot_list_version", "reported": str(first), "wanted": str(second)}
    ]
    client.close()


async def test_a_list_published_in_between_does_not_mix_with_the_one_being_fetched(city: Two) -> None:
    seen = Seen()
    publish(city, add=range(1_000, 1_100))
    till = await Till(city.town.new_terminal(), seen, city.one.line).sign_on()

    async def block(number: int, process: int) -> bytes:
        line = (city.one, city.other)[process].line
        request = till.pos.management("390", field62=f"F{0:08d}{number:04d}".encode())
        answer = await till.ask(request, line)
        assert answer.fields[39] == "00"
        field62: bytes = answer.fields[62]
        return field62

    first = read_block(await block(1, 0))
    newer = publish(city, remove=range(1_000, 1_100))
    second = read_block(await block(2, 1))  # by a process that never saw the beginning
    assert second.version == first.version == newer - 1
    assert await block(2, 0) == await block(2, 1)
    assert read_block(await block(1, 1)).version == newer
    assert read_block(await block(2, 0)).version == newer
    assert not seen.approvals


async def test_requests_without_form_or_beginning_are_refused_and_a_trainee_fetches_too(city: Two) -> None:
    till = await Till(city.town.new_terminal(), Seen(), city.one.line).sign_on()
    for field62, code in [
        (b"F000000000002", "12"),
        (b"F000000000000", "30"),
        (b"X000000000001", "30"),
        (b"F00000000001", "30"),
        (b"F00000000000A", "30"),
    ]:
        assert await till.code(till.pos.management("390", field62=field62)) == code
    assert await till.code(till.pos.management("391")) == "00"  # of nothing
    trainee = await Till(city.town.new_terminal(training=True), Seen(), city.one.line).sign_on()
    answer = await trainee.ask(trainee.pos.management("390", field62=b"F000000000001"))
    assert read_block(answer.fields[62]).block_no == 1


async def test_terminals_that_fetch_all_at_once_do_not_hold_up_a_till(city: Two) -> None:
    seen = Seen()
    asking = await Till(city.town.new_terminal(), seen, city.one.line).sign_on()
    assert await asking.code(asking.pos.management("391")) == "00"  # its keys are in force
    wire = await asking.wire()
    for _ in range(400):
        wire.send(asking.pos.pack(asking.pos.management("390", field62=b"F000000000001")))
    till = await Till(city.town.new_terminal(), seen, city.one.line).sign_on()
    assert (await till.buy(city.town.new_card(), 100)).fields[39] == "00"
    for _ in range(400):
        await wire.body()


async def test_a_staged_list_is_given_by_every_process_to_whom_it_is_meant_for_over_the_line_and_by_topic(
    city: Two,
) -> None:
    terminals = [city.town.new_terminal() for _ in range(2)]
    clients = [
        PosClient(Pos(terminal), line)
        for terminal, line in zip(terminals, (city.one.line, city.other.line), strict=True)
    ]
    held = [Holdings(), Holdings()]
    for client, holdings in zip(clients, held, strict=True):
        await fetch_parameters(client, holdings)
        await fetch_hot_list(client, holdings)
        await upload_status(client, holdings)
    before = held[0].hot_list_version
    pilot = terminals[0].terminal_id
    city.town.run("lists", "group", "pilot", "--add", pilot)
    file: Path = city.town.folder / "list.csv"
    file.write_text(f"operation,asn,level,reason\nA,{asn(7_000)},00,COUNTERFEIT\n", encoding="utf-8")
    city.town.run("hotlist", "import", str(file))
    published = city.town.run("lists", "publish", "hot", "--stages", "pilot,100", "--soak", "86400", "--json")
    staged: int = json.loads(published)["published"]
    assert staged == before + 1

    assert await asked(clients[0], city.town.new_card()) == Processing.FETCH_HOT_LIST
    assert (await clients[1].balance(city.town.new_card())).processing == Processing.NONE
    clients[0].line, clients[1].line = clients[1].line, clients[0].line
    for client in clients:
        client.close()
    for client, holdings in zip(clients, held, strict=True):
        await fetch_hot_list(client, holdings)
    assert [holdings.hot_list_version for holdings in held] == [staged, before]
    assert [asn(7_000) in holdings.hot_list for holdings in held] == [True, False]

    keys = json.loads(city.town.run("keys", "list", "--json"))["keys"]
    public = next(bytes.fromhex(key["public_key"]) for key in keys if key["name"] == "LSK/SM2/v1/local")
    folder = city.town.folder / "topics"
    city.town.run("lists", "export", str(folder))
    keepers = [ListKeeper(terminal.terminal_id, {1: public}, "5411") for terminal in terminals]
    for keeper in keepers:
        for _ in range(2):  # the manifests, then the blocks
            for topic in keeper.wanted_topics():
                if (folder / topic).exists():
                    keeper.take(topic, (folder / topic).read_bytes())
    for keeper, holdings in zip(keepers, held, strict=True):
        assert (keeper.lists["hot"].version, keeper.hot_list()) == (
            holdings.hot_list_version,
            holdings.hot_list,
        )
        said = keeper.status()
        del said["31"]  # from here on the line brings its hot lists
        holdings.more = said | {"35": f"{datetime.now(SHANGHAI):%Y%m%d%H%M%S}"}

    # The report that a terminal sends by any channel; what it cannot use stops the list for all others.
    city.town.run("lists", "stop", "hot", "--reason", "a gate rejects cards")
    for client, holdings in zip(clients, held, strict=True):
        assert (await upload_status(client, holdings)).processing == Processing.NONE
    (status,) = json.loads(city.town.run("lists", "status", "hot", "--json"))["lists"]
    assert (status["state"], status["held"], status["reached"], status["fetched"]) == ("STOPPED", 1, 1, 1)
    back = json.loads(city.town.run("lists", "rollback", "hot", "--json"))["published"]
    for client, holdings in zip(clients, held, strict=True):
        assert (await upload_status(client, holdings)).processing == Processing.FETCH_HOT_LIST
        await fetch_hot_list(client, holdings)
        assert (holdings.hot_list_version, asn(7_000) in holdings.hot_list) == (back, False)
        assert (await upload_status(client, holdings)).processing == Processing.NONE
        client.close()
    fleet = json.loads(city.town.run("fleet", "--json"))
    shown = {row["terminal_id"]: row for row in fleet["shown"]}
    for terminal in terminals:
        row = shown[terminal.terminal_id]
        assert (row["hot_held"], row["hot_behind"], row["parameters_current"]) == (back, 0, True)
        assert abs(row["skew_s"]) < 3_600
