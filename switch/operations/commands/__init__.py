"""The commands of operators, by name. `serve` and `sim` join them in switch/__main__.py."""

from collections.abc import Callable
from typing import Any

import typer

from switch.operations.commands import (
    api,
    bindings,
    card,
    cases,
    config,
    export,
    fees,
    hosts,
    hotlist,
    interop,
    iso8583,
    keys,
    limits,
    lists,
    loads,
    medical,
    mqtt,
    parameters,
    purse,
    reconcile,
    registry,
    report,
    risk,
    routes,
    seal,
    settlement,
    terminals,
    trips,
)
from switch.operations.commands.audit import audit
from switch.operations.commands.close import close
from switch.operations.commands.deliver import app as deliveries
from switch.operations.commands.deliver import deliver
from switch.operations.commands.doctor import doctor
from switch.operations.commands.files import app as files
from switch.operations.commands.fleet import fleet
from switch.operations.commands.setup import init, migrate
from switch.operations.commands.vectors import vectors
from switch.operations.commands.verify import verify

COMMANDS: dict[str, Callable[..., Any]] = {
    "init": init,
    "migrate": migrate,
    "doctor": doctor,
    "vectors": vectors,
    "close": close,
    "deliver": deliver,
    "audit": audit,
    "fleet": fleet,
    "verify": verify,
}
COMMAND_GROUPS: dict[str, typer.Typer] = {
    "api": api.app,
    "bindings": bindings.app,
    "card": card.app,
    "cases": cases.app,
    "config": config.app,
    "fees": fees.app,
    "export": export.app,
    "hosts": hosts.app,
    "interop": interop.app,
    "iso8583": iso8583.app,
    "keys": keys.app,
    "limits": limits.app,
    "lists": lists.app,
    "loads": loads.app,
    "medical": medical.app,
    "mqtt": mqtt.app,
    "purse": purse.app,
    "reconcile": reconcile.app,
    "registry": registry.app,
    "report": report.app,
    "risk": risk.app,
    "routes": routes.app,
    "seal": seal.app,
    "settlement": settlement.app,
    "parameters": parameters.app,
    "terminals": terminals.app,
    "hotlist": hotlist.app,
    "files": files,
    "deliveries": deliveries,
    "trips": trips.app,
}
