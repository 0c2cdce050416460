"""Lines: written and read by the same table, never cut, never guessed."""

import pytest

from switch.clearing.layouts import (
    LAYOUTS,
    Form,
    LineFault,
    Value,
    read_line,
    share_of_total,
    sql_line,
    write_line,
)

QS: dict[str, Value] = {
    "line_no": 1,
    "merchant": "993350054110001",
    "clearing_date": 20240315,
    "confirmed_count": 4,
    "confirmed": 550,
    "refused_count": 4,
    "refused": 530,
    "adjusted_count": 0,
    "adjusted": 0,
    "adjust_refused_count": 0,
    "adjust_refused": 0,
    "fee": 3,
    "net": -547,
    "settlement_date": 20240318,
}


def test_a_line_reads_back_as_it_was_written() -> None:
    line = write_line(LAYOUTS["QS"], QS)
    assert len(line) == 170
    assert read_line(LAYOUTS["QS"], line) == QS


def test_signed_amounts_say_who_receives_and_zero_is_c() -> None:
    values = [write_line(LAYOUTS["QS"], {**QS, "net": net})[139:155] for net in (5, 0, -5)]
    assert values == ["C000000000000005", "C000000000000000", "D000000000000005"]


@pytest.mark.parametrize(
    ("field", "value", "rule"),
    [
        ("merchant", "99335005411000", "does not fit into 15 characters"),
        ("merchant", "9933500541100012", "does not fit into 15 characters"),
        ("merchant", "99335005411000\n", "printable ASCII only"),
        ("merchant", "99335005411000商", "printable ASCII only"),
        ("confirmed_count", 100_000_000, "does not fit into 8 characters"),
        ("confirmed", -1, "digits only"),
        ("net", 10**15, "does not fit into 16 characters"),
        ("net", "X000000000000001", "C or D and digits"),
    ],
)
def test_a_value_that_does_not_fit_is_refused_and_never_cut(field: str, value: Value, rule: str) -> None:
    with pytest.raises(ValueError, match=f"^{field}: {rule}$"):
        write_line(LAYOUTS["QS"], {**QS, field: value})


def test_a_missing_value_is_named() -> None:
    with pytest.raises(ValueError, match=r"^fee: missing$"):
        write_line(LAYOUTS["QS"], {name: value for name, value in QS.items() if name != "fee"})


@pytest.mark.parametrize(
    ("at", "char", "rule"),
    [
        (0, "X", "a detail line starts with D"),
        (1, "x", "line_no: digits only"),
        (139, "E", "net: sign must be C or D"),
        (140, " ", "net: digits only"),
        (169, "x", "characters 164 to 170 must be spaces"),
    ],
)
def test_a_line_that_breaks_its_layout_is_refused_by_field(at: int, char: str, rule: str) -> None:
    line = write_line(LAYOUTS["QS"], QS)
    with pytest.raises(ValueError, match=f"^{rule}$"):
        read_line(LAYOUTS["QS"], line[:at] + char + line[at + 1 :])


@pytest.mark.parametrize(("at", "char", "column"), [(5, "x", 2), (20, "g", 21), (205, "x", 204)])
def test_a_fault_says_in_which_column_it_is(at: int, char: str, column: int) -> None:
    line = write_line(
        LAYOUTS["DT"], {"line_no": 1, "record": "0A" * 96, "result": "10", "result_date": 20240315}
    )
    spoilt = line[:at] + char + line[at + 1 :]
    with pytest.raises(LineFault) as caught:
        read_line(LAYOUTS["DT"], spoilt)
    assert caught.value.column == column


def test_a_line_of_another_length_is_refused() -> None:
    with pytest.raises(ValueError, match="line must be 170 characters"):
        read_line(LAYOUTS["QS"], write_line(LAYOUTS["QS"], QS) + " ")


def test_totals_follow_the_type() -> None:
    record = "00" * 30 + "000000C8" + "00" * 62
    assert share_of_total(LAYOUTS["XF"], {"record": record}) == 200
    assert share_of_total(LAYOUTS["CM"], {"amount": 7}) == 7
    assert share_of_total(LAYOUTS["ER"], {"amount": -7}) == 0
    assert share_of_total(LAYOUTS["MR"], {"net": 7, "amount": 9}) == 7
    assert share_of_total(LAYOUTS["BF"], {}) == 0


@pytest.mark.parametrize("kind", sorted(LAYOUTS))
def test_every_layout_begins_with_d_and_its_sql_names_every_field(kind: str) -> None:
    layout = LAYOUTS[kind]
    assert layout.fields[0].name == "mark"
    names = [field.name for field in layout.fields if field.form is not Form.BLANK]
    assert len(names) == len(set(names))
    sql = sql_line(layout, {name: f"x.{name}" for name in names})
    assert all(f"x.{name}" in sql for name in names if name != "mark")


def test_sql_constants_are_checked_when_the_statement_is_built() -> None:
    names = {field.name: "'0'" for field in LAYOUTS["QS"].fields if field.form is Form.NUMBER}
    with pytest.raises(ValueError, match="merchant: does not fit"):
        sql_line(LAYOUTS["QS"], {**names, "merchant": "'1'", "net": "x.net"})
