"""Figures against their bars."""

from __future__ import annotations

from kits.core.errors import KitsError


def judge(measured: dict[str, float], bars: dict[str, dict[str, float]]) -> None:
    """Print each figure against its bar as a ratio that is at least 1 where the bar is met.

    Args:
        measured: the figures; a bar without one is named as not measured.
        bars: by name, `{"least": x}` or `{"most": x}`.

    Raises:
        KitsError: a bar falls short.
    """
    short = []
    for name, bar in bars.items():
        if name not in measured:
            print(f"{name:>28} not measured")
            continue
        ratio = measured[name] / bar["least"] if "least" in bar else bar["most"] / max(measured[name], 1e-12)
        wanted = f">= {bar['least']}" if "least" in bar else f"<= {bar['most']}"
        print(f"{name:>28} {measured[name]:9.4f}  bar {wanted:>8}  ratio {ratio:.3f}")
        if not ratio >= 1:
            short.append(name)
    if short:
        raise KitsError(f"{', '.join(short)}: short of the bar")
