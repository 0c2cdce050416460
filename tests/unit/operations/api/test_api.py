"""The API as its readers meet it: a real server over a closed city, every answer held against the document."""

import asyncio
import json
import re
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from datetime import date, timedelta
from hashlib import new as new_digest
from pathlib import Path
from typing import Any, NamedTuple

import aiohttp
import psycopg
import pytest
from aiohttp.test_utils import TestServer
from jsonschema import Draft202012Validator
from openapi_spec_validator import validate

from switch.clearing.close import CloseTerms, close_day, day_folder
from switch.clearing.day_reports import REPORTS, report_folder
from switch.operations.api import tokens, views
from switch.operations.api.openapi import document
from switch.operations.api.rate import Rate
from switch.operations.http import Readiness, health_app
from switch.storage.pool import connect, make_pool
from switch.telemetry.metrics import Metrics
from tests.conftest import AS_MIGRATED, database_url
from tests.helpers.clearing_day import CENTRE, OTHER, OWN, add_journal, add_participants, add_records
from tests.helpers.days import make_days

pytestmark = pytest.mark.server

GROCER, NOODLES = "993350054110001", "993310058120003"
ROLES = {
    "regulator": "regulator",
    "operator": "operator",
    "auditor": "auditor",
    "own": f"member:{OWN}",
    "other": f"member:{OTHER}",
    "grocer": f"merchant:{GROCER}",
    "noodles": f"merchant:{NOODLES}",
}


class City(NamedTuple):
    """A database with one closed day and one open, its files, and a token of every kind."""

    url: str
    folder: Path
    day: date
    tokens: dict[str, str]


async def build(url: str, folder: Path) -> City:
    terms = CloseTerms(OWN, CENTRE, "49993350", (0, 1), folder, lambda day: day.weekday() < 5, lead_s=0.05)
    async with await connect(url) as connection:
        first, *_ = await make_days(connection, 3)
        await add_participants(connection)
        await add_journal(connection, first, 400)
        await add_records(connection, first, 900_000, 1, [("10", 200), ("01", 70)])
        await close_day(connection, first, terms, "a tester")
        made = {}
        for name, text in ROLES.items():
            role, party = tokens.parse_role(text)
            made[name] = (await tokens.add(connection, name, role, party, days=30, actor="a tester")).text
    return City(url, folder, first, made)


@pytest.fixture(scope="module")
def city(server_url: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[City]:
    with psycopg.connect(server_url, autocommit=True) as server:
        server.execute(f"CREATE DATABASE api {AS_MIGRATED}".encode())
    yield asyncio.run(build(database_url(server_url, "api"), tmp_path_factory.mktemp("clearing")))
    with psycopg.connect(server_url, autocommit=True) as server:
        server.execute("DROP DATABASE api WITH (FORCE)")


class Api:
    """A client of it. Every JSON answer is checked against the document."""

    def __init__(self, base: str, session: aiohttp.ClientSession, city: City, metrics: Metrics) -> None:
        self.base = base
        self.session = session
        self.city = city
        self.metrics = metrics
        self.document = document("0")

    async def get(self, path: str, who: str = "", *, token: str | None = None) -> tuple[int, Any, Any]:
        """Status, content and headers."""
        secret = self.city.tokens[who] if who else token
        headers = {"Authorization": f"Bearer {secret}"} if secret is not None else {}
        async with self.session.get(f"{self.base}/api/v1{path}", headers=headers) as answer:
            body = await answer.read()
            if answer.content_type != "application/json":
                return answer.status, body, answer.headers
            content = json.loads(body)
            if path != "/openapi.json":
                self.hold(path.split("?")[0], str(answer.status), content)
            return answer.status, content, answer.headers

    def hold(self, path: str, status: str, content: Any) -> None:
        named = re.sub(r"(?<=/days/)[0-9]{4}-[0-9]{2}-[0-9]{2}", "{day}", path)
        place = self.document["paths"].get(named)
        schema = (
            place["get"]["responses"][status]["content"]["application/json"]["schema"]
            if place
            else {"$ref": "#/components/schemas/Error"}
        )
        Draft202012Validator({**schema, "components": self.document["components"]}).validate(content)


@asynccontextmanager
async def serving(
    city: City, note: str = "", rate: Rate | None = None, *, wait_s: float = 60.0
) -> AsyncIterator[Api]:
    """wait_s: for a connection to the database."""
    pool = make_pool(city.url, size_max=2, size_min=0, wait_s=wait_s)
    await pool.open()
    metrics = Metrics()
    app = health_app(
        Readiness(), metrics, views.api_app(pool.connection, city.folder, lambda: note, metrics, rate)
    )
    async with TestServer(app) as server, aiohttp.ClientSession() as session:
        yield Api(str(server.make_url("")).rstrip("/"), session, city, metrics)
    await pool.close()


@pytest.fixture
async def api(city: City) -> AsyncIterator[Api]:
    async with serving(city) as one:
        yield one


async def test_the_document_is_valid_needs_no_token_and_names_every_path(api: Api) -> None:
    status, content, _ = await api.get("/openapi.json")
    assert status == 200
    validate(content)
    assert content["openapi"].startswith("3.1")
    served = {
        resource.canonical.removeprefix("/api/v1").replace("{report}", "float")
        for resource in views.api_app(None, api.city.folder, str, api.metrics).router.resources()  # type: ignore[arg-type]
    }
    assert served <= content["paths"].keys()


async def test_every_answer_of_an_auditor_is_as_the_document_says(api: Api) -> None:
    day = api.city.day.isoformat()
    for path in (
        "/close",
        "/days",
        f"/days/{day}",
        *(f"/days/{day}/{part}" for part in ("steps", "summary", "float", "files", "reports")),
    ):
        status, content, _ = await api.get(path, "auditor")
        assert status == 200, (path, content)
    _, days, _ = await api.get("/days", "auditor")
    assert [(one["day"], one["state"]) for one in days["days"]] == [
        ((api.city.day + timedelta(days=1)).isoformat(), "open"),
        (day, "closed"),
    ]
    _, steps, _ = await api.get(f"/days/{day}/steps", "auditor")
    assert [step["step"] for step in steps["steps"]][-1] == "evidence"
    for report in REPORTS:
        status, content, _ = await api.get(f"/days/{day}/reports/{report.name}?limit=1000", "auditor")
        assert (status, content["more"]) == (200, False)
        lines = (
            report_folder(api.city.folder, api.city.day) / f"{report.name}-{api.city.day:%Y%m%d}.csv"
        ).read_bytes()
        assert len(content["lines"]) == lines.count(b"\r\n") - 1
        status, csv, headers = await api.get(f"/days/{day}/reports/{report.name}.csv", "auditor")
        assert (status, csv) == (200, lines)
        assert headers["X-Content-SM3"] == new_digest("sm3", lines).hexdigest().upper()


async def test_a_report_that_a_day_was_closed_without_is_not_there(api: Api) -> None:
    day = api.city.day
    with psycopg.connect(api.city.url, autocommit=True) as link:
        link.execute("SET session_replication_role = replica")
        link.execute("CREATE TABLE kept AS SELECT * FROM clearing_report WHERE report = 'kinds'")
        link.execute("DELETE FROM clearing_report WHERE report = 'kinds'")
        try:
            assert (await api.get(f"/days/{day}/reports/kinds.csv", "auditor"))[0] == 404
        finally:
            link.execute("INSERT INTO clearing_report SELECT * FROM kept")
            link.execute("DROP TABLE kept")
    assert (await api.get(f"/days/{day}/reports/kinds.csv", "auditor"))[0] == 200


async def test_pages_join_and_what_breaks_a_rule_is_told_by_name(api: Api) -> None:
    day = api.city.day.isoformat()
    whole = (await api.get(f"/days/{day}/reports/merchants", "operator"))[1]["lines"]
    pages: list[Any] = []
    for offset in range(0, len(whole), 3):
        page = (await api.get(f"/days/{day}/reports/merchants?limit=3&offset={offset}", "operator"))[1]
        assert page["more"] == (offset + 3 < len(whole))
        pages += page["lines"]
    assert pages == whole
    for path, words in (
        ("/days?limit=0", "limit: a whole number from 1 to 1000"),
        ("/days?limit=1001", "limit"),
        ("/days?limit=%C2%B2", "limit"),
        ("/days?offset=-1", "offset"),
        ("/days?before=yesterday", "before: YYYY-MM-DD"),
        ("/days?limti=3", "parameters: limit, offset, before"),
        ("/days?limit=3&limit=4", "each parameter once"),
        (f"/days/{day}/steps?limit=3", "parameters: none"),
        ("/days/2026-13-01", "day: YYYY-MM-DD"),
        ("/days/20261126", "day: YYYY-MM-DD"),
    ):
        status, content, _ = await api.get(path, "operator")
        assert status == 400, path
        assert words in content["error"]


# path                                  member       merchant   regulator
SEEN = """
    /close                              404          404        200
    /days                               200          200        200
    /days/DAY                           200          200        200
    /days/NEXT                          404          404        200
    /days/DAY/steps                     404          404        200
    /days/DAY/summary                   200          200        200
    /days/NEXT/summary                  404          404        404
    /days/DAY/float                     404          404        200
    /days/DAY/files                     200          200        200
    /days/DAY/reports                   200          200        200
    /days/DAY/reports/institutions      200          404        200
    /days/DAY/reports/settlement        200          404        200
    /days/DAY/reports/merchants         404          200        200
    /days/DAY/reports/kinds             404          404        200
    /days/DAY/reports/suspense_loads    404          404        200
    /days/DAY/reports/institutions.csv  404          404        200
    /days/DAY/reports/merchants.csv     404          404        200
    /days/DAY/reports/nothing           404          404        404
    /days/2001-01-01                    404          404        404
    /nothing                            404          404        404
    /days/DAY/files/openapi.json        404          404        404
    /days/DAY/files/%2E%2E%2Fmarks      404          404        404
    /days/DAY/files/%00                 404          404        404
"""


@pytest.mark.parametrize("line", SEEN.strip().splitlines())
async def test_each_role_sees_what_is_its_own_and_all_else_is_not_there(api: Api, line: str) -> None:
    path, *statuses = line.split()
    path = path.replace("DAY", api.city.day.isoformat()).replace(
        "NEXT", (api.city.day + timedelta(days=1)).isoformat()
    )
    for who, status in zip(("other", "noodles", "regulator"), statuses, strict=True):
        found, content, _ = await api.get(path, who)
        assert str(found) == status, who
        if found == 404:
            assert content == {"error": "not found"}
    assert (await api.get(path))[0] == 401


async def test_lines_and_files_of_others_are_in_no_answer(api: Api) -> None:
    day = api.city.day
    positions = (await api.get(f"/days/{day}/reports/institutions", "other"))[1]["lines"]
    assert [line["institution"] for line in positions] == [OTHER]
    assert (await api.get(f"/days/{day}/summary", "other"))[1].keys() == {"day", "institutions", "more"}
    merchants = (await api.get(f"/days/{day}/summary", "grocer"))[1]["merchants"]
    assert [line["merchant"] for line in merchants] == [GROCER]
    every = (await api.get(f"/days/{day}/files?limit=1000", "operator"))[1]["files"]
    for who, party in (("other", OTHER), ("own", OWN), ("grocer", GROCER)):
        listed = (await api.get(f"/days/{day}/files", who))[1]["files"]
        assert listed == [file for file in every if file["party"] == party]
        for file in every:
            status, content, headers = await api.get(f"/days/{day}/files/{file['name']}", who)
            assert status == (200 if file in listed else 404)
            if status == 200:
                assert content == (day_folder(api.city.folder, day) / file["name"]).read_bytes()
                assert (
                    headers["X-Content-SM3"] == file["sm3"] == new_digest("sm3", content).hexdigest().upper()
                )
    # A regulator sees which files there are and not the card numbers in them.
    assert (await api.get(f"/days/{day}/files?limit=1000", "regulator"))[1]["files"] == every
    assert (await api.get(f"/days/{day}/files/{every[0]['name']}", "regulator"))[0] == 404


async def test_without_a_token_that_holds_there_is_nothing(api: Api, city: City) -> None:
    good = city.tokens["operator"]
    other = city.tokens["auditor"]
    for token in (
        "",
        "x",
        good[:-1],
        good + "A",
        good[:-1] + ("A" if good[-1] != "A" else "B"),
        good.replace("csw_", "csw_0"),
        "csw_999999999_" + "A" * 43,
        f"{good.rsplit('_', 1)[0]}_{other.split('_', 2)[2]}",
        "csw_1_" + "é" * 43,
        "A" * 5_000,
    ):
        status, content, headers = await api.get("/days", token=token)
        assert status == 401, token
        assert content == {"error": "a token that holds is needed"}
        assert headers["WWW-Authenticate"].startswith("Bearer")
    async with api.session.get(
        f"{api.base}/api/v1/days", headers={"Authorization": f"Basic {good}"}
    ) as answer:
        assert answer.status == 401
    async with api.session.get(f"{api.base}/api/v1/days?token={good}") as answer:
        assert answer.status == 401
    async with api.session.post(
        f"{api.base}/api/v1/days", headers={"Authorization": f"Bearer {good}"}
    ) as answer:
        assert answer.status == 405


async def test_a_token_ends_at_once_when_it_is_revoked_and_by_itself_when_its_time_is_over(
    api: Api, city: City
) -> None:
    async with await connect(city.url) as connection:
        made = await tokens.add(connection, "short", tokens.Role.AUDITOR, "", days=1, actor="a tester")
        assert made.text not in repr(made)
        assert (await api.get("/days", token=made.text))[0] == 200
        stored = await (await connection.execute("SELECT * FROM api_token")).fetchall()
        assert made.text not in str(stored)
        assert made.text.split("_", 2)[2] not in str(stored)
        assert await tokens.revoke(connection, made.token_no, "a tester") == "short"
        assert (await api.get("/days", token=made.text))[0] == 401
        over = await tokens.add(connection, "over", tokens.Role.AUDITOR, "", days=1, actor="a tester")
        await connection.execute(
            "UPDATE api_token SET expires_at = clock_timestamp() WHERE token_no = %s", (over.token_no,)
        )
        assert (await api.get("/days", token=over.text))[0] == 401
        states = {one["name"]: one["state"] for one in await tokens.listed(connection)}
        assert (states["short"], states["over"], states["operator"]) == ("revoked", "expired", "valid")
        with pytest.raises(psycopg.errors.RestrictViolation):
            await connection.execute("DELETE FROM api_token")


async def test_health_and_metrics_need_no_token_and_count_what_was_answered(api: Api) -> None:
    await api.get("/days", "operator")
    await api.get("/days")
    for path in ("/livez", "/readyz", "/metrics"):
        async with api.session.get(api.base + path) as answer:
            assert answer.status == 200
            text = await answer.text()
    assert 'cardswitch_api_answers_total{role="operator",status="200"} 1.0' in text
    assert 'cardswitch_api_answers_total{role="none",status="401"} 1.0' in text


async def test_a_file_that_was_changed_on_disk_never_arrives_whole(api: Api) -> None:
    day = api.city.day
    file = (await api.get(f"/days/{day}/files", "own"))[1]["files"][1]
    path = day_folder(api.city.folder, day) / file["name"]
    whole = path.read_bytes()
    try:
        path.write_bytes(whole[:-9] + bytes([whole[-9] ^ 1]) + whole[-8:])
        with pytest.raises(aiohttp.ClientError):
            await api.get(f"/days/{day}/files/{file['name']}", "own")
        path.write_bytes(whole[:-1])
        assert (await api.get(f"/days/{day}/files/{file['name']}", "own"))[0] == 503
        path.unlink()
        assert (await api.get(f"/days/{day}/files/{file['name']}", "own"))[0] == 503
    finally:
        path.write_bytes(whole)
    assert (await api.get(f"/days/{day}/files/{file['name']}", "own"))[:2] == (200, whole)


async def test_whoever_asks_too_often_is_told_when_to_come_again_and_others_do_not_notice(city: City) -> None:
    async with serving(city, rate=Rate(per_s=0.01, burst=2.0)) as api:
        assert [(await api.get("/days", "operator"))[0] for _ in range(3)] == [200, 200, 429]
        status, content, headers = await api.get("/close", "operator")
        assert (status, content) == (429, {"error": "too many requests"})
        assert 1 <= int(headers["Retry-After"]) <= 100
        assert (await api.get("/days", "auditor"))[0] == 200


def test_a_bucket_lets_a_burst_through_and_then_so_many_a_second() -> None:
    rate = Rate(per_s=2.0, burst=3.0, buckets_max=2)
    assert [rate.wait_s(1, 10.0) for _ in range(4)] == [0.0, 0.0, 0.0, 0.5]
    assert rate.wait_s(2, 10.0) == 0.0
    assert rate.wait_s(1, 10.25) == pytest.approx(0.25)
    assert rate.wait_s(1, 10.5) == 0.0
    assert rate.wait_s(3, 10.5) == rate.wait_s(1, 20.0) == 0.0


async def test_a_database_that_is_away_is_503_and_the_note_of_the_close_is_shown(city: City) -> None:
    async with serving(city, "closing 2026-11-26: files, 3 s") as api:
        assert (await api.get("/close", "operator"))[1]["note"] == "closing 2026-11-26: files, 3 s"
    elsewhere = city._replace(url=city.url.replace("/api?", "/nowhere?"))
    async with serving(elsewhere, wait_s=1.0) as api:
        status, content, _ = await api.get("/days", "operator")
        assert (status, content) == (503, {"error": "cannot be had now"})
