"""Named queries, kept as SQL in a `queries.sql` beside the package that owns the tables.

A query begins with `-- name: its_name`; comment lines between that and the statement are for readers and are not sent.
"""

import re
from collections.abc import Mapping
from importlib import resources
from types import MappingProxyType

_NAME = re.compile(r"^-- name: *([a-z][a-z0-9_]*) *$", re.MULTILINE)


def load(package: str, file: str = "queries.sql") -> Mapping[str, str]:
    """Read the named queries of a package.

    Raises ValueError at import when a name stands twice, a query is empty, or text stands before the first name.
    """
    text = resources.files(package).joinpath(file).read_text(encoding="utf-8")
    head, *parts = _NAME.split(text)
    if any(line.strip() and not line.startswith("--") for line in head.splitlines()):
        raise ValueError(f"{package}/{file}: a statement stands before the first name")
    queries: dict[str, str] = {}
    for name, body in zip(parts[::2], parts[1::2], strict=True):
        lines = [line for line in body.strip().splitlines() if not line.lstrip().startswith("--")]
        query = "\n".join(lines).strip().removesuffix(";")
        if not query:
            raise ValueError(f"{package}/{file}: query {name} is empty")
        if name in queries:
            raise ValueError(f"{package}/{file}: query {name} stands twice")
        queries[name] = query
    return MappingProxyType(queries)
