"""The report as one page: everything is in it, and nothing is fetched when it is read."""

from __future__ import annotations

import re
from base64 import b64encode
from collections.abc import Sequence
from html import escape

from mpims.pages.charts import Chart
from mpims.pages.findings import Findings
from mpims.pages.text import facts, incident_rows, loads, slow_parts, uses

N_SLOWEST = 20

_STYLE = """
:root { color-scheme: light dark; --text: #1b1b1b; --back: #ffffff; --soft: #5c5c5c; --line: #d5d5d5;
  --card: #f4f6f8; }
@media (prefers-color-scheme: dark) { :root { --text: #e8e8e8; --back: #16181b; --soft: #a9adb2;
  --line: #3a3e44; --card: #20242a; } }
* { box-sizing: border-box; }
body { margin: 0 auto; padding: 1.2rem; max-width: 60rem; color: var(--text); background: var(--back);
  font: 16px/1.5 system-ui, -apple-system, "Segoe UI", sans-serif; overflow-wrap: anywhere; }
h1 { font-size: 1.5rem; margin: 0 0 0.8rem; } h2 { font-size: 1.15rem; margin: 2.2rem 0 0.5rem; }
dl { display: grid; grid-template-columns: max-content 1fr; gap: 0.15rem 1rem; margin: 0; }
dt { color: var(--soft); } dd { margin: 0; }
ol { background: var(--card); border-left: 4px solid #0072B2; margin: 1.2rem 0;
  padding: 0.8rem 1rem 0.8rem 2.2rem; }
li + li { margin-top: 0.4rem; }
figure { margin: 0; } figcaption { color: var(--soft); font-size: 0.9rem; margin-top: 0.3rem; }
img { display: block; width: 100%; min-width: 36rem; height: auto; border-radius: 4px;
  background: #ffffff; }
.scroll { overflow-x: auto; margin-top: 0.6rem; }
table { border-collapse: collapse; font-size: 0.9rem; font-variant-numeric: tabular-nums;
  overflow-wrap: normal; }
th, td { padding: 0.25rem 0.9rem 0.25rem 0; text-align: left; vertical-align: top;
  border-bottom: 1px solid var(--line); }
td { max-width: min(28rem, 45vw); overflow-wrap: break-word; }
th { color: var(--soft); font-weight: 600; }
figure, tr { break-inside: avoid; }
footer { color: var(--soft); font-size: 0.85rem; margin-top: 2.5rem; }
"""


def make_page(findings: Findings, charts: Sequence[Chart], missing: str = "") -> str:
    """The page, as HTML.

    Parameters
    ----------
    findings
        What it is about.
    charts
        Those that were drawn: they are put into it.
    missing
        Why there are none.

    Raises
    ------
    OSError
        A chart cannot be read.
    """
    history = findings.history
    title = f"{history.name}: report"
    told = "".join(f"<dt>{escape(name)}</dt><dd>{escape(value)}</dd>" for name, value in facts(findings))
    sentences = "".join(f"<li>{_with_code(sentence)}</li>" for sentence in findings.sentences)
    tables = {
        "Where each core-second went": uses(findings),
        "Load per rank and host": loads(findings),
        "Times of items": slow_parts(history, N_SLOWEST),
    }
    body = [f"<h1>{escape(title)}</h1><dl>{told}</dl><ol>{sentences}</ol>"]
    body += [f"<p>{escape(missing)}</p>"] if missing else []
    titles = [chart.title for chart in charts] or list(tables)
    drawn = {chart.title: _figure(chart) for chart in charts}
    for heading in titles:
        table = _table(tables[heading]) if heading in tables else ""
        body.append(f"<h2>{escape(heading)}</h2>{drawn.get(heading, '')}{table}")
    body.append("<h2>What went wrong, and what was done about it</h2>")
    wrong = findings.incidents
    body.append(_table(incident_rows(wrong)) if wrong else "<p>Nothing did.</p>")
    if findings.stops:
        body.append(f"<h2>Stopped by request</h2>{_table(incident_rows(findings.stops))}")
    made_by = escape(str(history.manifest.get("versions", {}).get("mpims", "")))
    return (
        f'<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8"><title>{escape(title)}</title>\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<style>{_STYLE}</style></head>\n<body>{''.join(body)}\n"
        f"<footer>From the trace of a run of mpims {made_by}.</footer></body></html>\n"
    )


def _with_code(sentence: str) -> str:
    """A sentence as HTML; what stands in backticks is to be typed."""
    return re.sub("`([^`]*)`", r"<code>\1</code>", escape(sentence))


def _figure(chart: Chart) -> str:
    picture = b64encode(chart.path.read_bytes()).decode()
    caption = escape(chart.caption)
    return (
        f'<figure><div class="scroll"><img alt="{escape(chart.title)}" '
        f'src="data:image/png;base64,{picture}"></div><figcaption>{caption}</figcaption></figure>\n'
    )


def _table(rows: Sequence[Sequence[str]]) -> str:
    """A table whose first row is its head."""
    head = "".join(f"<th>{escape(cell)}</th>" for cell in rows[0])
    lines = ("".join(f"<td>{escape(cell)}</td>" for cell in row) for row in rows[1:])
    body = "".join(f"<tr>{line}</tr>\n" for line in lines)
    return f'<div class="scroll"><table><tr>{head}</tr>\n{body}</table></div>'
