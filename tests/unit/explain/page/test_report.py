"""The page: nothing of a stranger becomes markup, nothing is loaded from outside, and what it draws is where it belongs."""

import base64
import dataclasses
import hashlib
import io
import re
from pathlib import Path

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from qle.explain.explained import ExplainedFrame, ExplainedPrediction, ShownFilm, TemporalAttribution
from qle.explain.overlay import overlay
from qle.explain.page import timeline as drawing
from qle.explain.page.clock import clock, ticks
from qle.explain.page.document import text
from qle.explain.page.lanes import lanes_of
from qle.explain.page.report import report, write_report
from qle.explain.page.timeline import curve, letters
from qle.types import Moment, Prediction, ScoreTrack
from tests.pages import Page

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


def page_of(*predictions: ExplainedPrediction, **changes: object) -> tuple[str, Page]:
    given: dict = {"provenance": {"run": "runs/one", "versions": {"qle": "0.1.0"}}, "calibration": {}} | changes
    markup = report(predictions, **given)
    return markup, Page(markup)


def test_hostile_text_is_shown_and_not_obeyed(tmp_path: Path) -> None:
    film = ShownFilm(path=tmp_path / "javascript:alert(1)" / '" onerror=alert(2) x.mp4')
    markup, page = page_of(
        explained(query=HOSTILE, video=HOSTILE, note=HOSTILE, film=film),
        provenance={HOSTILE: HOSTILE, "run": HOSTILE, "nested": {"deep": [HOSTILE]}},
        calibration={"localization": {"threshold": 0.5, HOSTILE: HOSTILE}, "metrics": {HOSTILE: HOSTILE}},
        csv=HOSTILE,
        folder=tmp_path,
    )
    assert not page.open  # every tag is closed in its order
    names = {tag for tag, _ in page.tags}
    assert not names & {"iframe", "object", "embed", "link", "base", "form", "foreignobject"}
    assert all(not name.startswith("on") for _, attributes in page.tags for name in attributes)
    assert all((attributes["src"] or "").startswith("data:image/") for tag, attributes in page.tags if tag == "img")
    (player,) = page.of("video")
    assert player["src"] == "./javascript%3Aalert%281%29/%22%20onerror%3Dalert%282%29%20x.mp4"
    assert "<script>alert(1)</script></svg>" in page.words
    assert "\u202e" not in markup
    assert "\x00" not in markup


def test_page_loads_nothing_and_runs_one_script_alone() -> None:
    markup, page = page_of(explained())
    assert not re.search(r"https?://|//[a-z]|@import|url\(", re.sub(r"base64,[A-Za-z0-9+/=]+", "", markup))
    policy = next(attributes["content"] for attributes in page.of("meta") if "http-equiv" in attributes)
    assert policy is not None
    assert policy.startswith("default-src 'none'; img-src data:; media-src 'self' file:;")
    (script,) = re.findall(r"<script>(.*?)</script>", markup, re.DOTALL)
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    assert f"script-src 'sha256-{digest}'" in policy
    assert [attributes for attributes in page.of("script") if attributes] == []
    targets = {attributes["id"] for _, attributes in page.tags if "id" in attributes}
    links = [attributes["href"] or "" for attributes in page.of("a")]
    assert "#query-1" in links
    assert all(link[1:] in targets for link in links)
    assert not page.of("video")


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
    assert len(page.of("circle")) == 2  # empty bins have no dot
    bars = page.of("a", "moment")
    assert len(bars) == 2
    assert "left:26.25%;width:17.5%" in (bars[0]["style"] or "")  # 5.25 s and 3.5 s of 20 s
    assert markup.count('class="invalid"') == 1
    assert markup.count('class="track"') == 2  # the line is broken where there was no picture


def test_numbers_and_times_are_never_broken() -> None:
    """On a telephone 00:05.2 stood in three lines: every time and score is in an element that does not wrap."""
    _, page = page_of(explained(), explained(video="b.mp4"))
    numbers = [
        (words, classes) for words, classes in page.pieces if re.fullmatch(r"[+-]?\d[\d:.]*( s)?", words.strip())
    ]
    assert len(numbers) > 30
    whole = {"num", "tick", "moment", "scale", "threshold-name", "facts"}
    assert [words for words, classes in numbers if not classes & whole] == []


def test_moments_that_overlap_lie_in_lanes_of_their_own() -> None:
    one = explained()
    spans = [(5, 9), (6, 10), (9, 12), (8, 11), (1, 2)]
    moments = tuple(
        Moment(start_s=start, end_s=end, score=0.9 - place / 10) for place, (start, end) in enumerate(spans)
    )
    _, page = page_of(dataclasses.replace(one, prediction=dataclasses.replace(one.prediction, moments=moments)))
    lanes = [re.search(r"--lane:(\d)", attributes["style"] or "")[1] for attributes in page.of("a", "moment")]
    assert lanes == ["0", "1", "0", "2", "0"]
    (bars,) = page.of("div", "bars")
    assert bars["style"] == "--lanes:3"


@given(st.lists(st.tuples(st.integers(0, 30), st.integers(1, 10)), max_size=20))
def test_no_lane_holds_two_moments_at_one_time(drawn: list[tuple[int, int]]) -> None:
    spans = [(float(start), float(start + length)) for start, length in drawn]
    lanes = lanes_of(spans)
    for number, (start, end) in enumerate(spans):
        before = [lanes[k] for k, (other, stop) in enumerate(spans[:number]) if other < end and start < stop]
        assert lanes[number] not in before
        assert lanes[number] <= len(before)


def test_all_queries_of_a_video_share_one_timeline() -> None:
    given = [explained("a", "1.mp4"), explained("b", "2.mp4"), explained("c", "1.mp4")]
    _, page = page_of(*given)
    assert len(page.of("div", "timeline")) == 2
    assert [attributes["id"] for attributes in page.of("section", "query")] == ["query-1", "query-3", "query-2"]
    rows = [attributes["href"] for attributes in page.of("a") if re.fullmatch(r"#query-\d", attributes["href"] or "")]
    assert rows[:3] == ["#query-1", "#query-2", "#query-3"]  # the table keeps the order of the queries
    assert len(page.of("div", "asked")) == 3
    assert len(page.of("div", "axis")) == 2


def test_answers_can_be_sorted_by_score() -> None:
    weak = explained("weak")
    weak = dataclasses.replace(weak, prediction=dataclasses.replace(weak.prediction, moments=(), presence=0.1234))
    _, page = page_of(explained("strong"), weak)
    table = page.of("table", "sortable")[0]
    assert "stack" in (table["class"] or "")
    kinds = [attributes["data-sort"] for attributes in page.of("th")[:5]]
    assert kinds == ["text", "number", "number", "number", "number"]
    cells = {
        (attributes["data-name"], attributes.get("data-value"))
        for attributes in page.of("td")
        if "data-name" in attributes
    }
    assert {("present", "0.9"), ("present", "0.1234"), ("score", "0.9"), ("best", "5.25"), ("best", "")} <= cells


def test_colours_lie_over_the_frame_and_can_be_taken_away() -> None:
    """Every frame stood in the page twice, once with its colours painted on."""
    one = explained()
    markup, page = page_of(one)
    picture, colours = page.of("img")[:2]
    assert (picture["src"] or "").startswith("data:image/jpeg")
    assert colours["class"] == "map"
    png = Image.open(io.BytesIO(base64.b64decode((colours["src"] or "").partition(",")[2])))
    frame = one.frames[0]
    assert frame.frame is not None
    assert frame.relevance is not None
    laid = Image.alpha_composite(Image.fromarray(np.full((10, 13, 4), (90, 90, 90, 255), np.uint8)), png)
    painted = overlay(np.full((10, 13, 3), 90, np.uint8), frame.relevance, frame.scale)
    assert np.abs(np.asarray(laid)[..., :3].astype(int) - painted).max() <= 2
    boxes = [attributes for attributes in page.of("input") if attributes["type"] == "checkbox"]
    assert len(boxes) == 2  # all frames of the page, and this one
    assert all("checked" in attributes for attributes in boxes)
    assert "body:has(#overlay:not(:checked)) .map" in markup
    _, bare = page_of(dataclasses.replace(one, frames=(dataclasses.replace(frame, relevance=None),)))
    assert not bare.of("input")


def test_film_is_played_where_it_lies_beside_the_page(tmp_path: Path) -> None:
    page_path = tmp_path / "out" / "report.html"
    inside, outside = tmp_path / "out" / "films" / "a b#1.mp4", tmp_path / "a.mp4"
    given = [
        explained(film=ShownFilm(path=inside, begin_s=8.5)), explained("other words", film=ShownFilm(path=inside)),
        explained(video="b.mp4", film=ShownFilm(path=outside)),
    ]  # fmt: skip
    page_path.parent.mkdir()
    write_report(page_path, given, provenance={}, calibration={})
    page = Page(page_path.read_text("utf-8"))
    (player,) = page.of("video")  # one a video, whatever is asked; none for a film that lies elsewhere
    assert player["src"] == "./films/a%20b%231.mp4"
    assert "controls" in player
    sections = page.of("section", "video")
    assert [attributes.get("data-begin") for attributes in sections] == ["8.5", None]
    assert sections[0]["data-duration"] == "20.0"


def test_moments_can_be_saved_as_csv() -> None:
    csv = "video,query\r\na.mp4,P\u00f6lyp\r\n"
    _, page = page_of(explained(), csv=csv)
    (link,) = [attributes for attributes in page.of("a") if "download" in attributes]
    assert link["download"] == "localization.csv"
    kind, _, content = (link["href"] or "").partition(",")
    assert kind == "data:text/csv;charset=utf-8;base64"
    assert base64.b64decode(content).decode("utf-8-sig") == csv  # with the mark by which spreadsheets know UTF-8


def test_letters_of_frames_that_are_close_stand_side_by_side() -> None:
    for places in ([1.0, 1.5, 2.0, 50.0], [97.0, 98.0, 99.0, 100.0], [float(k) for k in range(60)]):
        moved = drawing.side_by_side(places)
        apart = np.diff(moved)
        assert apart.min() >= min(drawing.LETTER, 100 / len(places)) - 0.01
        assert moved[0] >= 0
        assert moved[-1] <= 100


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
    drawn = curve(long.prediction, 0.5)
    assert len(drawn) < 150_000
    assert " 0.0" in drawn  # the one row at 1.0 reaches the top


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
