"""How numbers are written in a report: in a table cell, with as many digits as they deserve."""

from mrl_search.measure.values import Share

__all__ = ["NOTHING", "bytes_of", "count", "digits", "milliseconds", "plural", "share", "times"]

NOTHING = "–"


def digits(x: float, n: int = 3) -> str:
    """`x` with `n` significant digits, never in powers of ten: 0.0123, 1.23, 1,230."""
    rounded = float(f"{x:.{n}g}")
    return f"{rounded:,.0f}" if abs(rounded) >= 10 ** (n - 1) else f"{rounded:.{n}g}"


def share(value: Share | None) -> str:
    """`94.1% [93.8, 94.4]`, with its 95% interval; a dash for None."""
    return (
        NOTHING
        if value is None
        else f"{value.value:.1%} [{100 * value.low:.1f}, {100 * value.high:.1f}]"
    )


def milliseconds(ms: float | None) -> str:
    """Three digits; a dash for None."""
    return NOTHING if ms is None else digits(ms)


def times(ratio: float | None) -> str:
    """`12×`, `0.5×`."""
    return NOTHING if ratio is None else f"{digits(ratio, 2)}×"


def count(n: float | None) -> str:
    """`1,234`; a dash for None."""
    return NOTHING if n is None else f"{n:,.0f}"


def plural(n: int, what: str) -> str:
    """`1 round`, `3 rounds`."""
    return f"{n:,} {what}{'' if n == 1 else 's'}"


def bytes_of(n: float) -> str:
    """Megabytes from a million bytes on: `56.3 MB`, `12.0 kB`."""
    return f"{digits(n / 1e6)} MB" if n >= 1e6 else f"{digits(n / 1e3)} kB"
