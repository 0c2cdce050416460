"""Which bank card pays: the rule, and the directory of a serving process against a real PostgreSQL."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import psycopg
import pytest

from switch.domain.decisions import Decline
from switch.domain.identifiers import CardNumber
from switch.domain.money import Fen
from switch.keys.sealing import SealError
from switch.keys.software_vault import SoftwareVault
from switch.registry.bindings import Binding, BindingDirectory, account_of, binding_refusal
from switch.registry.cards import CardDirectory, CardRoute
from switch.registry.invalidation import RegistryListener
from tests.unit.registry.helpers import BANK, bank_card_of, binding, bound, pan_of, run_import, write
from tests.unit.registry.test_sessions import pooled

Connect = Callable[[], Awaitable[psycopg.AsyncConnection[Any]]]


def held(transaction_fen: int | None = None, day_fen: int | None = None) -> Binding:
    limits = [None if fen is None else Fen(fen) for fen in (transaction_fen, day_fen)]
    return Binding(1, BANK, "A-1", b"sealed", *limits)


#    binding          amount  refusal
RULES: list[tuple[Binding | None, int, Decline | None]] = [
    (None, 1, Decline.ACCOUNT_NOT_PERMITTED),
    (held(), 999_999_999_999, None),
    (held(100), 100, None),
    (held(100), 101, Decline.LIMIT_AMOUNT),
    (held(None, 100), 100, None),
    (held(None, 100), 101, Decline.LIMIT_AMOUNT),
    (held(100, 50), 51, Decline.LIMIT_AMOUNT),
    (held(0), 1, Decline.LIMIT_AMOUNT),
    (held(100), 0, None),
]  # fmt: skip


@pytest.mark.parametrize(("binding", "amount_fen", "refusal"), RULES)
def test_a_bound_account_pays_up_to_its_limits_and_an_unbound_one_nothing(
    binding: Binding | None, amount_fen: int, refusal: Decline | None
) -> None:
    assert binding_refusal(binding, Fen(amount_fen)) == refusal


def test_a_binding_shows_neither_number_nor_seal() -> None:
    assert repr(held()) == f"Binding(1, {BANK})"


@pytest.fixture
def bind(city_url: str, tmp_path: Path, vault: SoftwareVault) -> Callable[..., None]:
    def bring_in(*records: dict[str, Any]) -> None:
        with psycopg.connect(city_url, autocommit=True) as connection:
            run_import(connection, write(tmp_path, bound(*records)), numbers=lambda: vault)

    return bring_in


@pytest.fixture
async def directory(connect: Connect) -> AsyncIterator[BindingDirectory]:
    directory = BindingDirectory(pooled(connect), absent_s=60)
    yield directory
    await directory.close()


async def route_of(connect: Connect, serial: int) -> CardRoute:
    cards = CardDirectory(pooled(connect))
    number = CardNumber(pan_of(serial))
    route = (await cards.load([number]))[number]
    await cards.close()
    assert route is not None
    return route


@pytest.mark.server
async def test_the_default_active_binding_is_found_once_and_then_at_hand(
    connect: Connect, directory: BindingDirectory, bind: Callable[..., None], vault: SoftwareVault
) -> None:
    bind(
        binding(1, pan=pan_of(1), is_default=False),
        binding(2, pan=pan_of(1), transaction_limit_fen=70),
        binding(3, pan=pan_of(1), state="ENDED"),
        binding(4, pan=pan_of(2), is_default=False),
    )
    card, other, bare = [await route_of(connect, serial) for serial in (1, 2, 3)]
    assert directory.get(card) is None
    found = await directory.load(card)
    assert found is not None
    assert (found.institution_id, found.agreement_id, found.transaction_limit_fen) == (BANK, "A-2", 70)
    assert directory.get(card) is found
    assert account_of(vault, CardNumber(pan_of(1)), found) == CardNumber(bank_card_of(2))
    assert await directory.load(other) is None  # not its default
    assert await directory.load(bare) is None
    assert len(directory) == 1


@pytest.mark.server
async def test_a_binding_moved_to_another_card_by_hand_does_not_open_for_it(
    connect: Connect, directory: BindingDirectory, bind: Callable[..., None], vault: SoftwareVault
) -> None:
    bind(binding(1))
    found = await directory.load(await route_of(connect, 1))
    assert found is not None
    for card, moved in (
        (pan_of(2), found),
        (pan_of(1), found._replace(institution_id="01030000")),
        (pan_of(1), found._replace(agreement_id="A-2")),
    ):
        with pytest.raises(SealError):
            account_of(vault, CardNumber(card), moved)


@pytest.mark.server
async def test_a_change_in_another_process_is_seen_through_its_notice_and_others_keep_theirs(
    connect: Connect, directory: BindingDirectory, bind: Callable[..., None]
) -> None:
    bind(binding(1), binding(2))
    first, second, third = [await route_of(connect, serial) for serial in (1, 2, 3)]
    listener = RegistryListener(connect, [directory])
    listening = asyncio.create_task(listener.run())
    await listener.listening.wait()
    kept = await directory.load(second)
    assert await directory.load(first) is not None
    assert await directory.load(third) is None
    bind(binding(1, state="ENDED"), binding(3))
    async with asyncio.timeout(60):
        while directory.get(first) is not None or await directory.load(third) is None:
            await asyncio.sleep(0.02)
    assert await directory.load(first) is None
    assert directory.get(second) is kept  # only the cards that changed were read again
    listening.cancel()
    await asyncio.gather(listening, return_exceptions=True)


@pytest.mark.server
async def test_notices_of_others_forget_nothing_and_strange_ones_forget_all(
    connect: Connect, directory: BindingDirectory, bind: Callable[..., None]
) -> None:
    bind(binding(1))
    card = await route_of(connect, 1)
    for payload in ("terminal:33500001", "routes", "card", f"binding:{card.shard}:{card.card_no + 1}"):
        await directory.load(card)
        directory.notice(payload)
        assert directory.get(card) is not None, payload
    for payload in (
        "all",
        "bindings",
        f"binding:{card.shard}:{card.card_no}",
        "binding:x:1",
        "binding:1",
        "news",
    ):
        await directory.load(card)
        directory.notice(payload)
        assert directory.get(card) is None, payload
    directory.distrust()
    assert await directory.load(card) is not None
    assert directory.get(card) is None


@pytest.mark.server
async def test_the_directory_is_bounded(connect: Connect, bind: Callable[..., None]) -> None:
    bind(*(binding(n) for n in (1, 2, 3)))
    small = BindingDirectory(pooled(connect), capacity=2)
    for serial in (1, 2, 3):
        assert await small.load(await route_of(connect, serial)) is not None
        assert len(small) <= 2
    await small.close()
