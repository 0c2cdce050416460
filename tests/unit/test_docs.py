"""The documents keep up with the code: settings, commands, metrics, links, and nothing that points outside the project."""

import re
import tomllib
from collections.abc import Iterator
from datetime import UTC, datetime, time
from pathlib import Path
from typing import Any

import pytest
import typer
from prometheus_client.samples import Sample

from switch.__main__ import cli
from switch.clearing.close import Progress
from switch.clearing.schedule import Closing
from switch.operations.commands.config import flattened
from switch.registry.list_rollout import Figures
from switch.settings import Settings
from switch.telemetry.metrics import Metrics

NOW = datetime(2024, 3, 15, tzinfo=UTC)
ROOT = Path(__file__).parents[2]
OPERATIONS = (ROOT / "docs" / "operations.md").read_text(encoding="utf-8")
DOCUMENTS = sorted(
    [
        *ROOT.glob("*.md"),
        *(ROOT / "docs").rglob("*.md"),
        *(ROOT / "deploy").rglob("*.md"),
        ROOT / "tests/README.md",
    ]
)
_LINK = re.compile(r"\]\(([^)\s]+)\)")
_HEADING = re.compile(r"^#+ (.+)$", re.MULTILINE)
_SETTING_ROW = re.compile(r"^\| `([a-z_.]+)` \| (?:`([^`]*)`)? ?\|", re.MULTILINE)
_METRIC_ROW = re.compile(r"^\| `(cardswitch_\w+)` \|", re.MULTILINE)
_FENCED = re.compile(r"^```[a-z]*\n(.*?)^```", re.MULTILINE | re.DOTALL)
# Written apart, so that this file does not hold what it looks for.
OUTSIDE = ["/" + "work/", "/" + "tmp/brief", "shared" + "/domain", "design" + ".md", "style" + ".md"]


def relative(path: Path) -> str:
    return str(path.relative_to(ROOT))


def section(title: str) -> str:
    """One section of the operations manual."""
    return OPERATIONS.split(f"\n## {title}\n", 1)[1].split("\n## ", 1)[0]


def shown(value: object) -> str:
    """A default as the table has it."""
    if value is None or value == "":
        return ""
    if isinstance(value, bool):
        return str(value).lower()
    return f"{value:g}" if isinstance(value, float) else str(value)


def test_operations_has_every_setting_with_its_default_and_no_other() -> None:
    documented = dict(_SETTING_ROW.findall(section("2. Settings")))
    real = {name: shown(value) for name, value in flattened(Settings()).items()}
    assert documented == real


def test_the_cut_off_in_the_table_is_a_time_of_day() -> None:
    assert time.fromisoformat(shown(Settings().clearing.cut_off)) == Settings().clearing.cut_off


def test_operations_has_every_metric_of_a_serving_process() -> None:
    metrics = Metrics()
    for gauge in (
        "queue_depth",
        "intake_depth",
        "route_table",
        "host_questions",
        "mqtt_connected",
        "mqtt_in_flight",
    ):
        metrics.watch(gauge, "", lambda: 0.0)
    metrics.answered("0200", "22", "00", 0.001)
    metrics.refused("idle")
    metrics.load_step("authorised", "cash", "request")
    metrics.host_ended("bank", "00", 0.02)
    metrics.host_strange("bank", "late")
    metrics.host_line_closed("bank", "lost")
    metrics.watch_host("bank", lambda: (2, 0, 0, 0))
    metrics.host_forwarded("bank", "confirmed", 3)
    metrics.host_late("bank", "approved")
    metrics.outbox({"bank": (1, 0, 2.5)})
    metrics.mqtt_refused("size")
    metrics.receipt("00")
    metrics.mqtt_acknowledged(0.01)
    metrics.mqtt_line_ended("lost")
    metrics.mqtt_undelivered("iso")
    metrics.completeness({"card_atc": (1, 2, 3.0)}, {"ATC_COLLISION": 1})
    metrics.rollouts(
        [Figures(1, "HOT", 2, 1, ("100",), 1, 100, "RUNNING", 95, 0, NOW, NOW, 0.0, *(9,) * 8, None)]
    )
    metrics.api_answered("auditor", 200)
    closing = Closing()
    closing.begins(NOW.date())
    closing.progress(Progress("fees"))
    closing.ends("disk full")
    metrics.watch_closing(closing)
    metrics.reconciled({"01020000": (1, 2, 3)})
    metrics.risk_marked({"many-rides": 1})
    metrics.risk_open({"many-rides": 1}, None)
    metrics.deliveries({"bank": (1, 2, 3.0, 0)}, {"GAP": 1})
    metrics.disputes({"NEW": 1}, 1, 0)
    metrics.taken_in({"10": 1})  # type: ignore[arg-type]  # any mapping of counts
    samples: Iterator[Sample] = (sample for family in metrics.collect() for sample in family.samples)
    real = {re.sub(r"_(bucket|count|sum|created)$", "", sample.name) for sample in samples}
    assert set(_METRIC_ROW.findall(section("10. Metrics"))) == real


def commands() -> Iterator[tuple[str, Path]]:
    """What follows `cardswitch` in code blocks and between backticks."""
    for document in DOCUMENTS:
        text = document.read_text(encoding="utf-8")
        lines = [line for block in _FENCED.findall(text) for line in block.splitlines()]
        lines += [f"$ {code}" for code in re.findall(r"`([^`\n]+)`", _FENCED.sub("", text))]
        for line in lines:
            found = re.search(
                r"(?:^|\$ |\.venv/bin/|\d )cardswitch (?:--config \S+ )?([a-z0-9][\w -]*)", line
            )
            if found:
                yield found[1].strip(), document


def test_every_command_in_the_documents_exists() -> None:
    root: Any = typer.main.get_command(cli)
    seen = set()
    for words, document in commands():
        command = root
        for word in words.split():
            if not hasattr(command, "get_command"):
                break  # arguments
            if word.startswith("-"):
                assert command.invoke_without_command, f"{relative(document)}: cardswitch {words}"
                break
            command = command.get_command(None, word)
            assert command is not None, f"{relative(document)}: cardswitch {words}"
            seen.add(word)
    assert {"init", "serve", "doctor", "describe", "close", "files", "audit"} <= seen


def test_every_make_target_in_the_readme_exists() -> None:
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    targets = set(re.findall(r"(?:^|`)make ([a-z]+)\b", readme, re.MULTILINE))
    real = set(re.findall(r"^([a-z]+):", makefile, re.MULTILINE))
    assert {"demo", "test", "check", "bench"} <= targets
    assert targets <= real


def slug(heading: str) -> str:
    """A heading's anchor, as GitHub makes it."""
    return re.sub(r"[^\w\- ]", "", heading.lower()).strip().replace(" ", "-")


@pytest.mark.parametrize("document", DOCUMENTS, ids=relative)
def test_every_link_leads_somewhere(document: Path) -> None:
    prose = _FENCED.sub("", document.read_text(encoding="utf-8"))
    for link in _LINK.findall(prose):
        if re.match(r"https?://", link):
            continue
        name, _, anchor = link.partition("#")
        target = (document.parent / name).resolve() if name else document
        assert target.exists(), f"{link} is not there"
        if anchor:
            headings = {slug(heading) for heading in _HEADING.findall(target.read_text(encoding="utf-8"))}
            assert anchor in headings, f"{link}: no such heading"


def bounds() -> list[str]:
    """The `set by` column of the table of bounds."""
    text = (ROOT / "ARCHITECTURE.md").read_text(encoding="utf-8")
    table = text.split("\n## 9. The table of bounds\n", 1)[1].split("\n## 10.", 1)[0]
    return [
        row.split(" | ")[2] for row in table.splitlines() if row.startswith("| ") and row.count(" | ") == 3
    ]


def test_every_setting_and_constant_in_the_table_of_bounds_is_in_the_code() -> None:
    settings = flattened(Settings()).keys()
    code = "\n".join(path.read_text(encoding="utf-8") for path in (ROOT / "switch").rglob("*.py"))
    code += "\n".join(path.read_text(encoding="utf-8") for path in (ROOT / "switch").rglob("*.sql"))
    names = {name for cell in bounds() for name in re.findall(r"`([\w./]+)`", cell)}
    assert len(names) > 50
    for name in names:
        if name.endswith((".py", "/")):
            assert (ROOT / "switch" / name).exists() or list((ROOT / "switch").rglob(name)), name
        elif re.fullmatch(r"[a-z]+\.[a-z_]+", name):
            assert name in settings, name
        else:
            assert re.search(rf"\b{name.rpartition('.')[2]}\b", code), name


def test_every_file_that_the_architecture_names_is_there() -> None:
    prose = (ROOT / "ARCHITECTURE.md").read_text(encoding="utf-8")
    for name in set(re.findall(r"`((?:[a-z_0-9]+/)*[a-z_0-9]+\.py)`", prose)):
        here = list(ROOT.joinpath("switch").rglob(name)) + list(ROOT.joinpath("tests").rglob(name))
        assert (ROOT / name).exists() or here, name


def committed_text() -> Iterator[tuple[str, str]]:
    skip = {".git", ".venv", "__pycache__", ".hypothesis", "node_modules"}
    for path in ROOT.rglob("*"):
        parts = path.relative_to(ROOT).parts
        if (
            not path.is_file()
            or skip & set(parts)
            or parts[0] == "var"
            or parts[0].endswith(("_cache", ".egg-info"))
        ):
            continue
        if path.suffix in {".py", ".md", ".sql", ".toml", ".service", ".timer", ".lock", ".txt", ".json", ""}:
            yield relative(path), path.read_text(encoding="utf-8", errors="replace")


def test_nothing_points_outside_the_project() -> None:
    found = [(name, word) for name, text in committed_text() for word in OUTSIDE if word in text]
    assert found == []


def test_the_example_settings_of_a_production_host_can_be_used() -> None:
    text = (ROOT / "deploy" / "cardswitch.toml").read_text(encoding="utf-8")
    settings = Settings.model_validate(tomllib.loads(text))
    assert settings.vault.production
    assert settings.database.url.get_secret_value()
