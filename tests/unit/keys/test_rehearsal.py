import json
import re
from pathlib import Path

import pytest

from switch.domain.errors import InputRefused
from switch.keys.ceremony import Custodian
from switch.keys.opening import create_vault
from switch.keys.primitives import Algorithm
from switch.keys.records import KeyState
from switch.keys.rehearsal import FORMAT, install_rehearsal_keys, read_rehearsal_file
from switch.keys.stores import JsonKeyStore
from tests.unit.keys.helpers import UNLOCK

ZERO, ROOT = "00" * 16, "9D9C28340E916865024D51F215B9A023"
REFERENCE = Path(__file__).parents[3] / "docs" / "keys.md"
ENTRY = {"type": "TMMK", "algorithm": "SM4", "components": [ROOT, ZERO]}


@pytest.fixture
def write(tmp_path):
    def write(*entries, **document):
        path = tmp_path / "rehearsal.json"
        path.write_text(json.dumps({"format": FORMAT, "keys": list(entries)} | document))
        return path

    return write


@pytest.fixture
def custodian(tmp_path):
    store = JsonKeyStore(tmp_path / "keys.json")
    return Custodian(create_vault(store, UNLOCK, rehearsal=True), store, dual_control=False)


def test_defaults_make_an_active_first_version_of_the_national_root(write, custodian):
    [(record, new)] = install_rehearsal_keys(custodian, read_rehearsal_file(write(ENTRY)), ())
    assert (record.name, record.state, record.key_index, new) == (
        "TMMK/SM4/v1/national",
        KeyState.ACTIVE,
        0x41,
        True,
    )


def test_every_field_can_be_said(write, custodian):
    entry = ENTRY | {
        "type": "DTK",
        "version": 3,
        "owner": "99993350FFFFFFFF",
        "level": "issuer",
        "index": 66,
        "state": "verify-only",
        "components": [ROOT],
    }
    [(record, _)] = install_rehearsal_keys(custodian, read_rehearsal_file(write(entry)), ())
    assert (record.name, record.state) == ("DTK/SM4/v3/99993350FFFFFFFF", KeyState.VERIFY_ONLY)


def test_a_file_can_be_read_twice_and_another_key_of_a_name_refuses_it_whole(write, custodian):
    install_rehearsal_keys(custodian, read_rehearsal_file(write(ENTRY)), ())
    assert [new for _, new in install_rehearsal_keys(custodian, read_rehearsal_file(write(ENTRY)), ())] == [
        False
    ]
    other = ENTRY | {"components": [ROOT, "01" * 16]}
    fresh = ENTRY | {"type": "DTK"}
    with pytest.raises(InputRefused, match="another key"):
        install_rehearsal_keys(custodian, read_rehearsal_file(write(fresh, other)), ())
    assert [new for _, new in install_rehearsal_keys(custodian, read_rehearsal_file(write(fresh)), ())] == [
        True
    ]


def test_two_versions_of_a_terminal_root_in_one_file_leave_one_active(write, custodian):
    second = ENTRY | {"version": 2, "components": [ROOT, "01" * 16]}
    outcome = install_rehearsal_keys(custodian, read_rehearsal_file(write(ENTRY, second)), ())
    assert all(new for _, new in outcome)
    states = {r.name: r.state for r in custodian._vault.records() if r.key_type == "TMMK"}
    assert states == {"TMMK/SM4/v1/national": KeyState.VERIFY_ONLY, "TMMK/SM4/v2/national": KeyState.ACTIVE}


@pytest.mark.parametrize(
    "change",
    [
        {"type": "XYZ"},
        {"type": "PVK", "algorithm": "SM3", "level": "local", "owner": "local"},
        {"algorithm": "AES"},
        {"components": []},
        {"components": "00"},
        {"components": [1]},
        {"components": ["00"]},
        {"components": [ROOT, ROOT]},
        {"kcv": "00000000"},
        {"state": "retired"},
        {"state": "odd"},
        {"version": 0},
        {"version": "1"},
        {"version": True},
        {"index": 256},
        {"level": "zone"},
        {"level": "odd"},
        {"owner": ""},
        {"value": ROOT},
    ],
)
def test_entries_that_break_a_rule_are_refused_without_repeating_a_key(write, change):
    with pytest.raises(InputRefused) as caught:
        read_rehearsal_file(write(ENTRY | {"type": "DTK"}, ENTRY | change))
    assert str(caught.value).startswith("key 2: ")
    assert ROOT not in str(caught.value)


def test_the_example_of_the_reference_is_right(tmp_path, custodian):
    example = re.search(r"```json\n(.*?)```", REFERENCE.read_text(), re.DOTALL)
    path = tmp_path / "example.json"
    path.write_text(example[1])
    records = [record for record, _ in install_rehearsal_keys(custodian, read_rehearsal_file(path), ())]
    assert [record.name for record in records] == [
        "TMMK/3DES/v1/national",
        "TMMK/SM4/v1/national",
        "DTK/SM4/v1/national",
    ]
    assert custodian._vault.terminal_kcv("33500003", Algorithm.SM4).hex().upper() == "CAF364C1"


def test_a_key_in_the_place_of_a_name_is_not_shown(write):
    wrong = {"type": "DPK", "algorithm": "SM4", "components": ["00" * 16], "AAAABBBBCCCCDDDD" * 2: 1}
    with pytest.raises(InputRefused, match="key 1: has a field that is none of") as caught:
        read_rehearsal_file(write(wrong))
    assert "AAAABBBB" not in str(caught.value)


def test_missing_fields_are_named(write):
    with pytest.raises(InputRefused, match="key 1: algorithm, components missing"):
        read_rehearsal_file(write({"type": "DTK"}))


def test_files_of_another_form_are_refused(write, tmp_path):
    for path in (
        write(ENTRY, format="other"),
        write(),
        write(keys=5),
        tmp_path / "none",
        write(ENTRY, ENTRY),
    ):
        with pytest.raises(InputRefused):
            read_rehearsal_file(path)
    (tmp_path / "broken").write_text('{"format": "' + ROOT)
    with pytest.raises(InputRefused) as caught:
        read_rehearsal_file(tmp_path / "broken")
    assert caught.value.__cause__ is None


def test_a_production_vault_takes_no_rehearsal_file(write, tmp_path):
    store = JsonKeyStore(tmp_path / "production.json")
    custodian = Custodian(create_vault(store, UNLOCK, rehearsal=False), store)
    with pytest.raises(InputRefused, match="not marked for rehearsal"):
        install_rehearsal_keys(custodian, read_rehearsal_file(write(ENTRY)), ("li", "wang"))


def test_entries_show_their_name_only(write):
    assert repr(read_rehearsal_file(write(ENTRY))) == "[RehearsalKey(TMMK/SM4/v1/national)]"
