"""The empty page: skeleton, style, and the only ways in which text becomes HTML.

Text of strangers (queries, file names, settings) enters through `text` or `isolated` and nowhere else. The page loads nothing:
style and pictures are inside it, there is no script, and its policy tells the browser to refuse both from outside.
"""

import html
import unicodedata
from collections.abc import Iterable

POLICY = "default-src 'none'; img-src data:; style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'"

STYLE = """
:root { color-scheme: light dark; --paper: #fff; --ink: #1b2430; --quiet: #5b6675; --line: #d9dee5; --panel: #f6f7f9;
  --score: #1f5fbf; --area: #1f5fbf22; --band: #1f5fbf30; --moment: #0b7a55; --moment-ink: #fff; --threshold: #b4412a;
  --for: #c99700; --against: #2a55e0; --warn: #8a4b00; --warn-paper: #fff4e0; }
@media (prefers-color-scheme: dark) { :root { --paper: #12161c; --ink: #e6eaf0; --quiet: #9aa6b5; --line: #313a46;
  --panel: #1a2028; --score: #7fb2ff; --area: #7fb2ff22; --band: #7fb2ff33; --moment: #3ecf9b; --moment-ink: #06231a;
  --threshold: #ff9b80; --for: #ffdc00; --against: #7d9bff; --warn: #ffcf8a; --warn-paper: #33270f; } }
@media print { :root { color-scheme: light; --paper: #fff; --ink: #000; --quiet: #444; --line: #bbb; --panel: #fff;
  --score: #1f5fbf; --area: #1f5fbf22; --band: #1f5fbf30; --moment: #0b7a55; --moment-ink: #fff; --threshold: #b4412a;
  --for: #c99700; --against: #2a55e0; }
  body { font-size: 10pt; } main { max-width: none !important; padding: 0 !important; }
  * { -webkit-print-color-adjust: exact; print-color-adjust: exact; }
  details::details-content { content-visibility: visible !important; block-size: auto !important; }
  section.query, figure, table, .keep { break-inside: avoid; } nav { display: none; } }
* { box-sizing: border-box; }
body { margin: 0; background: var(--paper); color: var(--ink);
  font: 16px/1.5 system-ui, "Segoe UI", Roboto, "Helvetica Neue",
  Arial, "DejaVu Sans", sans-serif; overflow-wrap: anywhere; }
main { max-width: 1080px; margin: 0 auto; padding: 32px 24px 64px; }
h1 { font-size: 1.65rem; line-height: 1.25; margin: 0 0 4px; } h2 { font-size: 1.3rem; margin: 0; line-height: 1.3; }
h3 { font-size: .95rem; margin: 24px 0 6px; } p { margin: 6px 0; max-width: 76ch; }
a { color: var(--score); } :focus-visible { outline: 3px solid var(--score); outline-offset: 2px; border-radius: 3px; }
.quiet, figcaption, caption { color: var(--quiet); font-size: .86rem; }
.num { text-align: right; font-variant-numeric: tabular-nums; }
dl.facts { display: grid; grid-template-columns: max-content 1fr; gap: 2px 18px; margin: 10px 0; font-size: .92rem; }
dl.facts dt { color: var(--quiet); } dl.facts dd { margin: 0; } dl.facts dl.facts { margin: 0 0 6px; }
table { border-collapse: collapse; width: 100%; font-size: .92rem; margin: 4px 0 8px; }
caption { text-align: left; padding: 0 0 4px; } th { text-align: left; font-weight: 600; color: var(--quiet); }
th, td { padding: 5px 12px 5px 0; border-bottom: 1px solid var(--line); vertical-align: middle; }
th.num { text-align: right; }
section { margin-top: 36px; } section.query { border-top: 2px solid var(--ink); padding-top: 18px; }
.head { display: flex; gap: 12px 24px; align-items: baseline; justify-content: space-between; flex-wrap: wrap; }
.verdict { font-weight: 600; white-space: nowrap; } .verdict.yes { color: var(--moment); }
.verdict.no { color: var(--quiet); }
.short { max-width: 660px; } .key { margin: 2px 0 0; max-width: none; }
.note { background: var(--warn-paper); color: var(--warn); border-left: 4px solid currentColor;
  padding: 8px 12px; margin: 12px 0; }
svg { display: block; width: 100%; height: auto; } svg text { fill: var(--quiet); font-size: 12px; font-family: inherit; }
svg .grid { stroke: var(--line); stroke-width: 1; } svg .axis { stroke: var(--quiet); stroke-width: 1; }
svg .track { fill: none; stroke: var(--score); stroke-width: 1.8; stroke-linejoin: round; } svg .area { fill: var(--area); }
svg .band { fill: var(--band); } svg .threshold { stroke: var(--threshold); stroke-width: 1.3; stroke-dasharray: 6 4; }
svg text.threshold-name { fill: var(--threshold); stroke: var(--paper); stroke-width: 3px; paint-order: stroke; }
svg .moment { fill: var(--moment); } svg .inside { fill: var(--moment); opacity: .1; }
svg .invalid { fill: var(--quiet); opacity: .28; }
svg text.on-moment { fill: var(--moment-ink); font-weight: 600; text-anchor: middle; } svg .mark { fill: var(--ink); }
svg text.letter { fill: var(--ink); text-anchor: middle; font-weight: 600; } svg text.end { text-anchor: end; }
svg text.middle { text-anchor: middle; } svg .for { fill: var(--for); } svg .against { fill: var(--against); }
svg .diagonal { stroke: var(--quiet); stroke-dasharray: 4 4; } svg .point { fill: var(--score); }
.meter { display: inline-block; width: 90px; height: 8px; background: var(--line); border-radius: 4px;
  vertical-align: middle; margin-right: 8px; }
.meter i { display: block; height: 8px; border-radius: 4px; background: var(--moment); }
.frames { display: grid; grid-template-columns: repeat(auto-fit, minmax(235px, 1fr)); gap: 16px; margin: 8px 0; }
figure { margin: 0; } figure img { display: block; width: 100%; height: auto; background: #767676; }
figure img + img { margin-top: 3px; } figcaption { padding-top: 5px; } figcaption b { color: var(--ink); }
.legend { display: flex; gap: 10px; align-items: center; flex-wrap: wrap; font-size: .86rem; color: var(--quiet); }
.legend img { width: 200px; height: 12px; }
details { border: 1px solid var(--line); border-radius: 6px; padding: 8px 14px; margin: 12px 0; background: var(--panel); }
summary { cursor: pointer; font-weight: 600; } .two { display: grid; grid-template-columns: 1fr 300px; gap: 8px 32px; }
@media (max-width: 720px) { .two { grid-template-columns: 1fr; } main { padding: 20px 14px 48px; } }
"""


def text(value: object) -> str:
    """As text of the page: markup is shown, not obeyed; control characters become a visible replacement."""
    shown = "".join(_visible(character) for character in str(value))
    return html.escape(shown, quote=True)


def isolated(value: object) -> str:
    """Text of strangers whose direction of writing must not turn around what stands beside it."""
    return f"<bdi>{text(value)}</bdi>"


def page(title: str, body: Iterable[str]) -> str:
    """A whole document; `title` is plain text, `body` is HTML."""
    return "\n".join(
        (
            "<!doctype html>",
            '<html lang="en"><head><meta charset="utf-8">',
            f'<meta http-equiv="Content-Security-Policy" content="{text(POLICY)}">',
            '<meta name="viewport" content="width=device-width, initial-scale=1">',
            '<meta name="referrer" content="no-referrer">',
            f"<title>{text(title)}</title><style>{STYLE}</style></head><body><main>",
            *body,
            "</main></body></html>\n",
        )
    )


def _visible(character: str) -> str:
    """Line ends stay; what a browser would not show, or what reorders text, does not pass unseen."""
    is_hidden = unicodedata.category(character) in ("Cc", "Cf", "Cs") and character not in "\n\t\u200d"
    return "\ufffd" if is_hidden else character
