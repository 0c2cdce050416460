"""The compiled table against the plain meaning of its rows, written a second time and as simply as can be."""

from datetime import date, datetime, timedelta
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from switch.domain.calendar import SHANGHAI
from switch.domain.circles import Circle
from switch.registry.import_files import Faults
from switch.registry.issuers import Issuer, Participants
from switch.routing.destinations import Ask, RouteTable
from switch.routing.route_check import Known, check
from switch.routing.route_format import NAMES, read_rows, written

MERCHANTS = {"M" * 15: "5411", "N" * 15: "8062"}
ISSUERS = {"99993350FFFFFFFF": "", "99993310FFFFFFFF": "", "99992900FFFFFFFF": ""}
START = datetime(2026, 3, 15, tzinfo=SHANGHAI)

# Few digits, few of everything: rows must meet.
digits = st.text("12", min_size=1, max_size=3)
ranges = st.tuples(digits, digits).filter(lambda p: len(p[0]) == len(p[1]) and p[0] <= p[1]).map("-".join)


def words(*of: str) -> st.SearchStrategy[str]:
    return st.lists(st.sampled_from(of), unique=True, max_size=2).map(" ".join)


rows = st.fixed_dictionaries(
    {
        "cards": st.one_of(st.just(""), st.lists(digits | ranges, min_size=1, max_size=3).map(" ".join)),
        "issuer": st.sampled_from(["", "", *ISSUERS]),
        "scope": words("LOCAL", "HANGZHOU", "NATION"),
        "account": words("ONLINE", "BANK", "MEDICAL"),
        "type": words("PURCHASE", "BALANCE"),
        "merchant": st.sampled_from(["", "", "", *MERCHANTS]),
        "category": st.sampled_from(["", "", "5411", "5400-5499", "8062-"]),
        "amount_fen": st.sampled_from(["", "", "-2", "2-3", "3-", "1"]),
        "hours": st.sampled_from(["", "", "08:00-20:00", "20:00-08:00", "00:00-12:00", "12:00-24:00"]),
        "valid_from": st.sampled_from(["", "", "2026-03-16"]),
        "valid_to": st.sampled_from(["", "", "2026-03-16"]),
        "to": st.sampled_from(
            ["LEDGER", "HOST:a", "HOST:b", "HOST:a > LEDGER", "CITY:99993310", "REFUSE:15", "REFUSE:92"]
        ),
    }
)
tables = st.lists(rows, max_size=12)
issuers = st.fixed_dictionaries(
    {
        name: st.tuples(st.lists(digits, max_size=2, unique=True), st.sampled_from(list(Circle)))
        for name in ISSUERS
    }
)
requests = st.fixed_dictionaries(
    {
        "digits": st.text("12", min_size=12, max_size=12),
        "account": st.sampled_from([10, 20, 40]),
        "kind": st.sampled_from([1, 2]),
        "merchant": st.sampled_from(["O" * 15, *MERCHANTS]),
        "amount": st.integers(1, 4),
        "minute": st.integers(0, 3 * 24 * 60 - 1),
        "own": st.booleans(),
    }
)  # fmt: skip
WORDS = {"ONLINE": 10, "BANK": 20, "MEDICAL": 40, "PURCHASE": 1, "BALANCE": 2}


def participants_of(made: dict[str, Any]) -> Participants:
    taken: set[str] = set()
    found = []
    for name, (bins, circle) in made.items():
        free = tuple(one for one in bins if one not in taken)
        taken.update(free)
        own = name.startswith("99993350")
        found.append(Issuer(name, name[:8], own, Circle.LOCAL if own else circle, Circle.NATION, free, True))
    return Participants(tuple(found), {})


def text_of(table: list[dict[str, str]]) -> str:
    lines = [",".join(NAMES)]
    lines += [
        ",".join(({"precedence": str(n * 10 + 10)} | row).get(name, "") for name in NAMES)
        for n, row in enumerate(table)
    ]
    return "\n".join(lines) + "\n"


def issuer_by_hand(number: str, participants: Participants) -> Issuer | None:
    best = max(
        ((bin_, one) for one in participants.issuers for bin_ in one.bins if number.startswith(bin_)),
        key=lambda pair: len(pair[0]),
        default=None,
    )
    return best[1] if best else None


def spans(cell: str, value: str) -> bool:
    low, _, high = cell.partition("-")
    if "-" not in cell:
        return int(value) == int(cell)
    return (not low or int(low) <= int(value)) and (not high or int(value) <= int(high))


def within_hours(cell: str, moment: datetime) -> bool:
    begin, end = cell.split("-")
    now = f"{moment:%H:%M}"
    return begin <= now < end if begin < end else now >= begin or now < end


def matches_by_hand(row: dict[str, str], ask: dict[str, Any], participants: Participants) -> bool:
    issuer = issuer_by_hand(ask["digits"], participants)
    if (row["cards"] or row["issuer"] or row["scope"]) and ask["own"] and (issuer is None or not issuer.own):
        return False
    moment = START + timedelta(minutes=ask["minute"])
    day = moment.date().isoformat()
    category = MERCHANTS.get(ask["merchant"], "")
    return all(
        (
            not row["cards"]
            or any(
                part.split("-")[0] <= ask["digits"][: len(part.split("-")[0])] <= part.split("-")[-1]
                for part in row["cards"].split(" ")
            ),
            not row["issuer"] or (issuer is not None and issuer.issuer_id == row["issuer"]),
            not row["scope"] or (issuer is not None and issuer.circle.name in row["scope"].split(" ")),
            not row["account"] or ask["account"] in [WORDS[word] for word in row["account"].split(" ")],
            not row["type"] or ask["kind"] in [WORDS[word] for word in row["type"].split(" ")],
            not row["merchant"] or row["merchant"] == ask["merchant"],
            not row["category"] or bool(category and spans(row["category"], category)),
            not row["amount_fen"] or spans(row["amount_fen"], str(ask["amount"])),
            not row["hours"] or within_hours(row["hours"], moment),
            not row["valid_from"] or row["valid_from"] <= day,
            not row["valid_to"] or day <= row["valid_to"],
        )
    )


def by_hand(table: list[dict[str, str]], ask: dict[str, Any], participants: Participants) -> tuple[int, str]:
    """Precedence of the row that decides, 0 for none, and where the request goes."""
    issuer = issuer_by_hand(ask["digits"], participants)
    ours = ask["own"] or (issuer is not None and issuer.own)
    for n, row in enumerate(table):
        if matches_by_hand(row, ask, participants):
            leaves = row["to"].startswith(("HOST", "CITY")) and ask["account"] == 10 and ours
            return n * 10 + 10, "LEDGER" if leaves else row["to"]
    if ours:
        return 0, "LEDGER"
    return 0, "REFUSE:15" if issuer is None else f"CITY:{issuer.institution_id}"


def ask_of(ask: dict[str, Any]) -> Ask:
    moment = START + timedelta(minutes=ask["minute"])
    return Ask(
        int(ask["digits"]), ask["own"], ask["account"], ask["kind"], ask["merchant"], MERCHANTS.get(ask["merchant"], ""),
        "", ask["amount"], moment,
    )  # fmt: skip


@settings(max_examples=300, deadline=None)
@given(tables, issuers, st.lists(requests, min_size=1, max_size=20))
def test_a_compiled_table_decides_as_the_first_row_that_matches(
    table: list[dict[str, str]], made: dict[str, Any], asked: list[dict[str, Any]]
) -> None:
    participants = participants_of(made)
    faults = Faults()
    read = read_rows(text_of(table), "table", faults)
    assert not faults.found
    compiled = RouteTable(read, participants)
    for one in asked:
        decision = compiled.decide(ask_of(one))
        got = (decision.row.precedence if decision.row else 0, " > ".join(map(str, decision.to)))
        assert got == by_hand(table, one, participants)
        assert compiled.explain(ask_of(one))[0] == decision
        # A card of ours that nobody need ask about goes to the ledger whoever is asked.
        if one["own"] and one["account"] not in compiled.own_accounts:
            assert decision.to[0].way.value == "LEDGER"


@settings(max_examples=300, deadline=None)
@given(tables, issuers, st.lists(requests, min_size=1, max_size=40))
def test_a_row_that_decides_anything_is_not_called_unreachable_and_own_money_never_leaves_a_checked_table(
    table: list[dict[str, str]], made: dict[str, Any], asked: list[dict[str, Any]]
) -> None:
    participants = participants_of(made)
    faults = Faults()
    read = read_rows(text_of(table), "table", faults)
    known = Known(participants, frozenset({"99993310"}), frozenset(MERCHANTS), frozenset({"a", "b"}))
    good, _ = check(read, known, faults, name="", today=date(2026, 3, 15))
    unreachable = {fault.place for fault in faults.found if "never reached" in fault.rule}
    for one in asked:
        row, _ = by_hand(table, one, participants)
        # A card of ours under digits of others is outside what the check looks at, and it only makes rows match less.
        issuer = issuer_by_hand(one["digits"], participants)
        if not one["own"] or (issuer is not None and issuer.own):
            assert f"row {row}" not in unreachable
        if good is not None and issuer is not None and issuer.own and one["account"] == 10:
            deciding = next((each for each in table if matches_by_hand(each, one, participants)), None)
            assert deciding is None or deciding["to"] in ("LEDGER", "REFUSE:15", "REFUSE:92")


@settings(max_examples=200, deadline=None)
@given(tables)
def test_a_table_written_and_read_again_is_the_same(table: list[dict[str, str]]) -> None:
    faults = Faults()
    read = read_rows(text_of(table), "table", faults)
    content = written(read)
    assert read_rows(content, "again", faults) == read
    assert written(read_rows(content, "again", faults)) == content
    assert not faults.found
