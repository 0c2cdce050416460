"""docs/iso8583.md is what others build terminals from: its tables are the code's tables, its examples the golden frames."""

import re
from pathlib import Path

from switch.messages.catalogue import CATALOGUE
from switch.messages.structures import NETWORK_CODES, PARAMETERS, RESPONSES, TAGS, TRANSACTION_TYPES
from switch.messages.terminal_1987 import FIELDS
from tests.helpers.frames import golden

REFERENCE = (Path(__file__).parents[3] / "docs" / "iso8583.md").read_text("utf-8")


def rows(heading: str) -> list[list[str]]:
    """The cells of every table row between a heading and the next."""
    section = re.split(r"^##+ ", REFERENCE.split(f"# {heading}\n", 1)[1], maxsplit=1, flags=re.MULTILINE)[0]
    return [
        [cell.strip() for cell in line.strip("|").split("|")]
        for line in section.splitlines()
        if line[:2] == "| "
    ]


def blocks(heading: str) -> list[str]:
    section = re.split(r"^## ", REFERENCE.split(f"# {heading}\n", 1)[1], maxsplit=1, flags=re.MULTILINE)[0]
    return re.findall(r"```\n(.*?)```", section, flags=re.DOTALL)


def test_the_field_table_is_the_code_s() -> None:
    told = {row[0]: tuple(row[1:5]) for row in rows("3 Fields")[1:]}
    assert told == {
        str(number): (spec.name, spec.chinese, spec.kind.label, f"{'' if spec.fixed else '≤ '}{spec.size}")
        for number, spec in FIELDS.items()
    }


def test_the_tags_codes_and_parameters_are_the_code_s() -> None:
    tags = {row[0]: tuple(row[1:4]) for row in rows("4.6 Field 55") if row[0] in TAGS}
    assert tags == {tag: (str(spec.size), spec.name, spec.chinese) for tag, spec in TAGS.items()}
    parameters = {row[0]: tuple(row[1:4]) for row in rows("4.9 Field 62") if row[0] in PARAMETERS}
    assert parameters == {tag: (str(part.size), part.name, part.chinese) for tag, part in PARAMETERS.items()}
    codes = {row[0]: row[1] for row in rows("4.7 Field 60")}
    assert {code: codes[code] for code in NETWORK_CODES} == NETWORK_CODES
    assert {code: codes[code] for code in TRANSACTION_TYPES} == TRANSACTION_TYPES


def test_the_response_codes_are_the_code_s() -> None:
    assert {row[0]: tuple(row[1:3]) for row in rows("12 Response codes")[1:]} == RESPONSES


def test_every_row_of_the_catalogue_is_told() -> None:
    told = {(row[1][:4], row[2][:2], row[3], row[4]) for row in rows("5 Catalogue")}
    for row in CATALOGUE:
        if row.kind.name != "LOAD_CONFIRM":  # told as "as the load"
            assert (row.mti, row.code, row.condition, row.type) in told


def test_the_worked_frames_are_golden() -> None:
    for block, name in zip(
        blocks("13 Worked frames"), ("ISO-04-PURCHASE-REQ", "ISO-04-PURCHASE-RSP"), strict=True
    ):
        assert "".join(line.split()[0] for line in block.splitlines()) == golden()[name]["frame"]


def test_the_worked_macs_are_golden() -> None:
    first, second = blocks("9 MAC")
    mab = golden()["ISO-04-PURCHASE-REQ"]["mab"]
    assert "".join(first.split("X ")[0].split()) == mab.ljust(len(mab) + 12, "0")
    assert golden()["ISO-04-PURCHASE-REQ"]["field64"] in first
    assert "".join(second.split()) == golden()["ISO-20-SM4-PURCHASE-REQ"]["mab"]


def test_the_worked_keys_and_pin_blocks_are_golden() -> None:
    keys = golden()["ISO-01-SIGNON-RSP"]["fields"]["62"]
    (block,) = blocks("11 Keys")
    assert "".join("".join(line.split()[:2]) for line in block.splitlines()) == keys
    assert golden()["ISO-04-PURCHASE-REQ"]["fields"]["52"] in REFERENCE
    assert golden()["ISO-20-SM4-PURCHASE-REQ"]["fields"]["55"][6:] in REFERENCE
    assert golden()["ISO-20-SM4-PURCHASE-REQ"]["pin_block"] in REFERENCE
