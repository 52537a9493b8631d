"""One page a case, which opens without a network: pictures, then numbers and rules.

The pictures show where each number was taken.
"""

from __future__ import annotations

import base64
import io
from collections.abc import Mapping, Sequence
from html import escape
from typing import TYPE_CHECKING, Any

import numpy as np

from kits.readout.definitions import KIDNEY_COLUMNS, TITLES, TUMOR_COLUMNS, column
from kits.readout.drawing import tumor_figure
from kits.readout.readings import CaseReading
from kits.volume import Spacing

if TYPE_CHECKING:
    from matplotlib.figure import Figure

STYLE = (
    "body{background:#101214;color:#e8e8e8;font:15px system-ui,sans-serif;margin:2em auto;max-width:1250px;padding:0 1em}"
    "table{border-collapse:collapse;margin:1em 0;width:100%}"
    "td,th{border-bottom:1px solid #333;padding:.25em .6em;text-align:left}"
    "td.n{text-align:right;font-variant-numeric:tabular-nums;white-space:nowrap}td.d,footer{color:#a8aeb4;font-size:13px}"
    "img{width:100%}.flag{color:#ffb347}h2{margin-top:2em}"
)


def sheet(name: str, reading: CaseReading, spacing: Spacing, hu: np.ndarray | None) -> str:
    """Write the page of a case as HTML."""
    told = reading.to_dict()
    parts = [
        f"<h1>{escape(name)}</h1>",
        _flags(reading.flags),
        "<h2>Kidneys</h2>",
        _flags([f"{kidney.side}: {flag}" for kidney in reading.kidneys for flag in kidney.flags]),
        _table(told["kidneys"], KIDNEY_COLUMNS, "side"),
    ]
    places = [(shapes, index) for shapes in reading.shapes for index in range(len(shapes.diameters))]
    for tumor, (shapes, index) in zip(told["tumors"], places, strict=True):
        picture = _png(tumor_figure(shapes, index, spacing, hu))
        parts += [f"<h2>Tumor {escape(tumor['id'])}</h2>", _flags(tumor["flags"])]
        parts += [f'<img alt="where the numbers of {escape(tumor["id"])} were taken" src="data:image/png;base64,{picture}">']
        parts += [_scores(tumor), _table([tumor], TUMOR_COLUMNS, "id")]
    if not told["tumors"]:
        parts.append("<p>No tumor in the label map.</p>")
    policy = "default-src 'none'; style-src 'unsafe-inline'; img-src data:"
    head = f'<meta charset="utf-8"><meta http-equiv="Content-Security-Policy" content="{policy}"><title>{escape(name)}</title>'
    footer = "<footer>Measured on a label map by kits. Research use only, not a medical device.</footer>"
    return (
        f'<!doctype html><html lang="en"><head>{head}<style>{STYLE}</style></head><body>{"".join(parts)}{footer}</body></html>\n'
    )


def _table(entries: Sequence[Mapping[str, Any]], columns: Mapping[str, tuple[str, str]], title: str) -> str:
    """Lay out a table: a row a value, a column an entry, definitions in the last column."""
    heads = "".join(f"<th>{escape(str(entry[title]))}</th>" for entry in entries)
    rows = [f"<tr><th></th>{heads}<th></th></tr>"]
    for name, (unit, definition) in columns.items():
        cells = [column(entry, name) for entry in entries]
        elsewhere = name == title or name.startswith(("flags", "renal.", "padua."))
        if elsewhere or all(cell == "" for cell in cells):
            continue
        values = "".join(f'<td class="n">{escape(_value(cell))} {escape(unit if cell != "" else "")}</td>' for cell in cells)
        told = TITLES.get(name, name.replace("_", " "))
        rows.append(f'<tr><td>{escape(told)}</td>{values}<td class="d">{escape(definition)}</td></tr>')
    return f"<table>{''.join(rows)}</table>"


def _scores(tumor: Mapping[str, Any]) -> str:
    """Lay out the points of both scores, each with its value and its rule."""
    rows = []
    for title, score in (("R.E.N.A.L.", tumor["renal"]), ("PADUA", tumor["padua"])):
        for part, entry in score.items():
            if isinstance(entry, Mapping):
                points = "open" if entry["points"] is None and entry["value"] is None else entry["points"]
                cells = "".join(f'<td class="n">{escape(_value(cell))}</td>' for cell in (points, entry["value"]))
                rows.append(
                    f'<tr><td>{title} {escape(part.replace("_", " "))}</td>{cells}<td class="d">{escape(entry["rule"])}</td></tr>'
                )
    total = tumor["renal"]["total"] or "not measurable"
    padua = f"{tumor['padua']['at_least']} to {tumor['padua']['at_most']}"
    heads = "<tr><th></th><th>points</th><th>from</th><th></th></tr>"
    told = f"<p>R.E.N.A.L. <b>{escape(total)}</b> (h left to the reader), PADUA <b>{padua}</b></p>"
    return f"{told}<table>{heads}{''.join(rows)}</table>"


def _value(value: Any) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:.2f}" if abs(value) < 10 else f"{value:.1f}"
    return "" if value is None else str(value)


def _flags(flags: Sequence[str]) -> str:
    return "".join(f'<p class="flag">{escape(flag)}</p>' for flag in flags)


def _png(figure: Figure) -> str:
    stream = io.BytesIO()
    figure.savefig(stream, format="png", facecolor=figure.get_facecolor())
    return base64.b64encode(stream.getvalue()).decode()
