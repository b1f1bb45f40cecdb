"""One HTML page that holds all it shows: no script, nothing from elsewhere, everything escaped.

Names and words come from files of strangers. They reach a page through `text` alone, which every
function here puts them through; `Html` marks what is markup already.
"""

import base64
import html
import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from cdm_cli.cascade.files import read_bytes
from cdm_cli.data.durable import write_over_own
from cdm_cli.errors import BadInputError, make_printable, quote
from cdm_cli.units import is_number

LONGEST = 2000  # characters of one value
PNG, LARGEST = b"\x89PNG\r\n\x1a\n", 2**26  # how a picture begins, and its bytes at most
MARK = "<!-- cdm report of {} -->"
POLICY = "default-src 'none'; img-src data:; style-src 'unsafe-inline'"
STYLE = """
:root { color-scheme: light dark; --line: #8885; --soft: #8882; }
body { font: 1rem/1.5 system-ui, sans-serif; max-width: 62rem; margin: 0 auto; padding: 1rem; }
h1 { line-height: 1.2; overflow-wrap: anywhere; }
h2 { margin-top: 2.2rem; border-bottom: 1px solid var(--line); }
.lead { font-size: 1.2rem; }
.wide { overflow-x: auto; white-space: nowrap; }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; font-size: .9rem; }
th, td { text-align: left; padding: .2rem .7rem .2rem 0; border-bottom: 1px solid var(--soft); }
td.n, th.n { text-align: right; }
tr.good { background: var(--soft); }
dl { display: grid; grid-template-columns: minmax(6rem, max-content) 1fr; gap: .1rem 1rem; }
dt { opacity: .7; }
dd { margin: 0; overflow-wrap: anywhere; }
figure { margin: 1rem 0; }
img { max-width: 100%; height: auto; background: #fff; }
figcaption, .note { font-size: .9rem; opacity: .8; }
pre { white-space: pre-wrap; overflow-wrap: anywhere; background: var(--soft); padding: .6rem; }
summary { cursor: pointer; }
@media (max-width: 30rem) { dl { grid-template-columns: 1fr; } dd { margin-bottom: .4rem; } }
""".strip()


class Html(str):
    """Markup that may stand in a page as it is."""

    __slots__ = ()


def text(value: object) -> Html:
    """Return a value as text of a page, whatever it holds; markup is left alone."""
    if isinstance(value, Html):
        return value
    told = make_printable("" if value is None else str(value))
    cut = told if len(told) <= LONGEST else f"{told[:LONGEST]}…"
    return Html(html.escape(cut))


def _element(tag: str, content: object, kind: str = "") -> Html:
    named = f' class="{kind}"' if kind else ""
    return Html(f"<{tag}{named}>{text(content)}</{tag}>")


def join(parts: Iterable[Html]) -> Html:
    """Return parts one below the other."""
    return Html("\n".join(parts))


def paragraph(content: object, kind: str = "") -> Html:
    """Return a paragraph, "lead" for the first sentence or "note" for a remark; "" for none."""
    return _element("p", content, kind) if content else Html("")


def section(heading: str, *parts: Html) -> Html:
    """Return parts under a heading, nothing where there are none."""
    there = [part for part in parts if part]
    return join([_element("h2", heading), *there]) if there else Html("")


def fold(summary: str, *parts: Html) -> Html:
    """Return parts behind a summary that a reader clicks to see them (HTML details)."""
    there = [part for part in parts if part]
    inside = join([_element("summary", summary), *there])
    return Html(f"<details>\n{inside}\n</details>") if there else Html("")


def facts(values: Mapping[str, object]) -> Html:
    """Return names and values, those of nested mappings as `model.dropout`; no None and no ""."""
    rows = [
        _element("dt", name.replace("_", " ")) + _element("dd", value)
        for name, value in _flatten(values).items()
        if value not in (None, "")
    ]
    return Html("<dl>\n" + "\n".join(rows) + "\n</dl>") if rows else Html("")


def table(
    header: Sequence[str], lines: Sequence[Sequence[object]], good: Sequence[bool] = ()
) -> Html:
    """Return a table; columns of numbers stand to the right. good: the lines that stand out."""
    if not lines:
        return Html("")
    right = [all(is_number(line[at]) for line in lines) for at in range(len(header))]
    kinds = ["n" if flush else "" for flush in right]
    rows = [_row("th", header, kinds)]
    for number, line in enumerate(lines):
        rows.append(_row("td", line, kinds, bool(good) and good[number]))
    return Html('<div class="wide"><table>\n' + "\n".join(rows) + "\n</table></div>")


def _row(tag: str, cells: Sequence[object], kinds: Sequence[str], good: bool = False) -> Html:
    inside = "".join(_element(tag, cell, kind) for cell, kind in zip(cells, kinds, strict=True))
    return Html(f'<tr class="good">{inside}</tr>' if good else f"<tr>{inside}</tr>")


def notes(lines: Iterable[str]) -> Html:
    """Return remarks as a list."""
    items = "\n".join(_element("li", line) for line in lines)
    return Html(f'<ul class="note">\n{items}\n</ul>') if items else Html("")


def commands(lines: Iterable[str]) -> Html:
    """Return command lines, each once."""
    told = "\n".join(text(line) for line in dict.fromkeys(filter(None, lines)))
    return Html(f"<pre>{told}</pre>") if told else Html("")


def read_picture(path: Path) -> bytes | None:
    """Return a picture that a command has drawn, None where it is not there.

    Raises UnsafeInputError for a link, which would show what is elsewhere, or a pipe, and
    BadInputError for what is no PNG.
    """
    if not os.path.lexists(path):
        return None
    data = read_bytes(path, LARGEST)
    if not data.startswith(PNG):
        kept = "no page was written"
        raise BadInputError(f"{path} is no PNG", kept=kept, next=f"rm {quote(path)}")
    return data


def picture(png: bytes | None, caption: str) -> Html:
    """Return a PNG within the page, nothing for none."""
    if not png:
        return Html("")
    data, told = base64.b64encode(png).decode(), text(caption)
    shown = f'<img src="data:image/png;base64,{data}" alt="{told}">'
    return Html(f"<figure>{shown}\n<figcaption>{told}</figcaption></figure>")


def parents(rows: Iterable[Mapping[str, str]]) -> Html:
    """Return what something was made from, each once."""
    lines = dict.fromkeys((row["role"], row["name"], row["digest"]) for row in rows)
    return table(["role", "name", "digest"], list(lines))


def _flatten(values: Mapping[str, Any], prefix: str = "") -> dict[str, object]:
    """Return nested settings as one mapping, their names joined: `model.dropout`."""
    found: dict[str, object] = {}
    for name, value in values.items():
        if isinstance(value, dict):
            found |= _flatten(value, f"{prefix}{name}.")
        else:
            found[f"{prefix}{name}"] = value
    return found


def page(title: str, of: object, *parts: Html) -> bytes:
    """Return a whole page. of: what it is a report of, by which it may replace an earlier one."""
    body = join(filter(None, [_element("h1", title), *parts]))
    whole = f"""<!DOCTYPE html>
{_mark(of)}
<html lang="en">
<head>
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="{POLICY}">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{text(title)}</title>
<style>
{STYLE}
</style>
</head>
<body>
{body}
</body>
</html>
"""
    return whole.encode()


def _mark(of: object) -> str:
    """Return the comment that says what a page is of; a comment ends with two dashes and >."""
    return MARK.format(text(of).replace("-", "&#45;"))


def write_page(path: Path, of: object, content: bytes) -> None:
    """Write a page, over one of the same thing.

    Raises WouldOverwriteError where the name is that of anything else.
    """
    start = f"<!DOCTYPE html>\n{_mark(of)}\n".encode()
    named = "this sweep" if str(of).startswith("sweep ") else of  # which goes by its digest
    write_over_own(path, content, start, len(start), f"report of {named}")
