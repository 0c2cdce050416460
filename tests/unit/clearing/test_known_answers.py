"""The suite `clearing`, byte for byte, and that a changed answer is noticed."""

import json
from pathlib import Path
from typing import Any

import pytest

from switch.operations.known_answers.run import run_document

DOCUMENT: dict[str, Any] = json.loads(
    (Path(__file__).parents[2] / "vectors" / "clearing.json").read_text(encoding="utf-8")
)


@pytest.mark.parametrize("verdict", list(run_document(DOCUMENT)), ids=lambda verdict: verdict.ident)
def test_known_answer(verdict: Any) -> None:
    assert verdict.faults == ()


def test_one_changed_value_fails_its_vector() -> None:
    for vector in DOCUMENT["vectors"]:
        for name, value in vector["out"].items():
            if name != "note":
                changed = {**vector, "out": {**vector["out"], name: [value]}}
                others = [other for other in DOCUMENT["vectors"] if other is not vector]
                verdicts = run_document({**DOCUMENT, "vectors": [changed, *others]})
                if vector["in"].get("type") == "XF" and name == "name":
                    continue  # others look it up by this name
                assert next(iter(verdicts)).faults, f"{vector['id']}: {name}"
