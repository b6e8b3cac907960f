"""Self-contained HTML: one file that opens without a network, with figures, tables and text inside."""

import base64
import html
import io
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import matplotlib
from matplotlib.figure import Figure
from rich.table import Table

from mmkernel.writing import replacing

MADE_BY = '<meta name="generator" content="mmkernel">'
STYLE = """
:root{color-scheme:light;--ink:#222;--soft:#6b6b6b;--line:#e3e3e3;--blue:#0072B2}
*{box-sizing:border-box}body{font:15px/1.55 system-ui,-apple-system,"Segoe UI",sans-serif;color:var(--ink);background:#fff;
max-width:72rem;margin:0 auto;padding:1.6rem 1.5rem 4rem}
header{border-bottom:1px solid var(--line);padding-bottom:1rem;margin-bottom:.4rem}
h1{font-size:1.45rem;line-height:1.3;font-weight:650;margin:0 0 .5rem}
h2{font-size:1.1rem;font-weight:650;margin:2.4rem 0 .6rem;padding-top:.2rem}
p{margin:.4rem 0;max-width:60rem}ul{margin:.4rem 0;padding-left:1.2rem}li{margin:.15rem 0}
nav{font-size:.9rem;display:flex;flex-wrap:wrap;gap:.2rem 1.2rem;padding:.55rem 0;border-bottom:1px solid var(--line)}
nav a,a{color:var(--blue);text-decoration:none}a:hover{text-decoration:underline}
.badge{display:inline-block;color:#fff;font-weight:700;border-radius:.4rem;padding:.05rem .65rem;margin-right:.6rem}
.verdict{font-size:1.1rem}.soft,figcaption,footer{color:var(--soft);font-size:.88rem}
div.wide{overflow-x:auto}figure{margin:.6rem 0}figure img{display:block;max-width:100%;height:auto}figure.wide img{width:100%}
figure.pixels img{image-rendering:pixelated}figcaption{margin-top:.3rem;max-width:60rem}
table{border-collapse:collapse;margin:.5rem 0 1rem;font-size:.92rem;font-variant-numeric:tabular-nums}
caption{text-align:left;font-weight:600;padding:.2rem 0 .35rem}
th,td{padding:.28rem 1.1rem .28rem 0;text-align:left;vertical-align:top}th{font-weight:600;border-bottom:1px solid #999}
td{border-bottom:1px solid var(--line)}th:last-child,td:last-child{padding-right:0}.number{text-align:right}
code,pre{font:13px/1.5 ui-monospace,SFMono-Regular,Menlo,Consolas,monospace}
pre{background:#f6f6f6;border-radius:.4rem;padding:.7rem .9rem;overflow-x:auto;margin:.5rem 0}td code{white-space:pre-wrap}
summary{cursor:pointer;color:var(--blue)}dl{display:grid;grid-template-columns:max-content 1fr;gap:.1rem 1.2rem;margin:.6rem 0}
dt{color:var(--soft)}dd{margin:0;overflow-wrap:anywhere}footer{margin-top:3rem;border-top:1px solid var(--line);padding-top:.7rem}
@media print{nav{display:none}h2{break-after:avoid}figure,table{break-inside:avoid}}
"""


def text(value: object) -> str:
    """``value`` as text that HTML shows as it is."""
    return html.escape(str(value))


def html_page(title: str, head: str, sections: Mapping[str, str], foot: str = '') -> str:
    """A whole page: ``head`` under the title, then {heading: HTML}, with a line of links to the headings."""
    links = ''.join(f'<a href="#{_anchor(name)}">{text(name)}</a>' for name in sections)
    body = ''.join(
        f'<section id="{_anchor(name)}"><h2>{text(name)}</h2>{part}</section>\n' for name, part in sections.items()
    )
    nav = f'<nav aria-label="sections">{links}</nav>' if len(sections) > 2 else ''
    return (
        f'<!doctype html>\n<html lang="en"><head><meta charset="utf-8">{MADE_BY}'
        f'<meta name="viewport" content="width=device-width, initial-scale=1"><title>{text(title)}</title>'
        f'<style>{STYLE}</style></head>\n<body><header><h1>{text(title)}</h1>{head}</header>\n{nav}\n<main>{body}</main>'
        f'<footer>{foot}</footer></body></html>\n'
    )


def _anchor(name: str) -> str:
    return '-'.join(''.join(c if c.isalnum() else ' ' for c in name.lower()).split())


def write_page(path: str | Path, page: str) -> Path:
    """The file appears whole or not at all."""
    path = Path(path)
    with replacing(path) as partial:
        partial.write_text(page, encoding='utf-8')
    return path


def badge(word: str, colour: str) -> str:
    return f'<span class="badge" style="background:{colour}">{text(word)}</span>'


def picture(source: Figure | bytes | Path, alt: str, caption: str = '', kind: str = 'svg') -> str:
    """A figure (``kind``: svg for lines, png for images), or the bytes or file of a PNG, as an element of the page."""
    if isinstance(source, Figure):
        shape, data = 'wide', figure_bytes(source, kind)
    else:
        shape, kind, data = 'pixels', 'png', source.read_bytes() if isinstance(source, Path) else source
    address = f'data:image/{"svg+xml" if kind == "svg" else "png"};base64,{base64.b64encode(data).decode()}'
    under = f'<figcaption>{text(caption)}</figcaption>' if caption else ''
    return f'<figure class="{shape}"><img alt="{text(alt)}" src="{address}">{under}</figure>'


def figure_bytes(figure: Figure, kind: str) -> bytes:
    """The file of a figure; equal figures give equal SVG."""
    file = io.BytesIO()
    with matplotlib.rc_context({'svg.hashsalt': 'mmkernel'}):
        figure.savefig(file, format=kind, dpi=150, metadata={'Date': None} if kind == 'svg' else None)
    return file.getvalue()


def table(head: Sequence[str], rows: Iterable[Sequence[object]], caption: str = '', words: int = 1) -> str:
    """The first ``words`` columns hold text, the others numbers. Cells that are HTML come as ``Markup``."""
    kinds = ['' if i < words else ' class="number"' for i in range(len(head))]
    cell = lambda value: value if isinstance(value, Markup) else text(value)  # noqa: E731
    top = ''.join(f'<th{kind}>{cell(name)}</th>' for name, kind in zip(head, kinds, strict=True))
    lines = [''.join(f'<td{kind}>{cell(value)}</td>' for value, kind in zip(row, kinds, strict=True)) for row in rows]
    above = f'<caption>{text(caption)}</caption>' if caption else ''
    body = ''.join(f'<tr>{line}</tr>' for line in lines)
    return f'<div class="wide"><table>{above}<thead><tr>{top}</tr></thead><tbody>{body}</tbody></table></div>'


class Markup(str):
    """Text that is HTML already."""


def code(value: object) -> Markup:
    return Markup(f'<code>{text(value)}</code>')


def rich_table(found: Table) -> str:
    """A table of the terminal, on the page."""
    columns = found.columns
    words = next((i for i, column in enumerate(columns) if column.justify == 'right'), len(columns))
    heads = [Markup(text(column.header).replace('\n', '<br>')) for column in columns]
    return table(heads, zip(*(column.cells for column in columns), strict=True), str(found.title or ''), words)


def facts(pairs: Mapping[str, object]) -> str:
    """A list of names and values."""
    return f'<dl>{"".join(f"<dt>{text(name)}</dt><dd>{text(value)}</dd>" for name, value in pairs.items())}</dl>'
