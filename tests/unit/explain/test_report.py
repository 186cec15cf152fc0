"""The page: nothing of a stranger becomes markup, nothing is loaded from outside, and what it draws is where it belongs."""

import dataclasses
import re
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest

from qle.explain import timeline as drawing
from qle.explain.clock import clock, ticks
from qle.explain.explained import ExplainedFrame, ExplainedPrediction, TemporalAttribution
from qle.explain.page import text
from qle.explain.report import report, write_report
from qle.explain.timeline import letters, timeline
from qle.types import Moment, Prediction, ScoreTrack

HOSTILE = """<script>alert(1)</script></svg></title><img src=x onerror=alert(2)> " ' & \u202egnp.exe\x00"""


def explained(
    query: str = "a polyp", video: str = "a.mp4", num_rows: int = 40, **changes: object
) -> ExplainedPrediction:
    times = np.arange(num_rows) * 0.5
    edges = np.concatenate([[0], (times[1:] + times[:-1]) / 2, [times[-1] + 0.5]])
    logit = np.where((times > 5) & (times < 9), 3.0, -3.0).astype(np.float32)
    valid = np.ones(num_rows, bool)
    valid[num_rows // 2] = False
    track = ScoreTrack(
        times_s=times, edges_s=edges, valid=valid, logit=logit, uncertainty=np.full(num_rows, 0.2, np.float32)
    )
    prediction = Prediction(
        video=video, query=query, duration_s=float(edges[-1]), presence=0.9,
        moments=(Moment(start_s=5.25, end_s=8.75, score=0.9), Moment(start_s=12.0, end_s=12.5, score=0.6)),
        probability=(1 / (1 + np.exp(-logit))).astype(np.float32), track=track,
    )  # fmt: skip
    frame = ExplainedFrame(
        time_s=6.0,
        frame=np.full((30, 40, 3), 90, np.uint8),
        relevance=np.eye(4, dtype=np.float32),
        scale=1.0,
        probability=0.95,
    )
    attribution = TemporalAttribution(
        first_row=0, contribution=np.linspace(-1, 1, num_rows).astype(np.float32), target=(5.25, 8.75), logit=3.0,
        baseline=-1.0, residual=0.2,
    )  # fmt: skip
    made = ExplainedPrediction(prediction=prediction, frames=(frame,), scale=1.0, attribution=attribution)
    return dataclasses.replace(made, **changes)


class Page(HTMLParser):
    """Tags that really open, with their attributes, and the text between them."""

    def __init__(self, markup: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.open: list[str] = []
        self.words = ""
        self.feed(markup)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in ("meta", "img"):
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        self.words += data


def page_of(*predictions: ExplainedPrediction, **changes: object) -> tuple[str, Page]:
    given: dict = {"provenance": {"run": "runs/one", "versions": {"qle": "0.1.0"}}, "calibration": {}} | changes
    markup = report(predictions, **given)
    return markup, Page(markup)


def test_hostile_text_is_shown_and_not_obeyed() -> None:
    markup, page = page_of(
        explained(query=HOSTILE, video=HOSTILE, note=HOSTILE),
        provenance={HOSTILE: HOSTILE, "run": HOSTILE, "nested": {"deep": [HOSTILE]}},
        calibration={"localization": {"threshold": 0.5, HOSTILE: HOSTILE}, "metrics": {HOSTILE: HOSTILE}},
    )
    assert not page.open  # every tag is closed in its order
    names = {tag for tag, _ in page.tags}
    assert not names & {"script", "iframe", "object", "embed", "link", "base", "form", "foreignobject"}
    assert all(not name.startswith("on") for _, attributes in page.tags for name in attributes)
    assert all((attributes["src"] or "").startswith("data:image/") for tag, attributes in page.tags if tag == "img")
    assert "<script>alert(1)</script></svg>" in page.words
    assert "\u202e" not in markup
    assert "\x00" not in markup


def test_page_loads_nothing() -> None:
    markup, page = page_of(explained())
    assert not re.search(r"https?://|//[a-z]|@import|url\(", re.sub(r"base64,[A-Za-z0-9+/=]+", "", markup))
    policy = next(attributes["content"] for _, attributes in page.tags if "http-equiv" in attributes)
    assert policy is not None
    assert "default-src 'none'" in policy
    assert "script-src" not in policy
    links = [attributes["href"] for tag, attributes in page.tags if tag == "a"]
    assert links == ["#query-1"]
    assert any(attributes.get("id") == "query-1" for _, attributes in page.tags)


def test_numbers_are_said_and_drawn_in_their_places() -> None:
    markup, page = page_of(
        explained(),
        calibration={
            "localization": {"threshold": 0.55},
            "metrics": {"ECE": 0.031},
            "reliability": [(0.1, 0.12, 50), (0.9, 0.8, 10), (0.5, 0.5, 0)],
        },
    )
    for said in ("00:05.2", "00:08.8", "3.5 s", "threshold 0.55", "0.031", "unaccounted"):
        assert said in page.words
    assert sum(tag == "circle" for tag, _ in page.tags) == 2  # empty bins have no dot
    bars = [attributes for tag, attributes in page.tags if tag == "rect" and attributes.get("class") == "moment"]
    assert len(bars) == 2
    left = float(bars[0]["x"] or 0)
    assert left == pytest.approx(drawing.LEFT + drawing.COLUMNS * 5.25 / 20.0, abs=0.1)
    assert markup.count('class="invalid"') == 1
    assert markup.count('class="track"') == 2  # the line is broken where there was no picture


def test_absent_query_says_so() -> None:
    one = explained()
    absent = dataclasses.replace(one.prediction, moments=(), presence=0.02)
    _, page = page_of(dataclasses.replace(one, prediction=absent, attribution=None))
    assert "Not found" in page.words
    assert "No moment reached the threshold" in page.words
    assert "0.98" in page.words
    assert "no measurement of its calibration" in page.words


def test_bare_prediction_and_missing_pictures_make_a_page() -> None:
    one = explained()
    bare = Prediction(video="a", query="b", duration_s=0.0, moments=(), presence=0.0)
    gone = dataclasses.replace(one.frames[0], frame=None)
    _, page = page_of(ExplainedPrediction(prediction=bare), dataclasses.replace(one, frames=(gone,), note="gone"))
    assert not page.open
    assert "gone" in page.words
    assert any(tag == "img" for tag, _ in page.tags)


def test_hours_of_rows_are_thinned_but_peaks_stay() -> None:
    one = explained(num_rows=50_000)
    probability = np.zeros(50_000, np.float32)
    probability[31_234] = 1.0
    long = dataclasses.replace(one, prediction=dataclasses.replace(one.prediction, probability=probability))
    drawn = timeline(long, 0.5)
    assert len(drawn) < 150_000
    assert f" {drawing.TOP:.1f}" in drawn  # the one row at 1.0 reaches the top


def test_file_is_replaced_whole(tmp_path: Path) -> None:
    path = tmp_path / "report.html"
    path.write_text("old")
    write_report(path, [explained(video="a\udcff.mp4")], provenance={}, calibration={})
    assert path.read_text("utf-8").endswith("</html>\n")
    assert [entry.name for entry in tmp_path.iterdir()] == ["report.html"]


def test_times_are_rounded_before_they_are_split() -> None:
    assert [clock(value) for value in (0, 59.96, 75.04, 3675)] == ["00:00.0", "01:00.0", "01:15.0", "1:01:15.0"]
    assert clock(119.6, tenths=False) == "02:00"
    for duration_s in (0.0, 0.3, 12.0, 3_000.0, 36_000.0, 1e7):
        times, step = ticks(duration_s)
        assert 1 <= len(times) <= 11
        assert times[-1] <= duration_s or step > duration_s
    assert letters(28)[-3:] == ["Z", "AA", "AB"]
    assert text("a<b\n") == "a&lt;b\n"
