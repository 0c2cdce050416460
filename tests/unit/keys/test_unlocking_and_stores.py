import os
import stat
from datetime import UTC, datetime
from types import SimpleNamespace

import psycopg
import pytest
from pydantic import SecretStr

from switch.domain.errors import ConfigurationError, InputRefused
from switch.keys.ceremony import Custodian, seal_record
from switch.keys.opening import create_vault, open_stored_vault, open_vault, unlock_secret
from switch.keys.primitives import Algorithm
from switch.keys.records import CeremonyEntry, KeyState
from switch.keys.sealing import UnlockSecret
from switch.keys.stores import DatabaseKeyStore, JsonKeyStore
from tests.unit.keys.helpers import OPERATORS, UNLOCK, root_spec

SPEC = root_spec("DTK", Algorithm.SM4)


def private_file(path, content):
    path.write_bytes(content)
    path.chmod(0o600)
    return path


def settings(**given):
    return SimpleNamespace(
        **({"passphrase": None, "passphrase_file": None, "key_file": None, "production": False} | given)
    )


def test_a_vault_opens_by_passphrase_passphrase_file_or_key_file(tmp_path):
    phrase = private_file(tmp_path / "phrase", b"a passphrase for tests\n")
    key = private_file(tmp_path / "key", os.urandom(64))
    store = JsonKeyStore(tmp_path / "keys.json")
    create_vault(store, unlock_secret(settings(passphrase_file=phrase)), rehearsal=False)
    open_stored_vault(
        store, unlock_secret(settings(passphrase=SecretStr("a passphrase for tests"))), production=True
    )
    with pytest.raises(ConfigurationError, match="by a passphrase"):
        open_stored_vault(store, unlock_secret(settings(key_file=key)), production=True)
    other = JsonKeyStore(tmp_path / "other.json")
    create_vault(other, unlock_secret(settings(key_file=key)), rehearsal=False)
    assert open_stored_vault(other, unlock_secret(settings(key_file=key)), production=True).damaged() == []


def test_exactly_one_secret_is_given(tmp_path):
    for given in (
        {},
        {"passphrase": SecretStr("")},
        {"passphrase": SecretStr("x" * 20), "key_file": tmp_path},
    ):
        with pytest.raises(ConfigurationError, match="exactly one"):
            unlock_secret(settings(**given))


def test_secrets_that_are_short_missing_or_open_to_others_are_refused(tmp_path):
    with pytest.raises(ConfigurationError, match="at least 12"):
        UnlockSecret.passphrase("  short     ")
    with pytest.raises(ConfigurationError, match="No such file"):
        UnlockSecret.key_file(tmp_path / "none")
    with pytest.raises(ConfigurationError, match="32 to 4096"):
        UnlockSecret.key_file(private_file(tmp_path / "short", b"x"))
    shared = private_file(tmp_path / "shared", bytes(32))
    shared.chmod(0o644)
    with pytest.raises(ConfigurationError, match="chmod 600"):
        UnlockSecret.key_file(shared)


def test_a_secret_does_not_show_itself():
    assert "tests" not in repr(UNLOCK)


def test_the_json_file_is_its_owners_alone_and_holds_no_clear_key(tmp_path):
    store = JsonKeyStore(tmp_path / "keys.json")
    vault = create_vault(store, UNLOCK, rehearsal=False)
    components = [bytes(range(16)), bytes(range(50, 66))]
    Custodian(vault, store).enter(SPEC, components, OPERATORS)
    text = (tmp_path / "keys.json").read_text().lower()
    assert stat.S_IMODE((tmp_path / "keys.json").stat().st_mode) == 0o600
    combined = bytes(a ^ b for a, b in zip(*components, strict=True))
    assert not any(secret.hex() in text for secret in (*components, combined))
    assert [path.name for path in tmp_path.iterdir()] == ["keys.json"]


@pytest.mark.parametrize("content", [b"", b"[]", b"{}", b"{", b"\xff\xfe"])
def test_a_damaged_json_file_is_said_to_be_one(tmp_path, content):
    (tmp_path / "keys.json").write_bytes(content)
    with pytest.raises(ConfigurationError, match="key file"):
        JsonKeyStore(tmp_path / "keys.json").load_all()


@pytest.mark.server
def test_the_database_holds_a_vault_as_the_file_does(postgres_url, tmp_path):
    phrase = private_file(tmp_path / "phrase", b"a passphrase for tests\n")
    chosen = settings(passphrase_file=phrase, production=True)
    with psycopg.connect(postgres_url, autocommit=True) as connection:
        store = DatabaseKeyStore(connection)
        with pytest.raises(ConfigurationError, match="no vault"):
            open_vault(connection, chosen)
        vault = create_vault(store, unlock_secret(chosen), rehearsal=False)
        with pytest.raises(InputRefused, match="vault already"):
            create_vault(store, unlock_secret(chosen), rehearsal=False)
        custodian = Custodian(vault, store)
        custodian.generate(SPEC, OPERATORS)
        custodian.rotate(SPEC.name, OPERATORS)
        custodian.set_state(SPEC.name, KeyState.VERIFY_ONLY, OPERATORS)
        again = open_vault(connection, chosen)
        assert again.records() == vault.records()
        assert again.damaged() == []
        drawn = vault.sign("SM2/SM2/v1/local", b"message")
        assert len(drawn) == 64
        actions = [entry.action for _, entry in store.load_log() if entry.key_name == SPEC.name]
        assert actions == ["drawn: active", "maintained: verify-only"]
        with pytest.raises(psycopg.Error):
            connection.execute("DELETE FROM key_ceremony")


@pytest.mark.server
def test_two_processes_making_a_vault_at_once_make_one(postgres_url):
    with psycopg.connect(postgres_url) as first, psycopg.connect(postgres_url) as second:
        create_vault(DatabaseKeyStore(first), UNLOCK, rehearsal=True)
        with pytest.raises(InputRefused, match="vault already"):
            DatabaseKeyStore(second).create(
                {"format": b"1"}, [], []
            )  # who looked before the other had written
        with pytest.raises(InputRefused, match="vault already"):
            create_vault(DatabaseKeyStore(second), UNLOCK, rehearsal=True)


@pytest.mark.server
def test_a_change_that_cannot_be_logged_is_not_made(postgres_url):
    with psycopg.connect(postgres_url, autocommit=True) as connection:
        store = DatabaseKeyStore(connection)
        custodian = Custodian(create_vault(store, UNLOCK, rehearsal=True), store)
        connection.execute("ALTER TABLE key_ceremony ADD CONSTRAINT full_up CHECK (false) NOT VALID")
        with pytest.raises(psycopg.Error):
            custodian.generate(SPEC, OPERATORS)
        assert all(record.name != SPEC.name for record in store.load_all())


@pytest.mark.server
def test_of_two_ceremonies_for_one_name_the_second_changes_nothing(postgres_url):
    with psycopg.connect(postgres_url, autocommit=True) as connection:
        store = DatabaseKeyStore(connection)
        vault = create_vault(store, UNLOCK, rehearsal=True)
        made = Custodian(vault, store).generate(SPEC, OPERATORS)
        other = seal_record(
            vault.sealer, SPEC, bytes(range(16)), KeyState.ACTIVE, datetime.now(UTC), rehearsal=True
        )
        with pytest.raises(InputRefused, match="in the meantime"):
            store.save([other], [CeremonyEntry("registered", SPEC.name, OPERATORS, other.kcv)])
        assert made in store.load_all()
        assert [entry.action for _, entry in store.load_log() if entry.key_name == SPEC.name] == [
            "drawn: active"
        ]
