"""Where a query cannot be used, its file and line are named."""

from pathlib import Path

import pytest
from typer.testing import CliRunner

from qle.errors import InputError
from qle.localize.query_files import read_queries
from qle.text import TextRequest, build_text_encoder
from qle.text.queries import check_queries
from qle.types import Query


@pytest.mark.parametrize(
    ("name", "begin", "end"), [("wishes.txt", "", ""), ("wishes.jsonl", '{"qid": 7, "query": "', '"}')]
)
def test_a_query_of_too_many_words_is_named_by_file_and_line(
    name: str, begin: str, end: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of a thousand queries the message named the words alone, shortened."""
    monkeypatch.chdir(tmp_path)
    texts = ["smoke", "", "word " * 1000]
    Path(name).write_text("\n".join(text and f"{begin}{text.strip()}{end}" for text in texts))
    encoder = build_text_encoder(TextRequest(name="tiny", dim=8), "cpu")
    with pytest.raises(InputError) as caught:
        check_queries(read_queries(Path(name)), encoder)
    assert str(caught.value).startswith(f"{name}:3: query 'word word")
    assert "too long: 1000 word pieces" in str(caught.value)
    assert len(str(caught.value).splitlines()) <= 3


def test_a_query_of_the_command_line_has_no_line() -> None:
    encoder = build_text_encoder(TextRequest(name="tiny", dim=8), "cpu")
    with pytest.raises(InputError, match=r"^empty query"):
        check_queries([Query(text="   ")], encoder)


def test_standard_input_is_called_so() -> None:
    found = CliRunner().invoke(_first_line_of_input(), [], input="\n\nsmoke\n")
    assert found.output.strip() == "standard input:3"


def _first_line_of_input() -> object:
    import typer

    app = typer.Typer()

    @app.command()
    def show() -> None:
        typer.echo(read_queries(Path("-"))[0].where)

    return app
