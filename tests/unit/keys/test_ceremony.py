import json

import pytest

from switch.domain.errors import ConfigurationError, InputRefused
from switch.keys.ceremony import NEXT_STATES, Custodian, check_value, combine, read_component, zone_spec
from switch.keys.opening import change_unlock, create_vault, open_stored_vault, reload
from switch.keys.primitives import Algorithm
from switch.keys.records import KEY_TYPES, KeyLevel, KeyMissingError, KeySpec, KeyState
from switch.keys.sealing import SealError, UnlockSecret
from switch.keys.stores import JsonKeyStore
from switch.keys.vault import VERIFIER_KEY
from tests.unit.keys.helpers import OPERATORS, UNLOCK, root_spec, split, vector_roots, vector_vault

DTK = root_spec("DTK", Algorithm.SM4)
COMPONENTS = [bytes(range(16)), bytes(range(16, 32)), bytes(range(100, 116))]


@pytest.fixture
def store(tmp_path):
    return JsonKeyStore(tmp_path / "keys.json")


@pytest.fixture
def vault(store):
    return create_vault(store, UNLOCK, rehearsal=False)


@pytest.fixture
def custodian(vault, store):
    return Custodian(vault, store)


def test_components_are_combined_and_the_check_value_is_that_of_the_result(vault, custodian):
    record = custodian.enter(DTK, COMPONENTS, OPERATORS)
    assert record.kcv == check_value("SM4", combine(COMPONENTS)) == vault.kcv(DTK.name)
    assert record.state is KeyState.ACTIVE
    assert record.valid_from is not None
    assert vault.has_issuer_key("DTK", bytes(8), 1, 4)


def test_combining_vector_roots_gives_their_check_values(tmp_path):
    vault, _ = vector_vault(tmp_path)
    for (kind, algorithm), clear in vector_roots().items():
        assert combine(split(clear)) == clear
        assert vault.kcv(root_spec(kind, algorithm).name) == check_value(algorithm.label, clear)


@pytest.mark.parametrize("operators", [(), ("li",), ("li", "li"), ("li", " LI "), ("li", "")])
def test_one_operator_alone_changes_nothing(custodian, store, operators):
    before = store.load_all()
    with pytest.raises(InputRefused, match="dual control"):
        custodian.enter(DTK, COMPONENTS, operators)
    with pytest.raises(InputRefused, match="dual control"):
        custodian.generate(DTK, operators)
    with pytest.raises(InputRefused, match="dual control"):
        custodian.set_state(VERIFIER_KEY, KeyState.RETIRED, operators)
    assert store.load_all() == before


@pytest.mark.parametrize(
    ("components", "rule"),
    [
        ([], "at least 2"),
        (COMPONENTS[:1], "at least 2"),
        ([COMPONENTS[0], b"short"], "16 bytes"),
        ([COMPONENTS[0], COMPONENTS[0]], "cancel out"),
    ],
)
def test_components_that_make_no_key_are_refused(custodian, components, rule):
    with pytest.raises(InputRefused, match=rule):
        custodian.enter(DTK, components, OPERATORS)


def test_another_check_value_than_expected_is_refused(custodian, store):
    with pytest.raises(InputRefused, match="check value"):
        custodian.enter(DTK, COMPONENTS, OPERATORS, expected_kcv=b"0000")
    assert all(record.name != DTK.name for record in store.load_all())


@pytest.mark.parametrize("text", ["", "00", "0" * 31, "G" * 32, "0" * 34])
def test_a_component_is_32_hex_digits_and_is_not_repeated_in_the_error(text):
    with pytest.raises(InputRefused) as caught:
        read_component(text)
    assert str(caught.value) == "a component must be 32 hex digits"
    assert read_component(" 00112233 44556677 8899AABB CCDDEEFF ")[1] == 0x11


def test_a_name_is_never_reused_not_even_after_the_key_was_destroyed(custodian):
    custodian.generate(DTK, OPERATORS)
    with pytest.raises(InputRefused, match="already"):
        custodian.enter(DTK, COMPONENTS, OPERATORS)
    custodian.set_state(DTK.name, KeyState.RETIRED, OPERATORS)
    with pytest.raises(InputRefused, match="already"):
        custodian.generate(DTK, OPERATORS)


@pytest.mark.parametrize(
    "spec",
    [
        DTK._replace(key_type="XYZ"),
        DTK._replace(algorithm="AES"),
        DTK._replace(algorithm="SM3"),
        DTK._replace(version=0),
        DTK._replace(version=256),
        DTK._replace(key_index=0),
        DTK._replace(owner=""),
        DTK._replace(owner="a/b"),
        DTK._replace(owner="other"),
        DTK._replace(level=KeyLevel.ZONE),
        DTK._replace(level=KeyLevel.ISSUER),
        DTK._replace(key_type="PVK"),
    ],
)
def test_specs_that_break_a_rule_are_refused(custodian, spec):
    with pytest.raises(InputRefused):
        custodian.enter(spec, COMPONENTS, OPERATORS)


def test_an_issuer_key_is_preferred_to_the_root(custodian, vault):
    issuer = "99993350FFFFFFFF"
    custodian.generate(DTK, OPERATORS)
    derived = vault._issuer_master("DTK", 4, 1, bytes.fromhex(issuer)).reveal()
    custodian.enter(KeySpec("DTK", "SM4", 1, issuer, KeyLevel.ISSUER, 0x41), COMPONENTS, OPERATORS)
    held = vault._issuer_master("DTK", 4, 1, bytes.fromhex(issuer)).reveal()
    assert held == combine(COMPONENTS) != derived
    assert vault._issuer_master("DTK", 4, 1, b"another!").reveal() not in (held, derived)


@pytest.mark.parametrize("before", list(KeyState))
@pytest.mark.parametrize("after", list(KeyState))
def test_a_key_moves_along_its_life_only(custodian, vault, before, after):
    state = KeyState.PRE_ACTIVE if before is KeyState.PRE_ACTIVE else KeyState.ACTIVE
    custodian.generate(DTK, OPERATORS, state=state)
    if before in (KeyState.VERIFY_ONLY, KeyState.RETIRED):
        custodian.set_state(DTK.name, before, OPERATORS)
    if after in NEXT_STATES[before]:
        assert custodian.set_state(DTK.name, after, OPERATORS).state is after
    else:
        with pytest.raises(InputRefused, match="cannot become"):
            custodian.set_state(DTK.name, after, OPERATORS)
    assert vault.damaged() == []


def test_retiring_destroys_the_key_bytes(custodian, store):
    custodian.generate(DTK, OPERATORS)
    custodian.set_state(DTK.name, KeyState.RETIRED, OPERATORS)
    record = next(record for record in store.load_all() if record.name == DTK.name)
    assert record.ciphertext == b""
    assert record.valid_to is not None


def test_rolling_over_a_card_key_keeps_the_old_version_active(custodian, vault):
    custodian.generate(DTK, OPERATORS)
    assert custodian.rotate(DTK.name, OPERATORS).state is KeyState.PRE_ACTIVE
    assert not vault.has_issuer_key("DTK", bytes(8), 2, 4)
    custodian.set_state("DTK/SM4/v2/national", KeyState.ACTIVE, OPERATORS)
    states = {record.name: record.state for record in vault.records() if record.key_type == "DTK"}
    assert states == {"DTK/SM4/v1/national": KeyState.ACTIVE, "DTK/SM4/v2/national": KeyState.ACTIVE}


def test_of_a_partners_keys_only_one_version_is_active(custodian, vault):
    custodian.generate(zone_spec("ZAK", "SM4", 1, "01020000"), OPERATORS)
    custodian.generate(zone_spec("ZAK", "SM4", 1, "01030000"), OPERATORS)
    rotated = custodian.rotate("ZAK/SM4/v1/01020000", OPERATORS, activate=True)
    states = {record.name: record.state for record in vault.records() if record.key_type == "ZAK"}
    assert states == {
        "ZAK/SM4/v1/01020000": KeyState.VERIFY_ONLY,
        rotated.name: KeyState.ACTIVE,
        "ZAK/SM4/v1/01030000": KeyState.ACTIVE,
    }
    mac = vault.zone_mac(rotated.name, 5, b"message")
    vault.verify_zone_mac(rotated.name, 5, b"message", mac)
    with pytest.raises(KeyMissingError, match="verify-only"):
        vault.zone_mac("ZAK/SM4/v1/01020000", 5, b"message")


def test_the_key_behind_the_pins_is_not_rotated(custodian):
    with pytest.raises(InputRefused, match="PIN"):
        custodian.rotate(VERIFIER_KEY, OPERATORS)


def test_partner_keys_travel_under_their_zmk(custodian, vault, store, tmp_path):
    custodian.enter(zone_spec("ZMK", "SM4", 1, "01020000"), COMPONENTS, OPERATORS)
    custodian.generate(zone_spec("ZPK", "SM4", 1, "01020000"), OPERATORS)
    wrapped = vault.wrap("ZPK/SM4/v1/01020000", "ZMK/SM4/v1/01020000")
    assert wrapped.kcv == vault.kcv("ZPK/SM4/v1/01020000")
    other_store = JsonKeyStore(tmp_path / "partner.json")
    partner = create_vault(other_store, UNLOCK, rehearsal=False)
    theirs = Custodian(partner, other_store)
    theirs.enter(zone_spec("ZMK", "SM4", 1, "01020000"), COMPONENTS, OPERATORS)
    spec = zone_spec("ZPK", "SM4", 1, "01020000")
    with pytest.raises(InputRefused, match="check value"):
        theirs.import_wrapped(spec, "ZMK/SM4/v1/01020000", wrapped.wrapped, b"0000", OPERATORS)
    theirs.import_wrapped(spec, "ZMK/SM4/v1/01020000", wrapped.wrapped, wrapped.kcv, OPERATORS)
    assert partner.kcv(spec.name) == wrapped.kcv
    with pytest.raises(KeyMissingError, match="not for this use"):
        vault.wrap("PVK/SM3/v1/local", "ZMK/SM4/v1/01020000")
    custodian.generate(zone_spec("ZPK", "SM4", 1, "01030000"), OPERATORS)
    with pytest.raises(KeyMissingError, match="another partner"):
        vault.wrap("ZPK/SM4/v1/01030000", "ZMK/SM4/v1/01020000")


def test_every_change_is_logged_with_its_operators(custodian, store):
    custodian.enter(DTK, COMPONENTS, OPERATORS)
    custodian.set_state(DTK.name, KeyState.VERIFY_ONLY, OPERATORS)
    custodian.set_state(DTK.name, KeyState.RETIRED, ("zhao", "qian"))
    log = [(entry.action, entry.operators) for _, entry in store.load_log() if entry.key_name == DTK.name]
    assert log == [
        ("registered from components: active", OPERATORS),
        ("maintained: verify-only", OPERATORS),
        ("destroyed: retired", ("zhao", "qian")),
    ]


def test_another_process_sees_a_change_after_reloading(custodian, store):
    other = open_stored_vault(store, UNLOCK, production=True)
    custodian.generate(DTK, OPERATORS)
    assert not other.has_issuer_key("DTK", bytes(8), 1, 4)
    reload(other, store)
    assert other.has_issuer_key("DTK", bytes(8), 1, 4)


def test_a_vault_is_not_made_twice_and_not_opened_by_another_secret(vault, store):
    with pytest.raises(InputRefused, match="vault already"):
        create_vault(store, UNLOCK, rehearsal=False)
    with pytest.raises(ConfigurationError, match="wrong passphrase"):
        open_stored_vault(
            store, UnlockSecret(b"another key file, again of 32 byte", "hkdf"), production=False
        )


def test_an_empty_store_has_no_vault(store):
    with pytest.raises(ConfigurationError, match="no vault"):
        open_stored_vault(store, UNLOCK, production=False)


def test_production_refuses_a_rehearsal_vault_and_the_mark_cannot_be_taken_off(store, tmp_path):
    create_vault(store, UNLOCK, rehearsal=True)
    with pytest.raises(ConfigurationError, match="rehearsal"):
        open_stored_vault(store, UNLOCK, production=True)
    path = tmp_path / "keys.json"
    content = json.loads(path.read_text())
    content["meta"]["mode"] = b"production".hex()
    path.write_text(json.dumps(content))
    with pytest.raises(ConfigurationError, match="altered"):
        open_stored_vault(store, UNLOCK, production=True)


def test_a_record_cannot_be_moved_to_another_name_or_state(custodian, vault, store, tmp_path):
    custodian.generate(DTK, OPERATORS)
    custodian.set_state(DTK.name, KeyState.VERIFY_ONLY, OPERATORS)
    path = tmp_path / "keys.json"
    content = json.loads(path.read_text())
    entry = next(entry for entry in content["keys"] if entry["name"] == DTK.name)
    entry["state"] = "active"
    path.write_text(json.dumps(content))
    altered = open_stored_vault(store, UNLOCK, production=True)
    assert altered.damaged() == [DTK.name]
    with pytest.raises(SealError):
        altered._issuer_master("DTK", 4, 1, bytes(8))


def test_the_passphrase_changes_without_touching_the_keys(vault, store):
    before = store.load_all()
    new = UnlockSecret.passphrase("quite another passphrase")
    change_unlock(store, UNLOCK, new)
    with pytest.raises(ConfigurationError, match="unlocked by a passphrase"):
        open_stored_vault(store, UNLOCK, production=True)
    assert open_stored_vault(store, new, production=True).damaged() == []
    assert store.load_all() == before


def test_dual_control_is_dropped_in_rehearsal_only(vault, store, tmp_path):
    with pytest.raises(InputRefused, match="dual control"):
        Custodian(vault, store, dual_control=False)
    other = JsonKeyStore(tmp_path / "rehearsal.json")
    Custodian(create_vault(other, UNLOCK, rehearsal=True), other, dual_control=False).generate(DTK, ())


def test_every_key_type_has_its_rule():
    for key_type, rule in KEY_TYPES.items():
        assert rule.levels, key_type
        assert rule.algorithms, key_type
