"""Fees in SQL are fees in Python, and netting sums to zero, for any amounts and rules."""

import psycopg
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from switch.clearing.fees import FeeRule, Weights, fee_split
from switch.clearing.netting import Flow, net_positions

AMOUNTS = st.one_of(
    st.integers(-(10**12) + 1, 10**12 - 1), st.integers(-2000, 2000), st.sampled_from([0, 1, -1, 131, 132])
)
WEIGHT = st.one_of(st.integers(0, 10), st.integers(0, 1_000_000))
RULES = st.builds(
    FeeRule,
    rate_ppm=st.integers(0, 1_000_000),
    minimum_fen=st.integers(0, 10_000),
    cap_fen=st.one_of(st.none(), st.integers(0, 10_000)),
    weights=st.builds(Weights, WEIGHT, WEIGHT, WEIGHT).filter(lambda weights: sum(weights) > 0),
)

QUERY = """
SELECT f.fee, f.fee * wi / (wi + ws + wa), f.fee * ws / (wi + ws + wa)
  FROM unnest(%s::bigint[], %s::integer[], %s::bigint[], %s::bigint[], %s::integer[], %s::integer[], %s::integer[])
       WITH ORDINALITY AS i (amount, ppm, minimum, cap, wi, ws, wa, n)
 CROSS JOIN LATERAL (SELECT fee_of(amount, ppm, minimum, cap) AS fee) AS f
 ORDER BY n
"""


@pytest.mark.server
@settings(max_examples=50, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(items=st.lists(st.tuples(AMOUNTS, RULES), min_size=1, max_size=200))
def test_the_databases_fee_is_the_pure_fee(postgres_url: str, items: list[tuple[int, FeeRule]]) -> None:
    columns = [
        [amount for amount, _ in items],
        [rule.rate_ppm for _, rule in items],
        [rule.minimum_fen for _, rule in items],
        [rule.cap_fen for _, rule in items],
        *([rule.weights[place] for _, rule in items] for place in range(3)),
    ]
    with psycopg.connect(postgres_url) as connection:
        rows = connection.execute(QUERY, columns).fetchall()
    assert rows == [fee_split(amount, rule)[:3] for amount, rule in items]


@given(amount=AMOUNTS, rule=RULES)
def test_shares_make_the_fee_and_no_fee_exceeds_its_amount(amount: int, rule: FeeRule) -> None:
    split = fee_split(amount, rule)
    assert split.fee_fen == split.issuer_fen + split.switch_fen + split.acquirer_fen
    assert abs(split.fee_fen) <= abs(amount)
    assert all(share * amount >= 0 for share in split), "nobody is paid for being charged"
    assert rule.cap_fen is None or abs(split.fee_fen) <= rule.cap_fen


INSTITUTIONS = st.sampled_from(["99993350", "99993310", "99992900", "99990571"])


@given(items=st.lists(st.tuples(INSTITUTIONS, INSTITUTIONS, AMOUNTS, RULES), max_size=60))
def test_netting_single_transactions_or_their_sums_gives_the_same_positions_and_zero(
    items: list[tuple[str, str, int, FeeRule]],
) -> None:
    single = []
    sums: dict[tuple[str, str], Flow] = {}
    for issuer, acquirer, amount, rule in items:
        split = fee_split(amount, rule)
        flow = Flow(issuer, acquirer, 1, amount, split.issuer_fen, split.switch_fen)
        single.append(flow)
        before = sums.get((issuer, acquirer), Flow(issuer, acquirer, 0, 0, 0, 0))
        sums[issuer, acquirer] = Flow(
            issuer, acquirer, *(a + b for a, b in zip(before[2:], flow[2:], strict=True))
        )
    one, many = net_positions(single), net_positions(sums.values())
    assert one == many
    assert sum(position.net_fen for position in one.positions) + one.centre_fen == 0
