"""Numbers and lists of words as a reader wants them."""

import math
from collections.abc import Iterable
from datetime import UTC, datetime
from typing import Any

from inferometer.units import GIB

PLAIN_UP_TO = 1e6


def number(value: float, digits: int = 3) -> str:
    """A number to so many significant digits, with thousands separators, and powers of ten where it is huge."""
    if value is None or math.isnan(value):
        return "–"
    if math.isinf(value):
        return "∞" if value > 0 else "−∞"
    if value == 0:
        return "0"
    if abs(value) >= PLAIN_UP_TO or abs(value) < 10 ** -(digits + 1):
        mantissa, exponent = f"{value:.{digits - 1}e}".split("e")
        power = str(int(exponent)).translate(str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹"))
        return f"{mantissa}·10{power}".replace("-", "−")
    decimals = max(0, digits - 1 - math.floor(math.log10(abs(value))))
    return f"{value:,.{decimals}f}".replace("-", "−")


def interval(low: float, high: float, digits: int = 3) -> str:
    """Both ends of an interval in brackets."""
    return f"[{number(low, digits)}, {number(high, digits)}]"


def bounded(row: Any, quantity: str = "value") -> str:
    """A row's quantity with its interval, whose ends are the columns of that name that end in _low and _high."""
    return f"{number(row[quantity])} {interval(row[f'{quantity}_low'], row[f'{quantity}_high'])}"


def ratio(value: float) -> str:
    """A ratio: four decimals near one, where differences are small, three digits elsewhere."""
    return f"{value:.4f}" if 0.5 < value < 2 else number(value)


def ratio_interval(low: float, high: float) -> str:
    """Both ends of a ratio's interval in brackets."""
    return f"[{ratio(low)}, {ratio(high)}]"


def percent(share: float, digits: int = 1) -> str:
    """A share as a percentage, with one digit that counts where it would otherwise read as none."""
    if not math.isfinite(share):
        return number(share)
    shown = f"{100 * share:.{digits}f}"
    if share and float(shown) == 0:
        shown = number(100 * share, 1)
    return f"{shown} %".replace("-", "−")


def gibibytes(size: float) -> str:
    """Bytes as GiB."""
    return f"{size / GIB:.2f} GiB"


def seconds(duration: float) -> str:
    """A duration in seconds, or in minutes and seconds from two minutes on."""
    return f"{duration:.1f} s" if duration < 120 else f"{int(duration // 60)} min {int(duration % 60)} s"


def enumerated(words: Iterable[object]) -> str:
    """One or more words as a list within a sentence: a, b and c."""
    *first, last = map(str, words)
    return f"{', '.join(first)} and {last}" if first else last


def day_and_time(moment: float) -> str:
    """A moment in seconds since 1970 as day and minute in universal time."""
    return f"{datetime.fromtimestamp(moment, UTC):%Y-%m-%d %H:%M} UTC"
