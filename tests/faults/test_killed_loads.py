"""kill -9 of a switch at every point of a load: the next one tells what was booked, and card, kiosk and books agree at the end."""

import asyncio
import contextlib

import psycopg
import pytest

from terminal_sim import crypto
from terminal_sim.card import PurseCard
from terminal_sim.frames import CardData
from terminal_sim.kiosk import From, Kiosk
from terminal_sim.pos_answers import Request
from tests.helpers.switch_process import SwitchProcess
from tests.helpers.till import LineClosedError, Seen, Till, check_books, stored
from tests.helpers.town import KEY_INDEX, OPENING_FEN, PSAM_OF_KIOSKS, Town, chip_of

pytestmark = [pytest.mark.server, pytest.mark.slow]

SM4 = KEY_INDEX[crypto.Algorithm.SM4]
CONFIRMED, REVERSED = 2, 3
LOAD_FEN = 1_000


@pytest.fixture(scope="module")
def keeper(town: Town) -> SwitchProcess:
    """The process that lives."""
    return town.serve()


class Story:
    """One card at one kiosk, on a line to the switch that lives."""

    def __init__(self, town: Town, keeper: SwitchProcess) -> None:
        self.town = town
        self.seen = Seen()
        self.till = Till(town.new_kiosk(), self.seen, keeper.line)
        self.kiosk = Kiosk(self.till.terminal, PSAM_OF_KIOSKS)
        self.till.pos = self.kiosk
        self.card: CardData = town.new_card("loaded")
        self.chip: PurseCard = chip_of(self.card.pan)

    async def ask_who_dies(self, request: Request, point: str) -> None:
        """Put it to a switch that dies at a point of it."""
        doomed = await asyncio.to_thread(self.town.serve_beside, point)
        with contextlib.suppress(LineClosedError, OSError):
            await self.till.ask(request, doomed.line)
        assert await asyncio.to_thread(doomed.wait) == -9
        self.town.processes.remove(doomed)

    def load(self) -> Request:
        start = self.kiosk.initialize(self.chip, LOAD_FEN, SM4)
        return self.kiosk.load(self.card, LOAD_FEN, From.ONLINE, start)

    def believed(self) -> tuple[int, int, int, list[int]]:
        """Shadow balance, its counter, online account, states of the loads."""
        with psycopg.connect(self.town.database_url) as connection:
            row = connection.execute(
                "SELECT p.balance_fen, p.online_atc, a.balance_fen,"
                " (SELECT coalesce(array_agg(state ORDER BY authorised_at), '{}') FROM purse_load l WHERE l.card_no = r.card_no)"
                " FROM card_route r JOIN purse p ON p.card_no = r.card_no JOIN account a ON a.holder_id = r.holder_id"
                " WHERE r.pan = %s",
                [self.card.pan],
            ).fetchone()
        assert row is not None
        return row


@pytest.mark.parametrize("point", ["load decided", "load committed"])
async def test_a_load_and_its_confirm_whose_answers_died_are_told_the_same_by_the_next(
    town: Town, keeper: SwitchProcess, point: str
) -> None:
    story = Story(town, keeper)
    till, kiosk = await story.till.sign_on(), story.kiosk
    request = story.load()
    await story.ask_who_dies(request, point)
    if point == "load committed":
        assert story.believed() == (LOAD_FEN, 0, OPENING_FEN - LOAD_FEN, [1])
    answer = await till.ask(request)
    again = await till.ask(request)
    assert answer.fields[39] == "00"
    assert (stored(again), again.fields[55]) == (stored(answer), answer.fields[55])
    status, tac = kiosk.credit(story.chip, answer)
    assert (status, story.chip.balance_fen) == (0x9000, LOAD_FEN)
    confirm = kiosk.confirm(request, answer, status, tac)
    await story.ask_who_dies(confirm, point)
    told = await till.ask(confirm)
    assert (told.fields[39], told.fields[37]) == ("00", answer.fields[37])
    assert story.believed() == (LOAD_FEN, 1, OPENING_FEN - LOAD_FEN, [CONFIRMED])
    check_books(town.database_url, [story.seen])


@pytest.mark.parametrize("point", ["load decided", "load committed"])
async def test_a_reversal_whose_answer_died_undoes_once_and_the_load_may_not_come_back(
    town: Town, keeper: SwitchProcess, point: str
) -> None:
    story = Story(town, keeper)
    till, kiosk = await story.till.sign_on(), story.kiosk
    request = story.load()
    await story.ask_who_dies(request, point)
    owed = kiosk.give_up(request)
    assert owed is not None
    if point == "load decided":  # nothing was booked, so there is a tombstone
        assert [await till.code(owed), await till.code(request)] == ["25", "22"]
        assert story.believed() == (0, 0, OPENING_FEN, [])
    else:
        await story.ask_who_dies(owed, point)
        assert [await till.code(owed), await till.code(owed)] == ["00", "00"]
        assert story.believed() == (0, 0, OPENING_FEN, [REVERSED])
    second = story.load()
    answer = await till.ask(second)
    status, tac = kiosk.credit(story.chip, answer)
    assert await till.code(kiosk.confirm(second, answer, status, tac)) == "00"
    assert story.believed()[:2] == (story.chip.balance_fen, story.chip.online_atc) == (LOAD_FEN, 1)
    check_books(town.database_url, [story.seen])
