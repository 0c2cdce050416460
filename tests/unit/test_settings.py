"""Settings: what wins, what is refused, and that no refusal tells a secret."""

import json
from datetime import time
from pathlib import Path

import pytest
from pydantic import ValidationError

from switch.domain.errors import ConfigurationError
from switch.settings import Settings, load_settings, load_with_origins


@pytest.fixture(autouse=True)
def _elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A settings file of whoever runs the tests must not be found."""
    monkeypatch.chdir(tmp_path)


def file_of(folder: Path, text: str) -> Path:
    path = folder / "settings.toml"
    path.write_text(text, encoding="utf-8")
    return path


def test_without_a_file_and_without_environment_everything_has_a_default():
    settings, origins = load_with_origins(None, {})
    assert settings == Settings()
    assert origins == {}


def test_every_default_keeps_its_own_rule():
    Settings.model_validate(Settings().model_dump())


def test_the_environment_goes_before_the_file_and_the_file_before_the_default(tmp_path):
    file = file_of(tmp_path, "[terminals]\nport = 1001\nidle_s = 7\n")
    settings, origins = load_with_origins(file, {"CARDSWITCH_TERMINALS__PORT": "1002"})
    assert (settings.terminals.port, settings.terminals.idle_s) == (1002, 7.0)
    assert settings.terminals.host == "127.0.0.1"
    assert origins == {"terminals.port": "environment", "terminals.idle_s": str(file)}


def test_a_file_in_the_working_directory_is_found_and_a_named_one_goes_before_it(tmp_path):
    Path("cardswitch.toml").write_text("[http]\nport = 1001\n")
    assert load_settings(None, {}).http.port == 1001
    named = file_of(tmp_path, "[http]\nport = 1002\n")
    assert load_settings(None, {"CARDSWITCH_CONFIG": str(named)}).http.port == 1002
    explicit = tmp_path / "explicit.toml"
    explicit.write_text("[http]\nport = 1003\n")
    assert load_settings(explicit, {"CARDSWITCH_CONFIG": str(named)}).http.port == 1003


@pytest.mark.parametrize(
    ("text", "environment", "key"),
    [
        ("[terminals]\nprot = 1\n", {}, "terminals.prot"),
        ("", {"CARDSWITCH_TERMINALS__PROT": "1"}, "terminals.prot"),
        ("[terminal]\nport = 1\n", {}, "terminal"),
        ("", {"CARDSWITCH_TERMINAL__PORT": "1"}, "terminal"),
        ("", {"CARDSWITCH_PORT": "1"}, "CARDSWITCH_PORT"),
        ("", {"CARDSWITCH_TERMINALS__PORT__X": "1"}, "CARDSWITCH_TERMINALS__PORT__X"),
    ],
)
def test_a_misspelt_key_is_an_error_that_names_it(tmp_path, text, environment, key):
    with pytest.raises(ConfigurationError, match=key):
        load_settings(file_of(tmp_path, text), environment)


@pytest.mark.parametrize(
    ("text", "key"),
    [
        ("[terminals]\nport = 65536\n", "terminals.port"),
        ("[terminals]\nin_flight_max = 0\n", "terminals.in_flight_max"),
        ('[terminals]\ntls_key = "/k"\n', "tls_certificate and tls_key belong together"),
        ('[terminals]\ntls_client_authority = "/a"\n', "tls_client_authority needs tls_certificate"),
        ("[database]\nshards = 0\n", "database.shards"),
        ("[ledger]\nbatch_max = 5000\n", "ledger.batch_max"),
        ('[institution]\nown_id = "1"\n', "institution.own_id"),
        ('[institution]\nissuer_ids = ["99993350ffffffff"]\n', "institution.issuer_ids"),
        ('[clearing]\ncut_off = "25:00"\n', "clearing.cut_off"),
        ('[clearing]\ncut_off = "23:00:00+08:00"\n', "clearing.cut_off"),
        ("[terminals]\nidle_s = inf\n", "terminals.idle_s"),
        ('[database]\nurl = "foo"\n', "database.url"),
        ('[telemetry]\nlog_level = "loud"\n', "telemetry.log_level"),
    ],
)
def test_a_value_that_breaks_a_rule_is_named_with_the_rule(tmp_path, text, key):
    with pytest.raises(ConfigurationError, match=key):
        load_settings(file_of(tmp_path, text), {})


def test_all_faults_are_named_at_once(tmp_path):
    text = "[terminals]\nport = -1\n[http]\nport = -1\n"
    with pytest.raises(ConfigurationError, match=r"terminals\.port.*http\.port"):
        load_settings(file_of(tmp_path, text), {})


def test_a_file_that_is_missing_or_no_toml_is_an_error_that_names_it(tmp_path):
    with pytest.raises(ConfigurationError, match=r"nowhere\.toml"):
        load_settings(tmp_path / "nowhere.toml", {})
    with pytest.raises(ConfigurationError, match=r"settings\.toml"):
        load_settings(file_of(tmp_path, "port = = 1\n"), {})
    latin = tmp_path / "latin.toml"
    latin.write_bytes(b'[clearing]\nfolder = "\xe9"\n')
    with pytest.raises(ConfigurationError, match=r"latin\.toml"):
        load_settings(latin, {})


def test_times_are_read_in_both_spellings(tmp_path):
    assert load_settings(file_of(tmp_path, "[clearing]\ncut_off = 22:30:00\n"), {}).clearing.cut_off == time(
        22, 30
    )
    assert load_settings(None, {"CARDSWITCH_CLEARING__CUT_OFF": "22:30"}).clearing.cut_off == time(22, 30)


def test_issuer_ids_are_a_list_in_the_file_and_separated_by_commas_in_the_environment(tmp_path):
    ids = ("99993350FFFFFFFF", "99993310FFFFFFFF")
    text = f'[institution]\nissuer_ids = ["{ids[0]}", "{ids[1]}"]\n'
    assert load_settings(file_of(tmp_path, text), {}).institution.issuer_ids == ids
    environment = {"CARDSWITCH_INSTITUTION__ISSUER_IDS": ",".join(ids)}
    assert load_settings(None, environment).institution.issuer_ids == ids


def test_secrets_do_not_show_themselves(tmp_path):
    url, phrase = "postgresql://switch:hunter2@db/books", "correct horse battery"
    settings = load_settings(None, {"CARDSWITCH_DATABASE__URL": url, "CARDSWITCH_VAULT__PASSPHRASE": phrase})
    assert settings.database.url.get_secret_value() == url
    assert "hunter2" not in f"{settings!r}{settings}"
    assert "horse" not in f"{settings!r}{settings}"


def test_a_refusal_does_not_repeat_what_was_given(tmp_path):
    text = '[vault]\npassphrase = ["correct horse battery"]\n[institution]\nown_id = "horse"\n'
    with pytest.raises(ConfigurationError) as caught:
        load_settings(file_of(tmp_path, text), {})
    assert "horse" not in str(caught.value)
    assert caught.value.__cause__ is None  # pydantic's own error would show the input in a traceback


def test_settings_cannot_be_changed_once_read():
    settings = Settings()
    with pytest.raises(ValidationError):
        settings.terminals.port = 1
    with pytest.raises(ValidationError):
        settings.data_dir = Path("/")


def test_folders_that_are_not_named_lie_in_the_data_directory():
    settings = Settings(data_dir=Path("/srv/cards"))
    assert settings.clearing_folder == Path("/srv/cards/clearing")
    assert settings.unlock.passphrase_file == Path("/srv/cards/vault.passphrase")


def test_a_vault_secret_that_is_named_goes_before_the_generated_file(tmp_path):
    for name in ("passphrase_file", "key_file"):
        settings = load_settings(file_of(tmp_path, f'[vault]\n{name} = "/etc/own"\n'), {})
        assert settings.unlock == settings.vault


@pytest.mark.parametrize(
    ("toml", "variable"),
    [("terminals = 'x'", "CARDSWITCH_TERMINALS__PORT"), ("data_dir = 'a'", "CARDSWITCH_DATA_DIR__X")],
)
def test_a_value_where_a_section_belongs_is_named(tmp_path: Path, toml: str, variable: str) -> None:
    file = tmp_path / "cardswitch.toml"
    file.write_text(toml)
    with pytest.raises(ConfigurationError, match="must be a section"):
        load_settings(file, {variable: "1"})


BANK = {"name": "bank", "institution": "01020000", "host": "10.0.8.11", "port": 9583}


def test_hosts_are_tables_in_the_file_and_a_json_list_in_the_environment(tmp_path):
    text = '[[hosts.links]]\nname = "bank"\ninstitution = "01020000"\nhost = "10.0.8.11"\nport = 9583\n'
    [link] = load_settings(file_of(tmp_path, text), {}).hosts.links
    assert (link.name, link.port, link.dialect, link.answer_s) == ("bank", 9583, "bcd", 15.0)
    environment = {"CARDSWITCH_HOSTS__LINKS": json.dumps([BANK])}
    assert load_settings(None, environment).hosts.links == (link,)


@pytest.mark.parametrize(
    ("changes", "rule"),
    [
        ({"answer_s": 46}, "links.0.answer_s"),
        ({"institution": "BANK"}, "links.0.institution"),
        ({"name": "The Bank"}, "links.0.name"),
        ({"dialect": "ebcdic"}, "links.0.dialect"),
        ({"port": 0}, "links.0.port"),
        ({"reconnect_min_s": 31}, "shortest pause"),
        ({"breaker_open_s": 61}, "shortest pause"),
        ({"prot": 1}, "links.0.prot"),
    ],
)
def test_a_host_that_breaks_a_rule_is_named_with_the_rule(changes, rule):
    with pytest.raises(ConfigurationError, match=rule):
        load_settings(None, {"CARDSWITCH_HOSTS__LINKS": json.dumps([BANK | changes])})


def test_two_hosts_of_one_name_and_what_is_no_json_are_refused():
    with pytest.raises(ConfigurationError, match="same name"):
        load_settings(None, {"CARDSWITCH_HOSTS__LINKS": json.dumps([BANK, BANK])})
    with pytest.raises(ConfigurationError, match="not JSON"):
        load_settings(None, {"CARDSWITCH_HOSTS__LINKS": "bank"})
