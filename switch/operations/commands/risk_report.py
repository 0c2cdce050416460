"""Lines for people about rules for risk: a trial as a table, a case in one line."""

from collections.abc import Iterator

from switch.domain.calendar import SHANGHAI
from switch.domain.money import yuan
from switch.purse.risk.bench import Tried
from switch.purse.risk.cases import Case


def lines_of_trial(tried: Tried) -> Iterator[str]:
    """What rules would have marked, and how much of that was right."""
    yield (
        f"{tried.first} to {tried.last}: {tried.records:,} records,"
        f" {tried.confirmed:,} labelled as faulty and {tried.false:,} as good"
    )
    yield f"{'rule':32}{'records':>10}{'cases':>8}{'cards':>8}{'CNY':>14}{'faulty':>8}{'good':>8}{'precision':>11}"
    for score in tried.rules:
        precision = "-" if score.precision is None else f"{score.precision:.3f}"
        yield (
            f"{score.rule:32}{score.records:>10,}{score.matters:>8,}{score.cards:>8,}{yuan(score.amount_fen):>14}"
            f"{score.confirmed:>8,}{score.false:>8,}{precision:>11}"
        )
    if tried.kinds:
        yield f"{'label':32}{'records':>10}{'marked':>8}  by"
        for kind in tried.kinds:
            yield f"{kind.kind:32}{kind.records:>10,}{kind.marked:>8,}  {', '.join(kind.rules) or '-'}"


def line_of_case(case: Case) -> str:
    """A case with its end, where it has one."""
    at = case.opened_at.astimezone(SHANGHAI)
    end = f"  {case.verdict} by {case.actor}: {case.reason}" if case.verdict else ""
    return (
        f"case {case.case_no:>6}  {at:%Y-%m-%d %H:%M}  {case.rule:32} {case.matter} {case.owner}"
        f"  {case.hits} records, {yuan(case.amount_fen)} CNY{end}"
    )
