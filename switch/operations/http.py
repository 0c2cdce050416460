"""Health and metrics over HTTP: /livez, /readyz (?verbose), /metrics; beside them the API, which wants a token."""

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field

from aiohttp import web

from switch.operations.api.door import ROOT
from switch.telemetry.metrics import Metrics

Check = Callable[[], Awaitable[str]]  # "" when all is well, else what is wrong


@dataclass(slots=True)
class Readiness:
    """What must hold before terminals should come here."""

    checks: dict[str, Check] = field(default_factory=dict)
    notes: dict[str, Callable[[], str]] = field(default_factory=dict)  # shown, and no reason to stay away
    draining: bool = False

    async def faults(self) -> Mapping[str, str]:
        """Each check by name with what is wrong, "" for nothing."""
        found = {name: await check() for name, check in self.checks.items()}
        if self.draining:
            found["service"] = "draining"
        return found


def health_app(readiness: Readiness, metrics: Metrics, api: web.Application | None = None) -> web.Application:
    """The web application of one process. api: what stands under /api/v1."""

    async def livez(_request: web.Request) -> web.Response:
        return web.Response(text="ok\n")

    async def readyz(request: web.Request) -> web.Response:
        faults = await readiness.faults()
        ready = not any(faults.values())
        lines = [f"[{'-' if fault else '+'}] {name} {fault or 'ok'}" for name, fault in faults.items()]
        notes = {name: read() for name, read in readiness.notes.items()}
        lines += [f"[{'~' if note else '+'}] {name} {note or 'ok'}" for name, note in notes.items()]
        lines.append("ready" if ready else "not ready")
        text = "\n".join(lines if "verbose" in request.query or not ready else lines[-1:])
        return web.Response(text=text + "\n", status=200 if ready else 503)

    async def exposition(_request: web.Request) -> web.Response:
        return web.Response(
            body=metrics.text(), headers={"Content-Type": "text/plain; version=0.0.4; charset=utf-8"}
        )

    async def index(_request: web.Request) -> web.Response:
        return web.Response(
            text="citizen card switch\n\n/livez\n/readyz?verbose\n/metrics\n/api/v1/openapi.json\n"
        )

    app = web.Application(client_max_size=4096)
    app.router.add_get("/", index)
    app.router.add_get("/livez", livez)
    app.router.add_get("/readyz", readyz)
    app.router.add_get("/metrics", exposition)
    if api is not None:
        app.add_subapp(ROOT, api)
    return app


async def start_http(app: web.Application, host: str, port: int) -> tuple[web.AppRunner, int]:
    """Serve; returns what to clean up and the port. OSError when it is taken."""
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=1.0)
    await runner.setup()
    site = web.TCPSite(runner, host, port)
    await site.start()
    bound: int = runner.addresses[0][1]
    return runner, bound
