"""Imports against a real PostgreSQL: whole or nothing, the same again changes nothing, money in double entry."""

import io
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest

from switch.domain.errors import ConfigurationError, InputRefused
from switch.keys import sm2
from switch.registry.exporting import export_json
from switch.registry.import_files import ImportRefused
from switch.registry.import_format import KINDS
from tests.unit.registry.helpers import (
    DAY,
    MERCHANT,
    OPERATOR,
    Gate,
    card,
    city,
    open_day,
    pan_of,
    run_import,
    write,
)

pytestmark = pytest.mark.server

TABLES = [
    "institution",
    "card_issuer",
    "merchant",
    "terminal",
    "psam",
    "fee_rule",
    "holder",
    "card_route",
    "card",
    "account",
    "purse",
    "posting",
    "registry_change",
]


@pytest.fixture
def db(postgres_url: str) -> Iterator[psycopg.Connection[Any]]:
    with psycopg.connect(postgres_url, autocommit=True) as connection:
        open_day(connection)
        yield connection


def _counts(db: psycopg.Connection[Any]) -> dict[str, int]:
    counts = {}
    for table in TABLES:
        row = db.execute(f"SELECT count(*) FROM {table}").fetchone()
        assert row is not None
        counts[table] = row[0]
    return counts


def _one(db: psycopg.Connection[Any], query: str, *values: object) -> Any:
    row = db.execute(query, values).fetchone()
    assert row is not None
    return row[0] if len(row) == 1 else row


def _faults(db: psycopg.Connection[Any], *paths: Path, **options: Any) -> set[tuple[str, str]]:
    before = _counts(db)
    with pytest.raises(ImportRefused) as refusal:
        run_import(db, *paths, **options)
    assert _counts(db) == before
    return {(fault.place, fault.field) for fault in refusal.value.faults}


def test_a_city_comes_in_with_its_money_in_double_entry(db: psycopg.Connection[Any], tmp_path: Path) -> None:
    gate = Gate()
    report = run_import(db, write(tmp_path, city()), enter_day=gate)
    assert {name: tuple(tally) for name, tally in report.kinds.items()} == {
        "institutions": (2, 2, 0),
        "card_issuers": (2, 2, 0),
        "merchants": (2, 2, 0),
        "terminals": (4, 4, 0),
        "psams": (1, 1, 0),
        "fee_rules": (2, 2, 0),
        "cards": (1, 1, 0),
        "bindings": (0, 0, 0),
    }
    shard, holder_id, card_no = _one(
        db, "SELECT shard, holder_id, card_no FROM card_route WHERE pan = %s", pan_of(1)
    )
    assert gate.shards == [[shard]]
    assert report.business_date == DAY
    rows = db.execute(
        "SELECT shard, business_date, debit_code, debit_owner, credit_code, credit_owner, amount_fen FROM posting"
        " ORDER BY credit_code"
    ).fetchall()
    assert rows == [
        (shard, DAY, 1001, 0, 2001, holder_id * 100 + 10, 10_000),
        (shard, DAY, 1001, 0, 2002, card_no, 5_000),
    ]
    assert _one(db, "SELECT shard, account_id, kind, balance_fen, pin_verifier FROM account") == (
        shard,
        holder_id * 100 + 10,
        10,
        10_000,
        None,
    )
    assert _one(db, "SELECT asn, balance_fen, online_atc, next_atc FROM purse") == (
        "0" + pan_of(1),
        5_000,
        0,
        7,
    )
    assert _one(db, "SELECT count(*), count(DISTINCT actor) FROM registry_change") == (14, 1)
    assert _one(db, "SELECT change FROM registry_change WHERE subject = 'terminal 33500005'") == {
        "before": None,
        "after": {
            "terminal_id": "33500005",
            "merchant_id": MERCHANT,
            "mac_algorithm": 5,
            "sm2_public_key": None,
            "cash_loads": False,
            "state": "ACTIVE",
        },
    }
    assert _one(db, "SELECT count(*) FROM registry_change WHERE subject LIKE %s", f"%{pan_of(1)[6:-4]}%") == 0


def test_the_same_file_again_changes_nothing(db: psycopg.Connection[Any], tmp_path: Path) -> None:
    path = write(
        tmp_path, city(cards=[card(1, holder="h1", online_opening_fen=10_000, pin="123456"), card(2)])
    )
    run_import(db, path)
    before = _counts(db)
    gate = Gate()
    report = run_import(db, path, enter_day=gate)
    assert report.nothing_changed
    assert not report.openings
    assert _counts(db) == before
    assert gate.shards == []


def test_changed_attributes_are_updated_and_written_down_and_balances_are_left_alone(
    db: psycopg.Connection[Any], tmp_path: Path
) -> None:
    run_import(db, write(tmp_path, city()))
    document = city(cards=[card(1, state="LOSS_FORMAL", online_opening_fen=99_999, purse_opening_fen=1)])
    document["merchants"][0]["name"] = "Bus company"
    report = run_import(db, write(tmp_path, document), actor="wang fang")
    assert report.kinds["merchants"] == (2, 0, 1)
    assert report.kinds["cards"] == (1, 0, 1)
    assert _one(db, "SELECT balance_fen FROM account") == 10_000
    assert _one(db, "SELECT balance_fen FROM purse") == 5_000
    state, lost = _one(db, "SELECT state, lost_at <= clock_timestamp() FROM card")
    assert (state, lost) == (3, True)
    assert _one(
        db, "SELECT change FROM registry_change WHERE actor = 'wang fang' AND subject LIKE 'merchant%%'"
    ) == {
        "before": {
            "merchant_id": MERCHANT,
            "name": "公交公司",
            "category": "4111",
            "acquirer_id": OPERATOR,
            "state": "ACTIVE",
        },
        "after": {
            "merchant_id": MERCHANT,
            "name": "Bus company",
            "category": "4111",
            "acquirer_id": OPERATOR,
            "state": "ACTIVE",
        },
    }


def test_a_terminals_public_key_comes_in_goes_out_and_must_be_a_point_of_the_curve(
    db: psycopg.Connection[Any], tmp_path: Path
) -> None:
    public = sm2.generate().public.hex().upper()
    document = city()
    document["terminals"][0]["sm2_public_key"] = public
    run_import(db, write(tmp_path, document))
    asked = "SELECT sm2_public_key FROM terminal WHERE terminal_id = '33500001'"
    assert _one(db, asked) == public
    printed = io.StringIO()
    export_json(db, printed, KINDS, lambda _kind, _count: None)
    assert printed.getvalue().count(public) == 1
    wrong = (public.lower(), public[:-2], "02" + public[2:], "04" + "00" * 64, public[:-1] + "GG")
    for value in (*wrong, public[:-1] + ("0" if public[-1] != "0" else "1")):
        document["terminals"][0]["sm2_public_key"] = value
        assert _faults(db, write(tmp_path, document)) == {("terminals[0]", "sm2_public_key")}
    del document["terminals"][0]["sm2_public_key"]
    run_import(db, write(tmp_path, document))
    assert _one(db, asked) is None


def test_a_file_that_knows_of_no_loss_does_not_lift_one(db: psycopg.Connection[Any], tmp_path: Path) -> None:
    run_import(db, write(tmp_path, city(cards=[card(1, state="LOSS_FORMAL")])))
    for state in ("ACTIVE", "READY", "LOSS_TEMP"):
        run_import(db, write(tmp_path, city(cards=[card(1, state=state)])))
        assert _one(db, "SELECT state, lost_at IS NOT NULL, loss_lapses_at FROM card") == (3, True, None)
    run_import(db, write(tmp_path, city(cards=[card(2, state="LOSS_TEMP")])))
    state, days = _one(db, "SELECT state, loss_lapses_at::date - lost_at::date FROM card WHERE card_no = 2")
    assert (state, days in (5, 6)) == (2, True)


def test_all_faults_of_all_files_are_listed_and_nothing_is_changed(
    db: psycopg.Connection[Any], tmp_path: Path
) -> None:
    document = city(
        terminals=[
            {"terminal_id": "3350", "merchant_id": MERCHANT, "mac_algorithm": 6},
            {"terminal_id": "33500001", "merchant_id": "no such merchan", "mac_algorithm": 1},
            {"terminal_id": "33500001", "merchant_id": MERCHANT, "mac_algorithm": 1},
        ],
        psams=None,
    )
    cards = tmp_path / "cards.csv"
    cards.write_text(
        f"pan,valid_from,valid_through\n{pan_of(1)},2024-01-01,2034-01-01\n313350,2024-01-01,2023-01-01\n"
    )
    assert _faults(db, write(tmp_path, document), cards) == {
        ("terminals[0]", "terminal_id"),
        ("terminals[0]", "mac_algorithm"),
        ("terminals[1]", "merchant_id"),
        ("terminals[2]", "terminal_id"),
        ("cards[0]", "pan"),
        ("line 3", "pan"),
    } - {("cards[0]", "pan")} | {
        ("line 2", "pan")
    }  # the card stands in both files; the later one is the fault


def test_no_more_than_a_hundred_faults_are_listed(db: psycopg.Connection[Any], tmp_path: Path) -> None:
    path = tmp_path / "cards.csv"
    path.write_text("pan,valid_from,valid_through\n" + "1,2024-01-01,2034-01-01\n" * 1000)
    with pytest.raises(ImportRefused, match="100 or more") as refusal:
        run_import(db, path)
    assert len(refusal.value.faults) == 100


def test_faults_never_show_what_they_found(db: psycopg.Connection[Any], tmp_path: Path) -> None:
    wrong = pan_of(1)[:-1] + str((int(pan_of(1)[-1]) + 1) % 10)
    document = city(cards=[card(1, pan=wrong), card(2, pin="12x456")])
    with pytest.raises(ImportRefused) as refusal:
        run_import(db, write(tmp_path, document))
    shown = " ".join(map(str, refusal.value.faults)) + str(refusal.value)
    assert wrong not in shown
    assert "12x456" not in shown
    assert "Luhn" in shown


@pytest.mark.parametrize(
    ("kinds", "fault"),
    [
        ({"card_issuers": [{"issuer_id": "9" * 16, "institution_id": "12345678", "own": True}]}, "institution_id"),
        ({"psams": [{"psam_no": "335000000001", "merchant_id": MERCHANT, "terminal_id": "33500010"}]}, "terminal_id"),
        ({"fee_rules": [{"account_kind": "BANK", "rate_ppm": 1, "valid_from": "2024-01-01", "merchant_id": MERCHANT, "category": "4111"}]}, "category"),
        ({"fee_rules": [{"account_kind": "BANK", "rate_ppm": 1, "valid_from": "2024-01-01"}, {"account_kind": "BANK", "rate_ppm": 2, "valid_from": "2024-06-01"}]}, "valid_from"),
        ({"fee_rules": [{"account_kind": "BANK", "rate_ppm": 1, "valid_from": "2024-02-30"}]}, "valid_from"),
        ({"cards": [card(1, asn="1" + pan_of(1))]}, "asn"),
        ({"cards": [card(1, valid_through="2023-01-01")]}, "valid_through"),
        ({"cards": [card(1, online_opening_fen=10.5)]}, "online_opening_fen"),
        ({"cards": [card(1, online_opening_fen=-1)]}, "online_opening_fen"),
        ({"cards": [card(1, online_opening_fen=True)]}, "online_opening_fen"),
        ({"cards": [card(1, purse_online_atc=1)]}, "purse_online_atc"),
        ({"cards": [card(1, pin="123456")]}, "pin"),
        ({"cards": [card(1, colour="red")]}, ""),
        ({"cards": [card(1, holder="a", online_opening_fen=1), card(2, holder="a", online_opening_fen=2)]}, "online_opening_fen"),
        ({"cards": [card(1, holder="a", online_opening_fen=1, pin="1234"), card(2, holder="a", pin="4321")]}, "pin"),
    ],
)  # fmt: skip
def test_a_broken_rule_names_its_field(
    db: psycopg.Connection[Any], tmp_path: Path, kinds: dict[str, Any], fault: str
) -> None:
    assert fault in {field for _, field in _faults(db, write(tmp_path, city(**kinds)))}


def test_cards_of_one_holder_share_accounts_and_shard_over_several_imports(
    db: psycopg.Connection[Any], tmp_path: Path
) -> None:
    run_import(
        db,
        write(
            tmp_path, city(cards=[card(n) for n in (1, 2, 3)] + [card(4, holder="h", online_opening_fen=5)])
        ),
    )
    run_import(
        db, write(tmp_path, city(cards=[card(5, holder="h", online_opening_fen=5, medical_opening_fen=70)]))
    )
    rows = db.execute(
        "SELECT shard, holder_id FROM card_route WHERE pan = ANY(%s)", ([pan_of(4), pan_of(5)],)
    ).fetchall()
    assert rows[0] == rows[1]
    assert db.execute("SELECT kind, balance_fen FROM account ORDER BY kind").fetchall() == [(10, 5), (40, 70)]
    assert _one(db, "SELECT sum(amount_fen)::bigint FROM posting") == 75
    assert _one(db, "SELECT count(DISTINCT shard) FROM card_route") == 2
    assert _faults(db, write(tmp_path, city(cards=[card(1, holder="h")]))) == {("cards[0]", "holder")}
    assert _faults(db, write(tmp_path, city(cards=[card(1, holder="n"), card(2, holder="n")]))) == {
        ("cards[0]", "holder"),
        ("cards[1]", "holder"),
    }
    assert _faults(db, write(tmp_path, city(cards=[card(4, holder="other")]))) == {("cards[0]", "holder")}


def test_a_known_holder_gets_his_key_later(db: psycopg.Connection[Any], tmp_path: Path) -> None:
    run_import(db, write(tmp_path, city()))
    run_import(db, write(tmp_path, city(cards=[card(1, holder="h"), card(2, holder="h")])))
    assert _one(db, "SELECT count(DISTINCT holder_id) FROM card_route") == 1


def test_a_changed_pin_replaces_the_verifier_and_unblocks(
    db: psycopg.Connection[Any], tmp_path: Path
) -> None:
    run_import(
        db, write(tmp_path, city(cards=[card(1, online_opening_fen=1, medical_opening_fen=1, pin="1111")]))
    )
    db.execute("UPDATE account SET pin_failures = 6")
    same = run_import(db, write(tmp_path, city(cards=[card(1, pin="1111")])))
    assert same.nothing_changed
    assert _one(db, "SELECT min(pin_failures) FROM account") == 6
    report = run_import(db, write(tmp_path, city(cards=[card(1, pin="2222")])))
    assert report.kinds["cards"].changed == 1
    assert _one(db, "SELECT max(pin_failures), count(DISTINCT pin_verifier) FROM account") == (0, 2)
    assert _one(db, 'SELECT count(*) FROM registry_change WHERE change = \'{"pin": "set"}\'') == 2


def test_pins_are_refused_without_a_rehearsal_vault(db: psycopg.Connection[Any], tmp_path: Path) -> None:
    def production() -> Any:
        raise InputRefused("clear PINs are for a rehearsal vault")

    path = write(tmp_path, city(cards=[card(1, online_opening_fen=1, pin="1111")]))
    before = _counts(db)
    with pytest.raises(InputRefused, match="rehearsal"):
        run_import(db, path, pins=production)
    assert _counts(db) == before


def test_without_an_open_day_no_money_comes_in(db: psycopg.Connection[Any], tmp_path: Path) -> None:
    def closed(cursor: Any, shards: Any) -> Any:
        raise ConfigurationError("no business day is open")

    before = _counts(db)
    with pytest.raises(ConfigurationError):
        run_import(db, write(tmp_path, city()), enter_day=closed)
    assert _counts(db) == before
    run_import(db, write(tmp_path, city(cards=[card(1, online_opening_fen=0)])), enter_day=closed)


def test_a_dry_run_tells_and_writes_nothing(db: psycopg.Connection[Any], tmp_path: Path) -> None:
    before = _counts(db)
    gate = Gate()
    report = run_import(db, write(tmp_path, city()), dry_run=True, enter_day=gate)
    assert report.kinds["cards"].created == 1
    assert report.openings[2001] == (1, 10_000)
    assert _counts(db) == before
    assert gate.shards == []


def test_a_fee_rule_that_held_on_a_closed_day_can_only_be_ended(
    db: psycopg.Connection[Any], tmp_path: Path
) -> None:
    rules = [{"account_kind": "ONLINE", "rate_ppm": 6000, "valid_from": "2024-01-01"}]
    run_import(db, write(tmp_path, city(fee_rules=rules)))
    db.execute(
        "INSERT INTO business_day (business_date, begins_at, ends_at, state)"
        " VALUES (%s - 1, now() - interval '25 hours', now() - interval '2 hours', 2)",
        (DAY,),
    )
    changed = [rules[0] | {"rate_ppm": 5000}]
    assert _faults(db, write(tmp_path, city(fee_rules=changed))) == {("fee_rules[0]", "valid_from")}
    late = [{"account_kind": "PURSE", "rate_ppm": 1, "valid_from": "2024-03-14"}]
    assert _faults(db, write(tmp_path, city(fee_rules=late))) == {("fee_rules[0]", "valid_from")}
    follow = [
        rules[0] | {"valid_to": "2024-03-14"},
        {"account_kind": "ONLINE", "rate_ppm": 5000, "valid_from": "2024-03-15"},
    ]
    report = run_import(db, write(tmp_path, city(fee_rules=follow)))
    assert report.kinds["fee_rules"] == (2, 1, 1)


def test_a_terminal_with_an_open_batch_stays_with_its_merchant_and_a_new_algorithm_ends_its_session(
    db: psycopg.Connection[Any], tmp_path: Path
) -> None:
    run_import(db, write(tmp_path, city()))
    terminal_no = _one(db, "SELECT terminal_no FROM terminal WHERE terminal_id = '33500005'")
    db.execute("INSERT INTO terminal_session VALUES (%s, 3, 4, 1, now())", (terminal_no,))
    db.execute(
        "INSERT INTO terminal_batch (terminal_no, batch_no, opened_on) VALUES (%s, 1, %s)", (terminal_no, DAY)
    )
    for generation in (3, 4):
        db.execute("INSERT INTO terminal_key_set VALUES (%s, %s, 'x', now())", (terminal_no, generation))
    document = city()
    document["merchants"][1]["state"] = "ACTIVE"
    document["terminals"][1]["merchant_id"] = document["merchants"][1]["merchant_id"]
    assert _faults(db, write(tmp_path, document)) == {("terminals[1]", "merchant_id")}
    document = city()
    document["terminals"][1]["mac_algorithm"] = 3
    run_import(db, write(tmp_path, document))
    assert _one(db, "SELECT generation, last_generation FROM terminal_session") == (5, 5)
    assert _one(db, "SELECT count(*) FROM terminal_key_set") == 0


def test_a_card_whose_records_came_first_keeps_its_number_and_gets_its_opening(
    db: psycopg.Connection[Any], tmp_path: Path
) -> None:
    db.execute("INSERT INTO purse_stray VALUES (card_key(%s), 777, 1, now())", (pan_of(1),))
    db.execute(
        "INSERT INTO purse (shard, card_no, asn, spent_fen, next_atc) VALUES (1, 777, %s, 200, 9)",
        ("0" + pan_of(1),),
    )
    run_import(db, write(tmp_path, city()))
    assert _one(db, "SELECT shard, card_no FROM card_route") == (1, 777)
    assert _one(db, "SELECT balance_fen, next_atc FROM purse") == (4_800, 9)


def test_ten_thousand_cards_come_in_with_serials_of_their_own(
    db: psycopg.Connection[Any], tmp_path: Path
) -> None:
    path = tmp_path / "cards-lot-7.csv"
    with path.open("w", encoding="utf-8") as stream:
        stream.write("pan,holder,valid_from,valid_through,online_opening_fen,purse_opening_fen,pin\n")
        for number in range(10_000):
            stream.write(f"{pan_of(number)},,2024-01-01,2034-01-01,{number + 1},100,123456\n")
    steps: list[tuple[str, int]] = []
    report = run_import(
        db, write(tmp_path, city(cards=[])), path, progress=lambda step, rows: steps.append((step, rows))
    )
    assert report.kinds["cards"] == (10_000, 10_000, 0)
    assert report.openings == {2001: (10_000, 50_005_000), 2002: (10_000, 1_000_000)}
    assert ("reading", 10_000) in steps
    assert _one(db, "SELECT count(*), count(DISTINCT entry_no) FROM posting") == (20_000, 20_000)
    low, high, blocks = _one(
        db, "SELECT min(entry_no), max(entry_no), (SELECT last_value FROM entry_no_block) FROM posting"
    )
    assert low >= 1
    assert high <= blocks * 10_000
    assert _one(db, "SELECT sum(balance_fen)::bigint FROM account") == 50_005_000
    assert [row[0] for row in db.execute("SELECT count(*) FROM card GROUP BY shard ORDER BY shard")] == [
        5_000,
        5_000,
    ]
    assert run_import(db, path).nothing_changed
