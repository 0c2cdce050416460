"""The keys of a link: a pair that changes together, at the first MAC by which the partner proves it has the new one."""

import pytest

from switch.domain.errors import InputRefused, MacMismatch
from switch.domain.identifiers import CardNumber
from switch.domain.transactions import PinFormat
from switch.keys.ceremony import Custodian, zone_spec
from switch.keys.opening import activate_proved
from switch.keys.records import KeyMissingError, KeyState
from switch.keys.zone import Generation, ZoneKeys
from terminal_sim.crypto import Algorithm, terminal_mac, unwrap_working_keys
from terminal_sim.crypto import pin_block as sealed_pin
from tests.helpers.hosts import BANK, OPERATORS, SECRETS, zone_vault
from tests.unit.keys.helpers import vector_vault
from tests.unit.keys.test_vault import TERMINAL_OF, pin_block

MAB = b"0210 what the host says"
CARD = CardNumber("6228480123456789006")


@pytest.fixture
def store_and_vault(tmp_path):
    vault, store = zone_vault(tmp_path)
    return store, vault


def rotate(store, vault, algorithm):
    """Draw the next ZAK and ZPK; they wait."""
    custodian = Custodian(vault, store)
    for kind in ("ZAK", "ZPK"):
        custodian.rotate(f"{kind}/{algorithm}/v1/{BANK}", OPERATORS)


def clear_of(keys, algorithm):
    """The new keys as the partner unwraps them, with its own cryptography."""
    secrets = SECRETS[algorithm]
    return unwrap_working_keys(secrets.algorithm, secrets.zmk, keys.key_change())


@pytest.mark.parametrize("algorithm", SECRETS)
def test_both_sides_make_the_same_macs(store_and_vault, algorithm):
    secrets = SECRETS[algorithm]
    keys = ZoneKeys(store_and_vault[1], BANK, secrets.mac_id)
    theirs = terminal_mac(secrets.mac_id, secrets.zak)
    assert keys.mac(MAB) == theirs.field64(MAB)
    assert keys.verify(MAB, theirs.field64(MAB)) is None
    for mac in (bytes(8), b"", keys.mac(MAB + b" ")):
        with pytest.raises(MacMismatch):
            keys.verify(MAB, mac)
    assert keys.key_change() is None
    assert keys.pin_key == (
        f"ZPK/{algorithm}/v1/{BANK}",
        PinFormat.ISO_0 if algorithm == "3DES" else PinFormat.SM4_PAN,
    )


@pytest.mark.parametrize("algorithm", SECRETS)
def test_new_keys_travel_under_the_zmk_and_serve_from_the_first_good_mac(store_and_vault, algorithm):
    store, vault = store_and_vault
    secrets = SECRETS[algorithm]
    proved: list[Generation] = []
    rotate(store, vault, algorithm)
    keys = ZoneKeys(vault, BANK, secrets.mac_id, proved.append)
    old = keys.mac(MAB)
    theirs = clear_of(keys, algorithm)
    new_mac = terminal_mac(secrets.mac_id, theirs.mac).field64(MAB)
    assert new_mac != old
    assert keys.mac(MAB) == old  # until it is proved, we go on with what both have
    assert proved == []
    for _ in range(3):
        keys.verify(MAB, new_mac)
    assert proved == [Generation(f"ZAK/{algorithm}/v2/{BANK}", f"ZPK/{algorithm}/v2/{BANK}")]

    vault.replace_records(activate_proved(vault, store, proved[0], BANK))
    keys.refresh()
    assert keys.mac(MAB) == new_mac
    assert keys.verify(MAB, old) is None  # answers to what was asked under the old keys
    assert keys.waiting is None
    assert keys.key_change() is None
    assert keys.pin_key[0] == f"ZPK/{algorithm}/v2/{BANK}"
    states = {record.name: record.state for record in store.load_all() if record.owner == BANK}
    assert states[f"ZAK/{algorithm}/v1/{BANK}"] is KeyState.VERIFY_ONLY
    assert states[f"ZPK/{algorithm}/v1/{BANK}"] is KeyState.VERIFY_ONLY
    logged = [entry for _, entry in store.load_log() if entry.action.startswith("proved")]
    assert {entry.operators for entry in logged} == {("switch", f"partner {BANK}")}


def test_keys_that_are_activated_twice_are_activated_once(store_and_vault):
    store, vault = store_and_vault
    rotate(store, vault, "SM4")
    names = [f"ZAK/SM4/v2/{BANK}", f"ZPK/SM4/v2/{BANK}"]
    first = activate_proved(vault, store, names, BANK)
    log = store.load_log()
    assert activate_proved(vault, store, names, BANK) == first
    assert store.load_log() == log


def test_a_pair_is_activated_as_a_whole_or_not_at_all(store_and_vault):
    store, vault = store_and_vault
    rotate(store, vault, "SM4")
    custodian = Custodian(vault, store)
    custodian.set_state(f"ZPK/SM4/v2/{BANK}", KeyState.RETIRED, OPERATORS)
    with pytest.raises(InputRefused, match="cannot become active"):
        custodian.activate_together([f"ZAK/SM4/v2/{BANK}", f"ZPK/SM4/v2/{BANK}"], OPERATORS)
    with pytest.raises(KeyMissingError):
        custodian.activate_together([f"ZAK/SM4/v9/{BANK}"], OPERATORS)
    with pytest.raises(InputRefused, match="dual control"):
        custodian.activate_together([f"ZAK/SM4/v2/{BANK}"], ("li wei",))
    states = {record.name: record.state for record in store.load_all()}
    assert states[f"ZAK/SM4/v2/{BANK}"] is KeyState.PRE_ACTIVE
    assert states[f"ZAK/SM4/v1/{BANK}"] is KeyState.ACTIVE


def test_one_half_of_a_pair_does_not_wait_alone(store_and_vault):
    store, vault = store_and_vault
    Custodian(vault, store).rotate(f"ZAK/SM4/v1/{BANK}", OPERATORS)
    assert ZoneKeys(vault, BANK, 5).waiting is None


def test_without_an_active_pair_there_is_no_link_and_without_a_zmk_no_change(store_and_vault):
    store, vault = store_and_vault
    with pytest.raises(KeyMissingError, match="no active ZAK"):
        ZoneKeys(vault, "01030000", 5)
    rotate(store, vault, "SM4")
    keys = ZoneKeys(vault, BANK, 5)
    Custodian(vault, store).set_state(f"ZMK/SM4/v1/{BANK}", KeyState.RETIRED, OPERATORS)
    with pytest.raises(KeyMissingError, match="ZMK"):
        keys.key_change()


def test_a_retired_key_checks_nothing_any_more(store_and_vault):
    store, vault = store_and_vault
    rotate(store, vault, "3DES")
    keys = ZoneKeys(vault, BANK, 3)
    old = keys.mac(MAB)
    vault.replace_records(activate_proved(vault, store, [f"ZAK/3DES/v2/{BANK}", f"ZPK/3DES/v2/{BANK}"], BANK))
    Custodian(vault, store).set_state(f"ZAK/3DES/v1/{BANK}", KeyState.RETIRED, OPERATORS)
    keys.refresh()
    with pytest.raises(MacMismatch):
        keys.verify(MAB, old)


@pytest.mark.parametrize("algorithm", SECRETS)
def test_a_terminals_pin_reaches_the_host_under_the_zone_pin_key(tmp_path, algorithm):
    vault, store = vector_vault(tmp_path)
    secrets = SECRETS[algorithm]
    for kind, clear in (("ZAK", secrets.zak), ("ZPK", secrets.zpk)):
        Custodian(vault, store).enter(zone_spec(kind, algorithm, 1, BANK), [clear, bytes(16)], OPERATORS)
    keys = ZoneKeys(vault, BANK, secrets.mac_id)
    for pin_format, terminal in TERMINAL_OF.items():
        session, block = pin_block(vault, terminal, "864209", pin_format, CARD)
        translated = vault.translate_pin(session, block, pin_format, CARD, *keys.pin_key)
        cipher = Algorithm.SM4 if algorithm == "SM4" else Algorithm.TRIPLE_DES
        assert translated == sealed_pin(cipher, secrets.zpk, "864209", CARD.reveal())


def test_keys_show_names_and_nothing_else(store_and_vault):
    store, vault = store_and_vault
    rotate(store, vault, "SM4")
    keys = ZoneKeys(vault, BANK, 5)
    clear = clear_of(keys, "SM4")
    shown = (repr(keys) + repr(keys.waiting) + repr(vault)).lower()
    assert not any(key.hex() in shown for key in (clear.mac, clear.pin, SECRETS["SM4"].zak))
