"""The stand-alone checker: no changed byte passes, whatever comes is a fault, and nothing ever escapes."""

from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from switch.clearing.layouts import LAYOUTS
from switch.clearing.lint import lint_file
from tests.helpers.clearing_samples import file_of, values_of

FILES = {kind: file_of(kind, values_of(kind, 1)) for kind in LAYOUTS}


@pytest.mark.parametrize("kind", list(LAYOUTS))
def test_every_byte_changed_by_one_bit_or_removed_is_noticed(kind: str, tmp_path: Path) -> None:
    name, content = FILES[kind]
    path = tmp_path / name
    for at in range(len(content)):
        path.write_bytes(content[:at] + bytes([content[at] ^ (1 << at % 8)]) + content[at + 1 :])
        assert not lint_file(path, most=1).good, at
    for at in range(0, len(content), 7):
        path.write_bytes(content[:at] + content[at + 1 :])
        assert not lint_file(path, most=1).good, at


@settings(max_examples=200, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    kind=st.sampled_from(list(LAYOUTS)),
    keep=st.integers(0, 600),
    noise=st.binary(max_size=300),
    rest=st.integers(0, 600),
)
def test_noise_is_a_fault_and_nothing_escapes(
    kind: str, keep: int, noise: bytes, rest: int, tmp_path: Path
) -> None:
    name, content = FILES[kind]
    spoilt = content[:keep] + noise + content[rest:]
    (tmp_path / name).write_bytes(spoilt)
    assert lint_file(tmp_path / name).good is (spoilt == content)
