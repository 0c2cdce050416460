"""The settings file of `cardswitch init`: it says everything, changes nothing, and is written once."""

import os
import re
import stat
import tomllib
from itertools import pairwise
from pathlib import Path

import pytest

from switch.operations.commands.config import flattened
from switch.operations.settings_file import settings_text, write_settings_file
from switch.settings import Settings, load_with_origins
from tests.helpers.switch_process import cardswitch


def test_as_it_is_written_it_changes_nothing(tmp_path: Path) -> None:
    file = tmp_path / "cardswitch.toml"
    assert write_settings_file(file)
    assert load_with_origins(file, {}) == (Settings(), {})
    assert stat.S_IMODE(file.stat().st_mode) == 0o600


def test_every_setting_is_in_it_with_its_default_and_a_word_about_it(tmp_path: Path) -> None:
    text = settings_text()
    without_default = {name for name, value in flattened(Settings()).items() if value is None}
    lines = text.splitlines()
    uncommented = [
        line.removeprefix("#") for line in lines if re.match(r"#?(\[|[a-z_]+ = (?!\"(FILE|TEXT)\"))", line)
    ]
    file = tmp_path / "all.toml"
    file.write_text("\n".join(uncommented), encoding="utf-8")
    settings, origins = load_with_origins(file, {})
    assert settings == Settings()
    assert origins.keys() == flattened(Settings()).keys() - without_default
    shown = tomllib.loads(
        "\n".join(line.removeprefix("#") for line in lines if re.match(r"#?(\[|[a-z_]+ = )", line))
    )
    sections = {key: value for key, value in shown.items() if isinstance(value, dict)}
    named = {f"{key}.{inner}" for key, section in sections.items() for inner in section}
    assert named | (shown.keys() - sections.keys()) == flattened(Settings()).keys()
    for line, following in pairwise(lines):
        if re.match(r"#[a-z_]+ = ", following):
            assert re.match(r"# \S.{5,}", line), f"nothing is said about {following}"
            assert "None" not in line


def test_a_file_that_is_there_is_never_touched(tmp_path: Path) -> None:
    file = tmp_path / "cardswitch.toml"
    file.write_text("[terminals]\nport = 9000\n", encoding="utf-8")
    assert not write_settings_file(file)
    assert file.read_text(encoding="utf-8") == "[terminals]\nport = 9000\n"
    link = tmp_path / "link.toml"
    link.symlink_to(tmp_path / "nowhere")
    assert not write_settings_file(link)
    assert not (tmp_path / "nowhere").exists()


@pytest.mark.server
def test_init_writes_it_where_it_is_run_once_and_not_when_another_is_named(
    tmp_path: Path, postgres_url: str
) -> None:
    environment = {
        name: value for name, value in os.environ.items() if not name.startswith("CARDSWITCH_")
    } | {"CARDSWITCH_DATABASE__URL": postgres_url}
    named = tmp_path / "named.toml"
    named.write_text("", encoding="utf-8")
    file = tmp_path / "cardswitch.toml"
    cardswitch("--config", str(named), "init", environment=environment, folder=tmp_path)
    assert not file.exists()
    assert "cardswitch.toml written" in cardswitch("init", environment=environment, folder=tmp_path)
    file.write_text(file.read_text(encoding="utf-8").replace("#port = 8583", "port = 9001"), encoding="utf-8")
    assert "everything was there already" in cardswitch("init", environment=environment, folder=tmp_path)
    assert "port = 9001" in file.read_text(encoding="utf-8")
    assert "9001" in cardswitch("config", "show", environment=environment, folder=tmp_path)
