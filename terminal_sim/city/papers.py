"""What the switch is told before the day, in the forms its operators use: a rehearsal key file and a registry file.

And what the city tells about itself: `describe` holds clear keys and PINs, so it exists for rehearsal only, in files that
only their owner reads.
"""

import json
import os
from pathlib import Path
from typing import Any

from terminal_sim.city import bank
from terminal_sim.city.plan import (
    CENTRE,
    FOREIGN_ISSUER,
    NEIGHBOUR,
    OWN,
    OWN_ISSUER,
    RULES_FROM,
    TRANSIT,
    CardState,
    CityCard,
    CityPlan,
)
from terminal_sim.crypto import Algorithm, check_value
from terminal_sim.frames import Terminal

ALGORITHM_NAMES = {Algorithm.TRIPLE_DES: "3DES", Algorithm.SM4: "SM4"}
_REGISTRY_STATE = {
    CardState.LOST: "LOSS_FORMAL",
    CardState.NOT_HANDED_OVER: "READY",
    CardState.REPLACED: "REPLACED",
}


def rehearsal_keys(plan: CityPlan) -> dict[str, Any]:
    """The document for `cardswitch keys ceremony --rehearsal` (docs/keys.md, section 8)."""
    keys: list[dict[str, Any]] = [
        {"type": "TMMK", "algorithm": ALGORITHM_NAMES[algorithm], "components": [key.hex().upper()]}
        for algorithm, key in plan.keys.tmmk.items()
    ]
    for root_set in plan.keys.root_sets:
        for kind, root in root_set.roots.items():
            keys.append(
                {
                    "type": kind.value,
                    "algorithm": ALGORITHM_NAMES[root_set.algorithm],
                    "version": root_set.version,
                    "index": root_set.key_index,
                    "components": [root.hex().upper()],
                    "kcv": check_value(root_set.algorithm, root).hex().upper(),
                }
            )
    return {"format": "cardswitch-rehearsal-keys/1", "keys": keys + bank.zone_keys(plan)}


def _card(card: CityCard) -> dict[str, Any]:
    holder = card.holder
    entry: dict[str, Any] = {
        "pan": card.pan,
        "holder": f"holder {holder.number}",
        "valid_from": card.valid_from.isoformat(),
        "valid_through": card.valid_through.isoformat(),
    }
    if card.state in _REGISTRY_STATE:
        entry["state"] = _REGISTRY_STATE[card.state]
    if holder.online_fen is not None:
        entry["online_opening_fen"] = holder.online_fen
    if holder.medical_fen is not None:
        entry["medical_opening_fen"] = holder.medical_fen
    if holder.pin is not None:
        entry["pin"] = holder.pin
    if card.purse_fen is not None:
        entry["purse_opening_fen"] = card.purse_fen
        entry["purse_offline_atc"] = card.offline_atc
    return entry


def _fee_rules(plan: CityPlan) -> list[dict[str, Any]]:
    entries = []
    for rule in plan.fee_rules:
        entry: dict[str, Any] = {
            "account_kind": rule.account_kind,
            "rate_ppm": rule.rate_ppm,
            "minimum_fen": rule.minimum_fen,
            "valid_from": RULES_FROM.isoformat(),
        }
        if rule.cap_fen is not None:
            entry["cap_fen"] = rule.cap_fen
        if rule.category:
            entry["category"] = rule.category
        if rule.merchant_id:
            entry["merchant_id"] = rule.merchant_id
        entries.append(entry)
    return entries


def registry(plan: CityPlan) -> dict[str, Any]:
    """The document for `cardswitch registry import` (docs/registry.md)."""
    return {
        "format": "citizen-card-registry",
        "version": 1,
        "note": f"virtual city, seed {plan.seed}",
        "institutions": [
            {"institution_id": OWN, "name": "市民卡服務公司 Citizen Card Company", "role": "ISSUER"},
            {"institution_id": TRANSIT, "name": "公交結算中心 Transit Settlement", "role": "ACQUIRER"},
            {"institution_id": CENTRE, "name": "清算中心 Clearing Centre", "role": "CENTRE"},
            {"institution_id": NEIGHBOUR, "name": "鄰市 Neighbour City", "role": "CITY"},
            {"institution_id": bank.BANK, "name": "市民銀行 Citizens' Bank", "role": "BANK"},
        ],
        "card_issuers": [
            {"issuer_id": OWN_ISSUER.hex().upper(), "institution_id": OWN, "own": True},
            {"issuer_id": FOREIGN_ISSUER.hex().upper(), "institution_id": NEIGHBOUR, "own": False},
        ],
        "merchants": [
            {
                "merchant_id": merchant.merchant_id,
                "name": merchant.trade.name,
                "category": merchant.trade.category,
                "acquirer_id": merchant.acquirer_id,
            }
            for merchant in plan.everybody
        ],
        "terminals": [
            {
                "terminal_id": terminal.terminal_id,
                "merchant_id": terminal.merchant_id,
                "mac_algorithm": terminal.mac_id,
                "cash_loads": terminal.merchant_id == plan.hall.merchant_id,
            }
            for terminal in plan.terminals
        ],
        "psams": [
            {
                "psam_no": vehicle.psam_no,
                "merchant_id": vehicle.terminal.merchant_id,
                "terminal_id": vehicle.terminal.terminal_id,
            }
            for vehicle in plan.vehicles
        ],
        "fee_rules": _fee_rules(plan),
        "cards": [_card(card) for card in (*plan.cards, *plan.guest_cards)],
        "bindings": bank.bindings(plan),
    }


def _described_terminal(terminal: Terminal) -> dict[str, Any]:
    return {
        "terminal_id": terminal.terminal_id,
        "merchant_id": terminal.merchant_id,
        "mac_algorithm": terminal.mac_id,
        "key_algorithm": ALGORITHM_NAMES[terminal.algorithm],
        "sign_on": terminal.sign_on_mode,
        "tmk": terminal.tmk.hex().upper(),
        "tmk_kcv": check_value(terminal.algorithm, terminal.tmk).hex().upper(),
    }


def _described_card(card: CityCard) -> dict[str, Any]:
    return {
        "pan": card.pan,
        "asn": card.asn,
        "sequence": card.data.sequence,
        "expiry": card.data.expiry,
        "issuer_id": (FOREIGN_ISSUER if card.foreign else OWN_ISSUER).hex().upper(),
        "state": card.state.name,
        "pin": card.holder.pin,
        "online_opening_fen": card.holder.online_fen,
        "medical_opening_fen": card.holder.medical_fen,
        "purse_opening_fen": card.purse_fen,
        "purse_offline_atc": card.offline_atc,
    }


def describe(
    plan: CityPlan,
    *,
    host: str | None = None,
    port: int | None = None,
    http: str | None = None,
    mqtt_port: int | None = None,
) -> dict[str, Any]:
    """The city with clear keys and PINs, for people who bring their own terminals. docs/demo.md names the fields."""
    return {
        "format": "cardswitch-city/1",
        "rehearsal": True,
        "seed": plan.seed,
        "purchases": plan.purchases,
        "terminals_host": host,
        "terminals_port": port,
        "http": http,
        "mqtt_port": mqtt_port,
        "keys": rehearsal_keys(plan)["keys"],
        "merchants": [
            {
                "merchant_id": merchant.merchant_id,
                "name": merchant.trade.name,
                "category": merchant.trade.category,
                "acquirer_id": merchant.acquirer_id,
            }
            for merchant in plan.everybody
        ],
        "guests": {
            "terminals": [_described_terminal(terminal) for terminal in plan.guests],
            "cards": [_described_card(card) for card in plan.guest_cards],
        },
        "terminals": [_described_terminal(terminal) for terminal in plan.terminals],
        "psams": [
            {
                "psam_no": vehicle.psam_no,
                "terminal_id": vehicle.terminal.terminal_id,
                "merchant_id": vehicle.terminal.merchant_id,
            }
            for vehicle in plan.vehicles
        ],
        "kiosks": [
            {"terminal_id": kiosk.terminal.terminal_id, "psam_no": kiosk.psam_no} for kiosk in plan.kiosks
        ],
        "cards": [_described_card(card) for card in (*plan.cards, *plan.guest_cards, *plan.foreign_cards)],
    }


def write_private(path: Path, document: dict[str, Any] | list[dict[str, Any]]) -> None:
    """Write JSON that only its owner may read; an older file is replaced whole."""
    partial = path.with_name(path.name + ".tmp")
    handle = os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(handle, "w", encoding="utf-8") as stream:
        json.dump(document, stream, ensure_ascii=False, indent=1)
        stream.write("\n")
    partial.replace(path)
