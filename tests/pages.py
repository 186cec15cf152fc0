"""HTML as a browser reads it, for tests: which tags really open, and which words stand where."""

from html.parser import HTMLParser

VOID = {"meta", "img", "input", "link", "base", "br"}
"""Tags without an end."""


class Page(HTMLParser):
    """Tags that really open, with their attributes, and the text between them."""

    def __init__(self, markup: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.open: list[str] = []
        self.pieces: list[tuple[str, frozenset[str]]] = []
        """Text, and the classes of the elements that it stands in."""
        self._classes: list[set[str]] = []
        self.feed(markup)

    @property
    def words(self) -> str:
        return "".join(words for words, _ in self.pieces)

    def of(self, tag: str, class_: str | None = None) -> list[dict[str, str | None]]:
        """Attributes of every such tag, in their order."""
        return [
            attributes
            for name, attributes in self.tags
            if name == tag and (class_ is None or class_ in (attributes.get("class") or "").split())
        ]

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)
            self._classes.append(set((dict(attrs).get("class") or "").split()))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag
        self._classes.pop()

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        self.pieces.append((data, frozenset().union(*self._classes)))
