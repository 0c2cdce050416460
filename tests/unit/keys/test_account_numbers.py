"""Numbers of bank cards at rest: they open for what they belong to, in the vault that sealed them, and nowhere else."""

from pathlib import Path

import pytest

from switch.domain.identifiers import CardNumber
from switch.keys.opening import create_vault, open_stored_vault
from switch.keys.sealing import SealError
from switch.keys.software_vault import SoftwareVault
from switch.keys.stores import JsonKeyStore
from tests.unit.keys.helpers import UNLOCK

NUMBER, OTHER = CardNumber("6228480123456789006"), CardNumber("6228480123456789014")
HERE = b"card 1, agreement A"


@pytest.fixture
def store(tmp_path: Path) -> JsonKeyStore:
    return JsonKeyStore(tmp_path / "keys.json")


@pytest.fixture
def vault(store: JsonKeyStore) -> SoftwareVault:
    return create_vault(store, UNLOCK, rehearsal=True)


def test_a_number_opens_for_what_it_belongs_to_also_after_a_restart(
    vault: SoftwareVault, store: JsonKeyStore
) -> None:
    sealed = vault.seal_account(NUMBER, HERE)
    assert NUMBER.reveal().encode() not in sealed
    assert vault.open_account(sealed, HERE) == NUMBER
    again = open_stored_vault(store, UNLOCK, production=False)
    assert again.open_account(sealed, HERE) == NUMBER
    assert again.account_tag(NUMBER) == vault.account_tag(NUMBER)


def test_the_same_number_is_sealed_differently_each_time_and_has_one_tag(vault: SoftwareVault) -> None:
    assert vault.seal_account(NUMBER, HERE) != vault.seal_account(NUMBER, HERE)
    assert vault.account_tag(NUMBER) == vault.account_tag(NUMBER) != vault.account_tag(OTHER)
    assert len(vault.account_tag(NUMBER)) == 16


def test_a_number_does_not_open_for_another_card_or_another_vault_or_when_it_was_altered(
    vault: SoftwareVault, tmp_path: Path
) -> None:
    sealed = vault.seal_account(NUMBER, HERE)
    strangers = [create_vault(JsonKeyStore(tmp_path / f"{n}.json"), UNLOCK, rehearsal=n > 0) for n in (0, 1)]
    wrong = [
        (vault, sealed, b"card 2, agreement A"),
        (vault, sealed, b""),
        (vault, sealed[:-1], HERE),
        (vault, sealed + b"\0", HERE),
        (vault, b"", HERE),
        *((stranger, sealed, HERE) for stranger in strangers),
        *((vault, bytes(b ^ (at == n) for at, b in enumerate(sealed)), HERE) for n in range(len(sealed))),
    ]
    for opener, content, context in wrong:
        with pytest.raises(SealError) as refused:
            opener.open_account(content, context)
        assert NUMBER.reveal() not in str(refused.value)
    assert all(one.account_tag(NUMBER) != vault.account_tag(NUMBER) for one in strangers)


def test_a_number_sealed_in_rehearsal_does_not_open_in_a_vault_that_says_production(
    vault: SoftwareVault,
) -> None:
    sealed = vault.seal_account(NUMBER, HERE)
    disguised = SoftwareVault(vault.records(), vault.sealer, rehearsal=False)
    with pytest.raises(SealError):
        disguised.open_account(sealed, HERE)


def test_other_things_that_rest_sealed_do_not_open_as_numbers(vault: SoftwareVault) -> None:
    for seal in (vault.sealer.seal_record, vault.sealer.seal_working_keys):
        with pytest.raises(SealError):
            vault.sealer.open_account(HERE, seal(HERE, NUMBER.reveal().encode()))
