"""The page as a document, and the only way in which text becomes HTML.

    values (report.py) + template/report.html, style.css, page.js -> one HTML document that needs nothing from outside

Whatever the template prints is made visible and escaped; only drawings, which hold numbers and letters of ours, come as `Markup`.
Style, script and pictures are inside the page. Its policy lets the browser run that one script, known by its hash, and load
nothing but a film that lies beside the page.
"""

import base64
import functools
import hashlib
import unicodedata
from collections.abc import Mapping
from importlib.resources import files
from typing import Any

from jinja2 import Environment, StrictUndefined
from markupsafe import Markup, escape

POLICY = (
    "default-src 'none'; img-src data:; media-src 'self' file:; style-src 'unsafe-inline'; script-src 'sha256-{digest}'; "
    "base-uri 'none'; form-action 'none'"
)


def page(values: Mapping[str, Any]) -> str:
    """A whole document; `values` are what template/report.html names."""
    script = _part("page.js")
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode("ascii")
    environment = Environment(
        autoescape=True, finalize=_finalized, undefined=StrictUndefined, keep_trailing_newline=True
    )
    return environment.from_string(_part("report.html")).render(
        values, style=Markup(_part("style.css")), script=Markup(script), policy=POLICY.format(digest=digest)
    )


def text(value: object) -> Markup:
    """As text of the page: markup is shown, not obeyed; control characters become a visible replacement."""
    return escape(visible(str(value)))


def visible(words: str) -> str:
    """Line ends stay; what a browser would not show, or what reorders text, does not pass unseen."""
    return "".join(_visible(sign) for sign in words)


def _visible(sign: str) -> str:
    is_hidden = unicodedata.category(sign) in ("Cc", "Cf", "Cs") and sign not in "\n\t\u200d"
    return "\ufffd" if is_hidden else sign


def _finalized(value: Any) -> Any:
    """Every value that the template prints, before it is escaped."""
    is_foreign = isinstance(value, str) and not isinstance(value, Markup)
    return visible(value) if is_foreign and not value.isprintable() else value


@functools.cache
def _part(name: str) -> str:
    return files("qle.explain.page").joinpath("template", name).read_text("utf-8")
