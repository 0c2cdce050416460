"""docs/host-link.md is what others build hosts from: its tables are the code's tables, its frames the golden ones."""

import re
from pathlib import Path

from switch.messages.host_1987 import ASCII, BCD, NETWORK_CODES, REQUEST_MTIS
from switch.messages.host_mapping import CODE_OF_SERVICE, SECURITY_OF_PIN
from switch.settings import HostSettings
from terminal_sim.host.keys import GRACE_S
from terminal_sim.host.script import Behaviour
from tests.unit.messages.test_host_dialect import golden

REFERENCE = (Path(__file__).parents[3] / "docs" / "host-link.md").read_text("utf-8")


def section(heading: str) -> str:
    return REFERENCE.split(f"\n## {heading}\n", 1)[1].split("\n## ", 1)[0]


def rows(heading: str) -> list[list[str]]:
    return [
        [cell.strip() for cell in line.strip("|").split("|")]
        for line in section(heading).splitlines()
        if line[:2] == "| "
    ]


def test_the_field_table_is_the_code_s() -> None:
    told = {row[0]: tuple(row[1:5]) for row in rows("3 Fields")[1:]}
    assert told == {
        str(number): (
            spec.name,
            spec.chinese,
            BCD.fields[number].kind.label,
            f"{'' if spec.fixed else '≤ '}{spec.size}",
        )
        for number, spec in ASCII.fields.items()
    }


def test_the_message_types_codes_and_pin_formats_are_the_code_s() -> None:
    assert ", ".join(REQUEST_MTIS) in section("1 Connections and frames")
    codes = {digits for row in rows("4 Messages")[1:] for digits in re.findall(r"\d\d", row[2])}
    assert codes == set(CODE_OF_SERVICE.values())
    assert {row[0] for row in rows("7 Network management")[1:]} == set(NETWORK_CODES)
    assert all(
        security in section("6 PIN") for name, security in SECURITY_OF_PIN.items() if name.name != "NO_PAN"
    )
    assert f"{GRACE_S:g} s more" in section("5 MAC and keys")


def test_the_settings_are_the_code_s() -> None:
    told = {row[0].strip("`"): (row[1].strip("`"), row[2]) for row in rows("12 Settings")[1:]}
    assert told == {
        name: (
            ""
            if field.is_required()
            else format(field.default, "" if isinstance(field.default, str) else "g"),
            field.description or "",
        )
        for name, field in HostSettings.model_fields.items()
    }


def test_the_times_in_the_text_are_the_defaults() -> None:
    def default(name: str) -> str:
        return f"{HostSettings.model_fields[name].default:g}"

    times, lines = section("8 Time"), section("7 Network management")
    assert f"{default('answer_s')} s, by agreement" in times
    assert (
        f"{default('breaker_failures')} unanswered among the last {int(default('breaker_failures')) * 2}"
        in times
    )
    assert (
        f"no requests for {default('breaker_open_s')} s, then {default('breaker_probes')} as probes" in times
    )
    assert f"earns {default('retry_ratio')} repeats, each second {default('retry_per_s')}" in times
    assert f"quiet time ({default('quiet_s')} s)" in lines
    assert f"nothing for {default('network_answer_s')} s" in lines
    assert f"after {default('reconnect_min_s')} s, doubled up to {default('reconnect_max_s')} s" in lines


def test_the_behaviours_of_the_simulated_host_are_told() -> None:
    assert {row[0].strip("`") for row in rows("13 A host for trying")[1:]} == {
        step.value for step in Behaviour
    }


def test_the_worked_frames_are_golden() -> None:
    told = [
        block.replace("\n", "") for block in re.findall(r"```\n([0-9A-F\n]+)```", section("11 Worked frames"))
    ]
    names = [
        "BCD-3DES-SIGNON-REQ",
        "BCD-3DES-PURCHASE-REQ",
        "BCD-3DES-PURCHASE-RSP",
        "ASCII-3DES-PURCHASE-REQ",
    ]
    names.append("BCD-3DES-REVERSAL-REQ")
    assert told == [golden()[f"HOST-{name}"]["out"]["frame"] for name in names]
