"""The growth of a close's time as a picture: `python -m loadtests.growth_picture BENCH.json… > docs/close_growth.svg`.

BENCH.json: what `python -m loadtests.run --only close` printed, in one run or several. Both scales are logarithmic, so what grows linearly is a line of slope 1; a
dashed one through the largest day shows where that would lie. By hand, since a chart of four points needs no library.
"""

import json
import math
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Final

WIDTH, HEIGHT = 720, 420
LEFT, RIGHT, TOP, BOTTOM = 70, 50, 50, 60
LINES: Final = (
    ("close, all files and the seal", "seconds", "#1f5fa8"),
    ("least: plain COPY + SM3", "least_s", "#777777"),
)
Point = tuple[float, float]


def picture(documents: Sequence[dict[str, Any]]) -> str:
    """The SVG text."""
    found = [one | {"least_s": _least_s(one)} for document in documents for one in document["close"]["sizes"]]
    days = sorted(found, key=lambda one: int(one["transactions"]))
    at = [float(one["transactions"]) for one in days]
    values = [float(one[name]) for one in days for _, name, _ in LINES]
    across, up = _decades(at), _decades(values)
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" font-family="sans-serif" font-size="13">',
        f'<rect width="{WIDTH}" height="{HEIGHT}" fill="white"/>',
        f'<text x="{LEFT}" y="26" font-size="16">Seconds to close a day, by its transactions ({documents[-1]["at"][:10]})</text>',
        *_grid(across, up),
    ]
    place = _Scale(across, up)
    largest = days[-1]
    linear = [(n, largest["seconds"] * n / largest["transactions"]) for n in (at[0], at[-1])]
    parts.append(
        _line([place(point) for point in linear], "#1f5fa8", 'stroke-dasharray="4 4" stroke-width="1"')
    )
    for row, (label, name, colour) in enumerate(LINES):
        points = [place((n, float(one[name]))) for n, one in zip(at, days, strict=True)]
        parts.append(_line(points, colour, 'stroke-width="2"'))
        parts += [f'<circle cx="{x:.1f}" cy="{y:.1f}" r="4" fill="{colour}"/>' for x, y in points]
        parts += [
            f'<text x="{x + 8:.1f}" y="{y + 18:.1f}" fill="{colour}">{_short(float(one[name]))}</text>'
            for (x, y), one in zip(points, days, strict=True)
        ]
        parts.append(f'<text x="{LEFT + 14}" y="{TOP + 20 + 18 * row}" fill="{colour}">{label}</text>')
    parts.append(
        f'<text x="{LEFT + 14}" y="{TOP + 56}" fill="#1f5fa8">dashed: linear from the largest day</text>'
    )
    return "\n".join([*parts, "</svg>", ""])


def _least_s(one: dict[str, Any]) -> float:
    yard = one["yardstick"]
    return float(yard["copy_entries_s"] + yard["sm3_s"])


def _decades(values: Sequence[float]) -> tuple[int, int]:
    """Powers of ten that enclose the values."""
    low, high = math.floor(math.log10(min(values))), math.ceil(math.log10(max(values)))
    return low, max(high, low + 1)


class _Scale:
    def __init__(self, across: tuple[int, int], up: tuple[int, int]) -> None:
        self._across, self._up = across, up

    def __call__(self, point: Point) -> Point:
        """Where a point lies in the picture."""
        x = (math.log10(point[0]) - self._across[0]) / (self._across[1] - self._across[0])
        y = (math.log10(point[1]) - self._up[0]) / (self._up[1] - self._up[0])
        return LEFT + x * (WIDTH - LEFT - RIGHT), HEIGHT - BOTTOM - y * (HEIGHT - TOP - BOTTOM)


def _grid(across: tuple[int, int], up: tuple[int, int]) -> Iterator[str]:
    place = _Scale(across, up)
    for power in range(across[0], across[1] + 1):
        x, _ = place((10.0**power, 10.0 ** up[0]))
        yield f'<line x1="{x:.1f}" y1="{TOP}" x2="{x:.1f}" y2="{HEIGHT - BOTTOM}" stroke="#dddddd"/>'
        yield f'<text x="{x:.1f}" y="{HEIGHT - BOTTOM + 20}" text-anchor="middle">{10**power:,}</text>'.replace(
            ",", " "
        )
    for power in range(up[0], up[1] + 1):
        _, y = place((10.0 ** across[0], 10.0**power))
        yield f'<line x1="{LEFT}" y1="{y:.1f}" x2="{WIDTH - RIGHT}" y2="{y:.1f}" stroke="#dddddd"/>'
        yield f'<text x="{LEFT - 8}" y="{y + 4:.1f}" text-anchor="end">{_short(10.0**power)} s</text>'
    yield f'<text x="{(LEFT + WIDTH - RIGHT) / 2}" y="{HEIGHT - 14}" text-anchor="middle">transactions of the day</text>'


def _line(points: Sequence[Point], colour: str, style: str) -> str:
    joined = " ".join(f"{x:.1f},{y:.1f}" for x, y in points)
    return f'<polyline points="{joined}" fill="none" stroke="{colour}" {style}/>'


def _short(number: float) -> str:
    return f"{number:.3g}" if number < 1_000 else f"{number:.0f}"


def main() -> None:
    """Read the files that the command line names, print the picture."""
    sys.stdout.write(picture([json.loads(Path(name).read_text(encoding="utf-8")) for name in sys.argv[1:]]))


if __name__ == "__main__":
    main()
