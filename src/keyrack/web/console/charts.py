"""Charts as SVG that leather draws; colours are the stylesheet's, and the numbers stand beside each as a table."""

from __future__ import annotations

from functools import lru_cache
from typing import Any

from markupsafe import Markup

WIDTH = 380
COLUMNS_HEIGHT, BAR_HEIGHT, AROUND = 160, 26, 70
DAYS_PER_NAME = 7
"""One name stands under so many columns."""

Numbers = tuple[tuple[str, int], ...]
"""What a chart shows: a name and its number each."""


@lru_cache(maxsize=64)
def columns(title: str, rows: Numbers) -> Markup:
    """One column a name, from left to right: for what goes over days."""
    chart = _chart()
    chart.add_columns(list(rows))
    top = _top(rows)
    chart.add_y_scale(0, top)
    chart.add_y_axis(ticks=[0, top // 4, top // 2, top * 3 // 4, top])
    chart.add_x_axis(tick_formatter=lambda name, place, count: name if place % DAYS_PER_NAME == 0 else "")
    return _drawn(chart, title, COLUMNS_HEIGHT)


@lru_cache(maxsize=64)
def bars(title: str, rows: Numbers) -> Markup:
    """One bar a name, from top to bottom: for parts of a whole."""
    chart = _chart()
    chart.add_bars([(number, name) for name, number in rows])
    top = _top(rows)
    chart.add_x_scale(0, top)
    chart.add_x_axis(ticks=[0, top // 2, top])
    return _drawn(chart, title, AROUND + BAR_HEIGHT * len(rows))


def _top(rows: Numbers) -> int:
    """A round number that none exceeds, four times 1, 2, 5, 10, 20 …"""
    most = max((number for _, number in rows), default=0)
    power = 1
    while True:
        for step in (1, 2, 5):
            if most <= 4 * step * power:
                return 4 * step * power
        power *= 10


def _chart() -> Any:
    import leather  # here, as it brings along a framework for tests, and most services draw no chart for days

    return leather.Chart()


def _drawn(chart: Any, title: str, height: int) -> Markup:
    """The chart as a part of a page: of the width that there is, with words for those who do not see it."""
    text: str = chart.to_svg(None, WIDTH, height)
    drawing = text[text.index("<g>") :]
    head = Markup('<svg viewBox="0 0 {} {}" role="img" aria-label="{}; the numbers are in the table below">')
    return head.format(WIDTH, height, title) + Markup(drawing)  # noqa: S704 — leather escapes what is written in it
