"""A terminal fetches its master key over the line: what it gets, what a stranger gets, and that nobody's session ends by it."""

import asyncio
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from terminal_sim import crypto, sm2
from terminal_sim.frames import Terminal
from terminal_sim.pos import SIGN_ON_AGAIN
from tests.helpers.till import Seen, Till
from tests.helpers.town import MERCHANT
from tests.scenarios.conftest import Two

pytestmark = pytest.mark.server


@pytest.fixture
def centre_key(two: Two) -> bytes:
    """The key centre's public key, as `keys list` shows it."""
    listed: Any = json.loads(two.town.run("keys", "list", "--json"))
    return bytes.fromhex(
        next(key["public_key"] for key in listed["keys"] if key["name"] == "SM2/SM2/v1/local")
    )


Register = Callable[[Terminal, sm2.Pair | None], None]


@pytest.fixture
def register(two: Two, tmp_path: Path) -> Register:
    def imported(terminal: Terminal, pair: sm2.Pair | None) -> None:
        file = tmp_path / "terminals.json"
        record = {
            "terminal_id": terminal.terminal_id,
            "merchant_id": MERCHANT,
            "mac_algorithm": terminal.mac_id,
            "sm2_public_key": pair.public.hex().upper() if pair else None,
        }
        document = {"format": "citizen-card-registry", "version": 1, "terminals": [record]}
        file.write_text(json.dumps(document), encoding="utf-8")
        two.town.run("registry", "import", str(file))

    return imported


@pytest.mark.parametrize("mac_id", [1, 5])
async def test_a_terminal_without_a_key_fetches_it_confirms_it_signs_on_and_sells(
    two: Two, seen: Seen, register: Register, centre_key: bytes, mac_id: int
) -> None:
    known, pair = two.town.new_terminal(mac_id), sm2.draw()
    register(known, pair)
    blank = Terminal(known.terminal_id, known.merchant_id, bytes(16), mac_id)
    till = Till(blank, seen, two.one.line)
    answer = await till.ask(till.pos.master_key_download(pair.public))
    assert answer.fields[39] == "00"
    assert 64 not in answer.fields
    tmk = till.pos.open_master_key(answer.fields[62], pair, centre_key)
    assert tmk == known.tmk
    kcv = crypto.check_value(known.algorithm, tmk)
    again = await till.ask(till.pos.master_key_download(pair.public), two.other.line)  # by any process
    assert till.pos.open_master_key(again.fields[62], pair, centre_key) == tmk
    confirmed = await till.ask(till.pos.master_key_confirm(kcv))
    assert (confirmed.fields[39], confirmed.header[2] & 0x0F) == ("00", SIGN_ON_AGAIN)
    assert await till.code(till.pos.master_key_confirm(bytes(4))) == "A7"

    working = await Till(known, seen, two.one.line).sign_on()
    assert (await working.buy(two.town.new_card(), 100)).fields[39] == "00"


async def test_a_stranger_gets_nothing_he_can_read_and_ends_no_session(
    two: Two, seen: Seen, register: Register
) -> None:
    terminal, pair, his = two.town.new_terminal(), sm2.draw(), sm2.draw()
    register(terminal, pair)
    till = await Till(terminal, seen, two.one.line).sign_on()
    card = two.town.new_card()
    assert (await till.buy(card, 100)).fields[39] == "00"
    stranger = Till(terminal, Seen(), two.other.line)
    refused = await stranger.ask(stranger.pos.master_key_download(his.public))
    assert refused.fields[39] == "A7"
    assert 62 not in refused.fields
    off_curve = b"\x04" + bytes(64)
    assert await stranger.code(stranger.pos.master_key_download(off_curve)) == "A7"
    envelope = (await stranger.ask(stranger.pos.master_key_download(pair.public))).fields[62]
    with pytest.raises(sm2.Sm2Error):
        sm2.decrypt(his.private, envelope[1:114])
    assert terminal.tmk not in envelope
    kcv = crypto.check_value(terminal.algorithm, terminal.tmk)
    assert await stranger.code(stranger.pos.master_key_confirm(kcv)) == "00"  # a check value is no secret
    for line in (two.one.line, two.other.line):
        assert (await till.buy(card, 100, line)).fields[39] == "00"


async def test_a_terminal_without_a_registered_key_or_whose_key_was_taken_away_is_answered_40(
    two: Two, seen: Seen, register: Register
) -> None:
    terminal, pair = two.town.new_terminal(), sm2.draw()
    till = Till(terminal, seen, two.one.line)
    kcv = crypto.check_value(terminal.algorithm, terminal.tmk)
    assert await till.code(till.pos.master_key_download(pair.public)) == "40"
    assert await till.code(till.pos.master_key_confirm(kcv)) == "40"
    for key, code in ((pair, "00"), (None, "40")):
        register(terminal, key)
        async with asyncio.timeout(60):  # word of it takes its time to a process that knows the terminal
            while await till.code(till.pos.master_key_download(pair.public)) != code:
                await asyncio.sleep(0.05)


async def test_hundreds_of_requests_for_one_master_key_do_not_hold_up_a_till(
    two: Two, seen: Seen, register: Register
) -> None:
    terminal, pair = two.town.new_terminal(), sm2.draw()
    register(terminal, pair)
    asking = Till(terminal, Seen(), two.one.line)
    wire = await asking.wire()
    for _ in range(300):
        wire.send(asking.pos.pack(asking.pos.master_key_download(pair.public)))
    till = await Till(two.town.new_terminal(), seen, two.one.line).sign_on()
    assert (await till.buy(two.town.new_card(), 100)).fields[39] == "00"
    for _ in range(300):
        await wire.body()
