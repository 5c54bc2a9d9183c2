"""One page in HTML: no scripts, nothing loaded from elsewhere, light and dark, pictures as SVG inside it."""

from __future__ import annotations

import re
from html import escape
from io import BytesIO
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from matplotlib.figure import Figure

STYLE = """
:root { color-scheme: light dark; --ink: #222; --dim: #666; --line: #ddd; --page: #fff; --box: #f6f6f4;
  --good: #087f5b; --bad: #c92a2a; --open: #b07000; }
@media (prefers-color-scheme: dark) { :root { --ink: #e6e6e6; --dim: #a0a0a0; --line: #3c3c3c; --page: #1a1a1a;
  --box: #242424; --good: #51cf9a; --bad: #ff7b7b; --open: #f0b429; } figure svg { background: #fff; } }
* { box-sizing: border-box; }
body { margin: 0 auto; padding: 1rem; max-width: 62rem; font: 16px/1.5 system-ui, sans-serif; color: var(--ink);
  background: var(--page); }
h1 { font-size: 1.5rem; } h2 { font-size: 1.2rem; margin-top: 2.5rem; } h3 { font-size: 1rem; margin: 2rem 0 .3rem; }
.dim, figcaption, caption { color: var(--dim); font-size: .9rem; } caption { text-align: left; caption-side: bottom; }
.wide { overflow-x: auto; } table { border-collapse: collapse; width: 100%; font-size: .9rem; }
th, td { text-align: left; padding: .3rem .6rem .3rem 0; border-bottom: 1px solid var(--line); vertical-align: top; }
td.figure { white-space: nowrap; font-variant-numeric: tabular-nums; }
.proved, .enclosed, .certified { color: var(--good); } .proved { font-weight: 600; }
.refuted { color: var(--bad); } .inconclusive, .sampled { color: var(--open); }
.odd { background: color-mix(in srgb, var(--bad) 14%, transparent); }
pre { background: var(--box); padding: .6rem; overflow-x: auto; font-size: .85rem; } code { font-size: .9em; }
figure { margin: 1rem 0; } figure svg { max-width: 100%; height: auto; border-radius: 4px; }
math { font-size: 1.05rem; overflow-x: auto; max-width: 100%; } a { color: inherit; }
section { break-inside: avoid; } .verdict { font-weight: 600; }
@media print { body { max-width: none; } .wide { overflow: visible; } }
"""


def document(title: str, body: str) -> str:
    """The whole page; `title` is text, `body` HTML."""
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{escape(title)}</title><style>{STYLE}</style></head><body>{body}</body></html>\n"
    )


def captioned(figure: Figure, name: str, title: str, caption: str) -> str:
    """A figure with its title and caption, which are texts; `name` becomes its id."""
    return (
        f'<figure id="{name}"><h3>{escape(title)}</h3>{inline_svg(figure, name)}'
        f"<figcaption>{escape(caption)}</figcaption></figure>"
    )


def grid(heads: list[str], rows: list[list[str]], caption: str) -> str:
    """A table of texts; all columns but the first hold figures."""
    head = "".join(f"<th>{escape(name)}</th>" for name in heads)
    kinds = ["", *[" class='figure'"] * (len(heads) - 1)]
    cells = ["".join(f"<td{kind}>{escape(x)}</td>" for kind, x in zip(kinds, row, strict=True)) for row in rows]
    body = "".join(f"<tr>{row}</tr>" for row in cells)
    inner = f"<caption>{escape(caption)}</caption><thead><tr>{head}</tr></thead><tbody>{body}</tbody>"
    return f'<div class="wide"><table>{inner}</table></div>'


def inline_svg(figure: Figure, name: str) -> str:
    """The figure as an <svg> element for a page that holds others: its ids begin with `name`, and nothing in it refers
    to anything outside."""
    import matplotlib

    buffer = BytesIO()
    with matplotlib.rc_context({"svg.hashsalt": name}):
        figure.savefig(buffer, format="svg", metadata={"Date": None})
    text = buffer.getvalue().decode()
    text = re.sub(r"<metadata>.*?</metadata>", "", text[text.index("<svg") :], flags=re.DOTALL)
    text = re.sub(r' xmlns(:\w+)?="[^"]*"', "", text).replace("xlink:href", "href")
    text = re.sub(r'\bid="', f'id="{name}-', text)
    return re.sub(r'(href="#|url\(#)', rf"\g<1>{name}-", text)
