"""Every command can be had by its name, and having one imports no other."""

import subprocess
import sys
from typing import Any

import pytest
import typer

from switch.__main__ import Everything, cli

ROOT: Any = typer.main.get_command(cli)


@pytest.mark.parametrize("name", ROOT.list_commands(None))
def test_a_command_has_its_name_and_says_what_it_is_for(name: str) -> None:
    command = ROOT.get_command(None, name)
    assert command.name == name
    assert command.help
    assert ROOT.get_command(None, f"{name}x") is None


def test_nothing_of_a_command_is_imported_before_it_is_asked_for() -> None:
    modules = sorted({module for module, _ in Everything.places.values()})
    program = f"import sys, switch.__main__; print(sorted(sys.modules.keys() & {modules!r}))"
    ran = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert ran.stdout == "[]\n"
