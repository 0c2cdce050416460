"""A business day in which a bank, the fund and another city decided, on the wire, closed: the money is theirs, and the files say so."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from switch.clearing.files import check_file
from switch.clearing.layouts import Value
from switch.domain.transactions import AccountKind
from terminal_sim.host.script import read_script
from tests.helpers.banked import BANK, CITY, REGISTRY, Banked, banked, buy_and_undo, host_of, neighbour, rows
from tests.helpers.till import Seen, Till, check_books
from tests.helpers.town import Town

pytestmark = [pytest.mark.server, pytest.mark.slow]

OF_BANK, OF_FUND = AccountKind.BANK, AccountKind.MEDICAL
OWN = "99993350"


@pytest.fixture(scope="module")
def city(built_town: Town, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Banked]:
    limits = {
        "stand_in_amount_fen": 500,
        "stand_in_outstanding_fen": 4_000,
        "stand_in_outstanding_count": 12,
    }
    with banked(built_town.copy(tmp_path_factory.mktemp("routed-day")), **limits) as made:
        path = made.town.folder / "rates.json"
        rates = [{"account_kind": "BANK", "rate_ppm": 3_000, "valid_from": "2020-01-01"}]
        path.write_text(
            json.dumps({key: REGISTRY[key] for key in ("format", "version")} | {"fee_rules": rates})
        )
        made.town.run("registry", "import", str(path))
        yield made


async def shop(city: Banked, till: Till) -> None:
    """Everything that can become of a question, and of what was approved."""
    card, guest = city.town.new_card(), neighbour(11)
    assert await till.code(till.pos.purchase(card, 499, account=OF_BANK)) == "00", "stood in"
    async with host_of(city, "bank", [card], read_script("normal*4,silent")):
        await buy_and_undo(till, card)
        assert await till.code(till.pos.purchase(card, 800, account=OF_BANK)) == "68"
    async with host_of(city, "fund", [card]), host_of(city, "city", [guest]):
        assert await till.code(till.pos.purchase(card, 150, account=OF_FUND)) == "00"
        assert await till.code(till.pos.purchase(guest, 2_500)) == "00"


def files_of(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def lines_of(folder: Path, kind: str, receiver: str) -> list[dict[str, Value]]:
    (path,) = (one for one in folder.glob(f"{kind}????????{receiver}*") if not one.name.endswith(".ok"))
    lines: list[dict[str, Value]] = []
    with path.open("rb") as stream:
        check_file(path.name, stream, lambda _, values: lines.append(values))
    return lines


async def test_the_closed_day_is_owed_by_those_who_decided(city: Banked) -> None:
    seen = Seen()
    await shop(city, await Till(city.town.new_terminal(), seen, city.one.line).sign_on())
    check_books(city.town.database_url, [seen])
    city.town.run("close", "--yes")
    (folder,) = (city.town.data_dir / "clearing").glob("2*")
    whole = files_of(folder)

    bank = lines_of(folder, "CM", BANK)
    assert [(str(line["mti"]), int(line["amount"])) for line in bank] == [
        ("0200", 499),
        ("0200", 10_000),
        ("0200", 2_000),
        ("0200", 2_000),
        ("0200", 3_000),
        ("0220", 1_234),
        ("0200", 700),
        ("0400", 700),
    ]
    assert [int(line["amount"]) for line in lines_of(folder, "CM", CITY)] == [2_500]
    assert len(lines_of(folder, "CM", OWN)) == 10
    # 0.3 % of 4.99, 100.00 and 30.00, less 12.34, nearest fen each: 1, 30, 9, -4; of each seven tenths, cut towards zero.
    owed_fen, share_fen = 499 + 10_000 + 3_000 - 1_234, 0 + 21 + 6 - 2
    nets = {str(line["institution"]): int(line["net"]) for line in lines_of(folder, "NP", BANK)}
    assert nets[BANK] == -owed_fen + share_fen
    # Of 25.00 by the rule of online accounts, 0.6 %: 15 fen, of which the issuer has ten.
    assert nets[CITY] == -2_500 + 10
    assert dict(
        rows(city, "SELECT code, closing_fen FROM clearing_float WHERE code BETWEEN 1101 AND 1103")
    ) == {
        1101: owed_fen,
        1102: 2_500,
        1103: 150,
    }

    for path in folder.iterdir():
        path.unlink()
    city.town.run("close", "--yes", "--date", f"{folder.name[:4]}-{folder.name[4:6]}-{folder.name[6:]}")
    assert files_of(folder) == whole
