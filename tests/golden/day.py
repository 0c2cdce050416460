"""The order in which the golden frames are played, and what the operator and the terminals do in between.

The golden frames show form, not one day's business. So that each can be answered in its form by a switch that keeps the rules, they are not
played in the order of their numbers; each place where that matters says why. docs/golden_frames.md tells terminal makers the same.
"""

import json
from pathlib import Path
from typing import Final

from terminal_sim.frames import CardData
from terminal_sim.pos import Pos
from terminal_sim.pos_client import PosClient
from terminal_sim.pos_downloads import Holdings, fetch_hot_list, fetch_parameters, upload_status
from tests.golden.replay import Command, NotSeededError, Replay, golden_terminal
from tests.golden.requests import HERE, Told, seed, vectors

CARD: Final = CardData("3133500100000001239", "001")
PIN: Final = "123456"
PURSE_MAX_FEN: Final = 200_000  # as ISO-17 tells it
PURSE_MAX_OF_ISO_10_FEN: Final = 2_000_000
BOUGHT_BEFORE_FEN: Final = 1403  # the refund of ISO-07 gives a part of it back
FROZEN_BEFORE_FEN: Final = 3456  # between the ledger and the available balance of ISO-03
FIRST, RETAIL, SM4 = "33500001", "33500002", "33500003"

LISTED: Final = ("A,03133500100000045673,01,COUNTERFEIT", "A,03133500100000890128,00,COUNTERFEIT")
LISTED_LATER: Final = ("A,03133500190000000001,00,WRONG_STOCK",)

# Golden frames that are not played, each with its reason.
NOT_REPLAYED: Final[dict[str, str]] = {}


def seed_switch(run: Command) -> None:
    """What the operator does once, before the switch serves (keys) or while it does (all else)."""
    run("keys", "ceremony", "--rehearsal", str(HERE / "keys.json"))
    run("registry", "import", str(HERE / "seed.json"))
    run("routes", "import", str(HERE / "routes.csv"))
    run("parameters", "set", f"purse_balance_max_fen={PURSE_MAX_FEN}")


async def yesterday(replay: Replay) -> None:
    """What the terminals did before: their batch 000001, closed; so the first golden sign-on opens 000002, as its answer says.

    In it terminal 33500001 sold what ISO-07 refunds a part of, under the trace that it names, and froze what ISO-03 shows as not available. All have
    fetched their parameters and reported what they hold, so no answer asks for it.
    """
    for terminal_id in (FIRST, RETAIL, SM4):
        client = PosClient(Pos(golden_terminal(terminal_id), next_trace=4), replay.line)
        await client.sign_on()
        if client.pos.batch_no != 1:
            raise NotSeededError(
                f"terminal {terminal_id} is in batch {client.pos.batch_no}: begin with new books"
            )
        if terminal_id == FIRST:
            request = client.pos.purchase(CARD, BOUGHT_BEFORE_FEN, pin=PIN)
            answer = await client.exchange(request)
            if not answer.approved:
                raise NotSeededError(f"the purchase before the replay was answered {answer.code}")
            sold = answer.message._replace(fields=dict(answer.message.fields))
            replay.originals["000001", "000005"] = Told(sold, answer.message)
            frozen = await client.exchange(client.pos.pre_authorisation(CARD, FROZEN_BEFORE_FEN, pin=PIN))
            if not frozen.approved:
                raise NotSeededError(f"the hold before the replay was answered {frozen.code}")
        await bring_up_to_date(client)
        await client.settle()
        client.close()


async def today(replay: Replay, run: Command, folder: Path) -> None:
    """All groups, in an order that the rules of the text allow. folder: for files that the operator's commands read."""
    await accounts(replay)
    await loads(replay, run)
    await purse_and_settlement(replay)
    await other_macs(replay, run, folder)
    await downloads(replay, run, folder)
    await unbalanced(replay)
    replay.close()


async def accounts(replay: Replay) -> None:
    """Online and medical account, by terminal 33500001 in its batch 000002."""
    for name in ("ISO-01-SIGNON", "ISO-02-ECHO", "ISO-03-BALANCE", "ISO-04-PURCHASE"):
        await replay.play(name)
    await replay.lose("ISO-05-TIMEOUT")
    await replay.play_twice("ISO-05-REVERSAL", "ISO-05-REVERSAL-DUP")
    await replay.play("ISO-06-VOID")
    # ISO-07 carries the reference of the voided purchase and names one of batch 000001: here 37 is of what 61 names, as the text has it.
    await replay.play("ISO-07-REFUND")
    await replay.play("ISO-08-MEDICAL")
    await replay.play("ISO-12-PREAUTH")
    await replay.play("ISO-12-COMPLETE")
    # Numbered after the batch end, of whose batch they are: after it the answer would be 77.
    await replay.play("ISO-18-BADMAC")
    await replay.play("ISO-21-CASH")


async def loads(replay: Replay, run: Command) -> None:
    """Loads of the purse, in batch 000002."""
    # A wrong MAC1 comes first: the counter that a confirmed load has used up is refused with 34 where the counter is looked at first.
    for name in ("ISO-09-LOADBADMAC1", "ISO-09-LOAD", "ISO-09-LOADCONFIRM"):
        await replay.play(name)
    # ISO-10 loads far above the maximum that ISO-17 tells, which is answered 61: for its sake the maximum is another for a while.
    await set_purse_maximum(replay, run, PURSE_MAX_OF_ISO_10_FEN)
    await replay.play("ISO-10-CASHLOAD")
    await replay.play("ISO-10-LOADREV")
    await set_purse_maximum(replay, run, "inherit")
    await replay.play("ISO-11-NDLOAD")


async def purse_and_settlement(replay: Replay) -> None:
    """Offline records and the end of batch 000002."""
    await replay.play("ISO-13-OFFLINE")
    await replay.play("ISO-14-SETTLE")
    await replay.play("ISO-15-BATCHEND")


async def other_macs(replay: Replay, run: Command, folder: Path) -> None:
    """X9.19 and X9.9, SM4-CBC and the folded SM4 MAC: terminals 33500002 and 33500003, each with one algorithm after the other."""
    await sign_on_anew(replay, RETAIL)
    await replay.play("ISO-19-X919-PURCHASE")
    change_mac(run, folder, RETAIL, 2)
    await sign_on_anew(replay, RETAIL, 2)
    # No golden answer: it has the form of its neighbour's.
    await replay.play("ISO-19-X99-PURCHASE", answer="ISO-19-X919-PURCHASE", beside={11: "000024"})
    await replay.play("ISO-20-SM4-SIGNON")
    await replay.play("ISO-20-SM4-PURCHASE")
    change_mac(run, folder, SM4, 4)
    await sign_on_anew(replay, SM4, 4)
    await replay.play("ISO-20-SM4-CUPMAC", answer="ISO-20-SM4-PURCHASE", beside={11: "000027"})


async def downloads(replay: Replay, run: Command, folder: Path) -> None:
    """Hot list and parameters, then the sign-off. After the batch end, as the golden frames are numbered.

    The answer to ISO-17 asks for the hot list, which ISO-16 has just fetched: so a newer one is published in between.
    """
    publish(run, folder, LISTED)
    await replay.play("ISO-16-BLACKLIST")
    publish(run, folder, LISTED_LATER)
    await replay.play("ISO-17-PARAM")
    await replay.play("ISO-22-SIGNOFF")


async def unbalanced(replay: Replay) -> None:
    """The other golden answer to the settlement, in the next batch: the same online transactions, and neither records nor loads."""
    client = await sign_on_anew(replay, FIRST)
    await bring_up_to_date(client)
    client.close()
    for name in ("ISO-04-PURCHASE", "ISO-06-VOID", "ISO-07-REFUND", "ISO-12-PREAUTH", "ISO-12-COMPLETE"):
        await replay.play(name)
    await replay.play("ISO-14-SETTLE", answer="ISO-14-SETTLE-UNBAL")


# ---------------------------------------------------------------------- between the frames


async def bring_up_to_date(client: PosClient) -> None:
    """A terminal fetches parameters and hot list and says so, and is asked for nothing after that."""
    holdings = Holdings()
    await fetch_parameters(client, holdings)
    await fetch_hot_list(client, holdings)
    await upload_status(client, holdings)


def client_beside(replay: Replay, terminal_id: str) -> PosClient:
    """A client that shares a terminal's session. Its traces begin high, out of the golden ones' way, and go on from call to call."""
    sitting = replay.sittings[terminal_id]
    pos = Pos(sitting.terminal, batch_no=int(sitting.batch or 0), next_trace=next(replay.traces))
    pos.pin_pad, pos.must_sign_on = sitting.pin_pad, sitting.pin_pad is None
    return PosClient(pos, replay.line)


async def set_purse_maximum(replay: Replay, run: Command, maximum_fen: int | str) -> None:
    """The operator changes parameter 26 for terminal 33500001, which fetches it before an answer asks for that."""
    run("parameters", "set", f"purse_balance_max_fen={maximum_fen}", "--terminal", FIRST)
    client = client_beside(replay, FIRST)
    await bring_up_to_date(client)
    client.close()


async def sign_on_anew(replay: Replay, terminal_id: str, mac_id: int = 0) -> PosClient:
    """A sign-on that no golden frame shows. mac_id: another than before."""
    sitting = replay.sittings[terminal_id]
    if mac_id:
        sitting.terminal = golden_terminal(terminal_id, mac_id)
    client = client_beside(replay, terminal_id)
    await client.sign_on()
    sitting.pin_pad, sitting.batch = client.pos.pin_pad, f"{client.pos.batch_no:06d}"
    return client


def change_mac(run: Command, folder: Path, terminal_id: str, mac_id: int) -> None:
    """The operator gives a terminal another MAC algorithm, which ends its session."""
    document = {key: seed()[key] for key in ("format", "version")} | {
        "terminals": [{"terminal_id": terminal_id, "merchant_id": "993350054110001", "mac_algorithm": mac_id}]
    }
    file = folder / f"terminal-{terminal_id}-mac-{mac_id}.json"
    file.write_text(json.dumps(document), encoding="utf-8")
    run("registry", "import", str(file))


def publish(run: Command, folder: Path, lines: tuple[str, ...]) -> None:
    """The operator publishes the next version of the hot list."""
    file = folder / "hot-list.csv"
    file.write_text("\n".join(("operation,asn,level,reason", *lines, "")), encoding="utf-8")
    run("hotlist", "import", str(file))
    run("hotlist", "publish")


def not_accounted_for(replay: Replay) -> set[str]:
    """Golden frames that were neither played nor are listed as not played; and those that are listed and were played."""
    return vectors().keys() ^ (replay.played | NOT_REPLAYED.keys()) | (replay.played & NOT_REPLAYED.keys())
