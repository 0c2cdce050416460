"""Import files full of noise: whatever stands in them becomes faults, never an exception, and never a quoted value."""

import json
from pathlib import Path
from typing import Any

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from switch.registry.import_files import FAULTS_MAX, Faults, Source, read_files
from switch.registry.import_format import BY_NAME, FORMAT, VERSION

ANY = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=5,
)
NAMES = st.sampled_from(sorted({column.name for kind in BY_NAME.values() for column in kind.columns}))
RECORD = st.dictionaries(
    NAMES | st.text(max_size=5), ANY | st.from_regex(r"[0-9]{4,20}", fullmatch=True), max_size=8
)
relaxed = settings(max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture])


def _read(path: Path) -> tuple[list[Any], Faults]:
    faults = Faults()
    rows = list(read_files([Source(path)], faults))
    assert len(faults.found) <= FAULTS_MAX
    return rows, faults


@relaxed
@given(st.binary(max_size=300))
def test_bytes(tmp_path: Path, noise: bytes) -> None:
    for name in ("cards.csv", "city.json"):
        (tmp_path / name).write_bytes(noise)
        rows, faults = _read(tmp_path / name)
        assert not rows
        assert faults.found


@relaxed
@given(st.dictionaries(st.sampled_from(sorted(BY_NAME)), st.lists(RECORD | ANY, max_size=4) | ANY))
def test_json_of_any_content(tmp_path: Path, document: dict[str, Any]) -> None:
    path = tmp_path / "city.json"
    path.write_text(json.dumps({"format": FORMAT, "version": VERSION} | document))
    rows, faults = _read(path)
    listed = sum(len(records) for records in document.values() if isinstance(records, list))
    refused = {fault.place for fault in faults.found if "[" in fault.place}
    assert (
        faults.more or len(rows) + len(refused) == listed
    )  # each item is a record or has a fault of its own


@relaxed
@given(st.lists(st.lists(st.text(max_size=12), min_size=1, max_size=4), max_size=5))
def test_csv_of_any_content(tmp_path: Path, cells: list[list[str]]) -> None:
    path = tmp_path / "terminals-7.csv"
    lines = ["terminal_id,merchant_id,mac_algorithm"] + [",".join(row) for row in cells]
    path.write_text("\r\n".join(lines), encoding="utf-8", errors="replace", newline="")
    _read(path)


def test_a_fault_does_not_quote_what_it_found(tmp_path: Path) -> None:
    path = tmp_path / "cards.csv"
    path.write_text("pan,valid_from,valid_through,pin\n3133500100000001230,secretday,2034-01-01,98x7\n")
    _, faults = _read(path)
    shown = " ".join(map(str, faults.found))
    assert len(faults.found) == 3
    assert not any(value in shown for value in ("3133500100000001230", "secretday", "98x7"))
