"""Windows of limits as parameters of the statement that writes them."""

from collections.abc import Sequence

from switch.ledger.limits import Window
from switch.storage.arrays import dates, int4s, int8s
from switch.storage.pipeline import Parameter

STATEMENTS = ("read_windows", "read_limits", "write_windows")


def window_columns(shard: int, windows: Sequence[Window]) -> dict[str, Parameter]:
    """Parameters of write_windows."""
    return {
        "shard": shard,
        "accounts": int8s([window.account_id for window in windows]),
        "days": dates([window.day for window in windows]),
        "day_fens": int8s([window.day_fen for window in windows]),
        "day_counts": int4s([window.day_count for window in windows]),
        "month_fens": int8s([window.month_fen for window in windows]),
        "month_counts": int4s([window.month_count for window in windows]),
    }
