"""What the documents promise to a stranger works as it is written there."""

import json
import re
from pathlib import Path
from typing import Any

import psycopg
import pytest

from switch.domain.identifiers import CardNumber
from switch.domain.transactions import Purchase, SignOn
from switch.keys.primitives import Algorithm
from switch.keys.software_vault import SoftwareVault
from switch.messages.codec import decode
from switch.messages.mapping import read_request
from switch.registry.import_format import KINDS
from switch.registry.sessions import SignOnResult, sign_on
from switch.registry.terminals import TerminalDirectory, TerminalEntry
from tests.unit.registry.helpers import open_day, run_import
from tests.unit.registry.test_sessions import pooled

DOCS = Path(__file__).parents[3] / "docs"
REGISTRY = (DOCS / "registry.md").read_text(encoding="utf-8")
JOINING = (DOCS / "joining.md").read_text(encoding="utf-8")


def _block(text: str, language: str) -> str:
    found = re.search(rf"```{language}\n(.*?)```", text, re.DOTALL)
    assert found is not None
    return found.group(1)


@pytest.fixture
def program() -> dict[str, Any]:
    names: dict[str, Any] = {"__name__": "first_purchase"}
    exec(compile(_block(JOINING, "python"), "first_purchase.py", "exec"), names)
    return names


@pytest.fixture
def documented_url(postgres_url: str, tmp_path: Path) -> str:
    path = tmp_path / "city.json"
    path.write_text(_block(REGISTRY, "json"), encoding="utf-8")
    with psycopg.connect(postgres_url, autocommit=True) as connection:
        open_day(connection)
        report = run_import(connection, path)
        assert report.kinds["cards"].created == 2
    return postgres_url


def test_every_kind_and_column_stands_in_the_reference() -> None:
    for kind in KINDS:
        section = REGISTRY.partition(f"\n### {kind.name}\n")[2].partition("\n### ")[0]
        table = section[section.index("|") :].partition("\n\n")[0]
        rows = " ".join(line.split("|")[1] for line in table.splitlines()).replace("*key*", "")
        listed = set(re.findall(r"[a-z][a-z0-9_]+", rows)) - {"column"}
        assert listed == {column.name for column in kind.columns}, kind.name
        for column in kind.columns:
            assert (f"**{column.name}**" in rows) == column.required, column.name


def test_the_specimen_keys_give_the_check_values_of_the_page(vault: SoftwareVault) -> None:
    keys = json.loads(_block(JOINING, "json"))["keys"]
    assert [key["components"][0] for key in keys] == [
        "A4D7E661662E98AEC9FA21FC69B456EF",
        "9D9C28340E916865024D51F215B9A023",
    ]
    assert vault.terminal_kcv("33500001", Algorithm.TDES).hex().upper() in JOINING
    assert vault.terminal_kcv("33500005", Algorithm.SM4).hex().upper() in JOINING


def test_the_program_reads_the_answers_of_a_switch(program: dict[str, Any]) -> None:
    vectors = json.loads((Path(__file__).parents[2] / "vectors" / "iso8583.json").read_text())["vectors"]
    for vector in vectors:
        if vector["id"] in ("ISO-01-SIGNON-RSP", "ISO-04-PURCHASE-RSP", "ISO-03-BALANCE-RSP"):
            fields = program["read"](bytes.fromhex(vector["frame"])[2:])
            assert set(map(str, fields)) - {"64"} == set(vector["fields"]) - {"64"}
            assert fields[39].decode() == vector["fields"]["39"]


@pytest.mark.server
async def test_the_program_signs_on_and_its_purchase_is_understood(
    documented_url: str, vault: SoftwareVault, program: dict[str, Any]
) -> None:
    request = read_request(decode(program["sign_on"]()[2:]))
    assert isinstance(request, SignOn)

    async def connect() -> psycopg.AsyncConnection[Any]:
        return await psycopg.AsyncConnection.connect(documented_url, autocommit=True)

    directory = TerminalDirectory(pooled(connect), vault)
    entry = await directory.load("33500001")
    assert isinstance(entry, TerminalEntry)
    connection = await connect()
    result = await sign_on(connection, vault, entry, request)
    await connection.close()
    assert isinstance(result, SignOnResult)
    answer = {60: bytes.fromhex(f"00{result.batch_no:06d}0030"), 62: result.field62}
    batch, mak = program["working_keys"](answer)
    assert batch == "000001"
    message = decode(program["purchase"](mak, batch, 1234)[2:])
    entry = await directory.reload("33500001")
    assert isinstance(entry, TerminalEntry)
    entry.key_sets[0].keys.verify(message.mab, message.field64)
    purchase = read_request(message)
    assert isinstance(purchase, Purchase)
    assert purchase.card == CardNumber("3133500100000001239")
    assert purchase.amount_fen == 1234
    await directory.close()
