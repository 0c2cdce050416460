"""The reference in docs/ says of every line what the layouts say."""

import re
from pathlib import Path

import pytest

from switch.clearing.layouts import LAYOUTS, Form

REFERENCE = (Path(__file__).parents[3] / "docs" / "clearing_files.md").read_text(encoding="utf-8")


@pytest.mark.parametrize("kind", sorted(LAYOUTS))
def test_the_reference_gives_place_width_and_name_of_every_field(kind: str) -> None:
    layout = LAYOUTS[kind]
    section = next(
        part for part in REFERENCE.split("\n### ")[1:] if kind in re.split(r"[, ]+", part.split(":", 1)[0])
    )
    assert f", {layout.length} characters" in section.split("\n", 1)[0]
    rows = re.findall(r"^\| (\d+) \| (\d+) \| ([a-z ]*) \|", section, re.MULTILINE)
    expected = []
    at = 1
    for field in layout.fields:
        if not (kind == "CM" and field.form is Form.BLANK):
            expected.append((str(at), str(field.width), field.name.replace("_", " ")))
        at += field.width
    assert rows == expected
