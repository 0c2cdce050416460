"""As whom PostgreSQL runs, and that its programs are copied where their own folder is closed."""

import os
import shutil
import stat
import subprocess
from pathlib import Path

import pytest

from switch.domain.errors import ConfigurationError, DependencyError
from switch.storage import run_as as module
from switch.storage.run_as import RunAs, binaries, choose, reachable_copy

as_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root can become others")


@pytest.fixture
def open_folder(tmp_path: Path) -> Path:
    """A folder that everybody may walk to, unlike those that pytest makes."""
    for folder in (tmp_path, *tmp_path.parents[:3]):  # its own, the worker's, the run's, the user's
        if folder.stat().st_uid == os.geteuid():
            folder.chmod(folder.stat().st_mode | 0o011)
    return tmp_path


def test_the_programs_are_where_the_package_put_them() -> None:
    assert {"postgres", "initdb", "pgbench", "psql"} <= {file.name for file in binaries().iterdir()}


def test_some_way_to_run_it_is_found_and_the_version_told() -> None:
    run_as, major = choose()

    assert run_as.how in ("plain", "namespace", "user")
    assert major >= 15


def test_a_way_that_does_not_exist_here_is_said_to_be_none() -> None:
    with pytest.raises(DependencyError, match="cannot run here"):
        choose("no such way")


def test_the_copy_is_complete_and_works_and_is_made_once(tmp_path: Path) -> None:
    programs = reachable_copy(binaries(), (tmp_path,))

    for program in ("initdb", "postgres"):  # initdb needs a library from beside the package
        done = subprocess.run(
            [str(programs / program), "--version"], capture_output=True, text=True, check=True
        )
        assert "PostgreSQL" in done.stdout
    (copy,) = tmp_path.iterdir()
    for path in (copy, *copy.rglob("*")):
        wanted = 0o005 if path.is_dir() else 0o004
        assert path.is_symlink() or path.stat().st_mode & 0o007 == wanted | (path.stat().st_mode & 0o001)
    before = copy.stat().st_ino
    assert reachable_copy(binaries(), (tmp_path,)) == programs
    assert copy.stat().st_ino == before


def test_a_copy_goes_to_the_next_place_when_the_first_cannot_be_written(tmp_path: Path) -> None:
    assert reachable_copy(binaries(), (tmp_path / "missing", tmp_path)).is_relative_to(tmp_path)


def test_a_folder_that_others_can_write_to_is_not_trusted(tmp_path: Path) -> None:
    programs = reachable_copy(binaries(), (tmp_path,))
    (copy,) = tmp_path.iterdir()
    copy.chmod(copy.stat().st_mode | stat.S_IWOTH)

    with pytest.raises(DependencyError, match="not ours alone"):
        reachable_copy(binaries(), (tmp_path,))
    assert programs.exists(), "and is not removed either"


def test_a_link_in_the_place_of_the_copy_is_not_followed(tmp_path: Path) -> None:
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    reachable_copy(binaries(), (elsewhere,))
    (copy,) = elsewhere.iterdir()
    (tmp_path / copy.name).symlink_to(copy)

    with pytest.raises(DependencyError, match="not ours alone"):
        reachable_copy(binaries(), (tmp_path,))


@as_root
def test_programs_in_a_folder_that_only_root_may_enter_are_copied(
    tmp_path: Path, open_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    closed = tmp_path / "closed"
    closed.mkdir(mode=0o700)
    package = binaries().parent.parent
    shutil.copytree(
        package / "pginstall", closed / package.name / "pginstall", ignore=shutil.ignore_patterns("include")
    )
    libraries = package.with_name(package.name + ".libs")
    shutil.copytree(libraries, closed / libraries.name)
    places = open_folder / "places"
    places.mkdir(mode=0o755)
    monkeypatch.setattr(module, "binaries", lambda: closed / package.name / "pginstall" / "bin")
    monkeypatch.setattr(module, "COPIES", (places,))

    run_as, _major = choose("user")

    assert run_as.programs.is_relative_to(places)


@as_root
def test_in_a_namespace_root_reaches_what_is_roots(tmp_path: Path) -> None:
    closed = tmp_path / "closed"
    closed.mkdir(mode=0o700)
    try:
        run_as, _major = choose("namespace")
    except DependencyError:
        pytest.skip("no user namespaces here")

    done = subprocess.run(
        run_as.command(closed, "postgres", "--version"), capture_output=True, text=True, check=False
    )
    assert done.stdout.startswith("postgres (PostgreSQL)")


@as_root
def test_a_folder_is_given_with_all_in_it_and_links_are_not_followed(tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.write_text("")
    folder = tmp_path / "cluster"
    (folder / "base").mkdir(parents=True)
    (folder / "base" / "1").write_text("")
    (folder / "link").symlink_to(outside)

    RunAs("user", 65534, 65534, binaries()).own(folder)

    owners = {path.name: path.lstat().st_uid for path in (folder, *folder.rglob("*"))}
    assert owners == {"cluster": 65534, "base": 65534, "1": 65534, "link": 65534}
    assert outside.stat().st_uid == 0
    RunAs("namespace", 65534, 65534, binaries()).own(folder)
    assert {path.lstat().st_uid for path in (folder, *folder.rglob("*"))} == {0}


def test_what_belongs_to_another_user_is_refused_in_words(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 4711)

    with pytest.raises(ConfigurationError, match="belongs to user"):
        RunAs("plain", 4711, 4711, binaries()).own(tmp_path)
