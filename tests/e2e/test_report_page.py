"""The report as people see it: in a real browser where one is installed, else as far as a parser sees it."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from qle.explain.explained import ShownFilm
from qle.explain.page.report import write_report
from qle.extract.decode.write import write_video
from qle.types import Moment
from tests.browser import BROWSER, Browser
from tests.pages import Page
from tests.unit.explain.page.test_report import explained

pytestmark = pytest.mark.timeout(
    600
)  # a browser starts in a second, and on a machine that does twenty other things in a minute

SPANS = [(5.25, 8.75), (6, 12), (3605.3, 3670.5)]


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two videos, three answers; the film of the first lies beside the page."""
    folder = tmp_path_factory.mktemp("page")
    write_video(folder / "film.mp4", iter(np.full((40, 48, 64, 3), np.arange(40)[:, None, None, None], np.uint8)), 2.0)
    given = [
        explained("a green polyp in the middle of a long sentence about it", film=ShownFilm(path=folder / "film.mp4"))
    ]
    weak = explained("smoke" * 30, "b" * 120 + ".mp4")
    moments = tuple(Moment(start_s=start, end_s=end, score=0.4) for start, end in SPANS)
    given.append(replace(weak, prediction=replace(weak.prediction, presence=0.3, moments=moments)))
    given.append(explained("a grasper", film=ShownFilm(path=folder / "film.mp4")))
    write_report(
        folder / "report.html", given, provenance={"run": "r/" * 90}, calibration={"localization": {"threshold": 0.5}}
    )
    return folder / "report.html"


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser | None]:
    if BROWSER is None:
        yield None
        return
    with Browser(tmp_path_factory.mktemp("profile")) as opened:
        yield opened


@pytest.mark.parametrize("is_dark", [False, True])
def test_a_telephone_shows_it_whole(page: Path, browser: Browser | None, is_dark: bool) -> None:
    """Times were broken inside of numbers, and drawings shrank with their words."""
    if browser is None:
        style = page.read_text("utf-8")
        assert "width=device-width" in style
        assert "@media (max-width: 560px)" in style
        assert "@media (prefers-color-scheme: dark)" in style
        return
    browser.open(page, width=390, is_dark=is_dark)
    assert browser.run("document.documentElement.scrollWidth <= document.documentElement.clientWidth")
    broken = "[...document.querySelectorAll('.num, .tick, .moment')].filter(e => e.getClientRects().length > 1).length"
    assert browser.run(broken) == 0
    smallest = (
        "Math.min(...[...document.querySelectorAll('main *')].map(e => parseFloat(getComputedStyle(e).fontSize)))"
    )
    assert browser.run(smallest) >= 11
    paper = browser.run("getComputedStyle(document.body).backgroundColor")
    assert paper == ("rgb(18, 22, 28)" if is_dark else "rgb(255, 255, 255)")
    tops = browser.run("[...document.querySelectorAll('.bars')[2].children].map(e => e.offsetTop)")
    assert len(set(tops[:2])) == 2  # they overlap


def test_tables_are_sorted_by_the_keyboard(page: Path, browser: Browser | None) -> None:
    if browser is None:
        headings = Page(page.read_text("utf-8")).of("th")
        assert [heading.get("data-sort") for heading in headings[:3]] == ["text", "text", "number"]
        return
    browser.open(page)
    order = "[...document.querySelector('table').tBodies[0].rows].map(row => row.cells[0].textContent.slice(0, 7))"
    assert browser.run(order) == ["a green", "smokesm", "a grasp"]
    browser.run("document.querySelectorAll('th button')[2].focus()")
    for key_type in ("keyDown", "keyUp"):
        browser.ask(
            "Input.dispatchKeyEvent", type=key_type, key="Enter", code="Enter", windowsVirtualKeyCode=13, text="\r"
        )
    assert browser.run("document.querySelectorAll('th')[2].getAttribute('aria-sort')") == "descending"
    assert browser.run(order) == ["a green", "a grasp", "smokesm"]
    browser.run("document.querySelectorAll('th button')[2].click()")
    assert browser.run(order)[0] == "smokesm"
    browser.run("document.querySelectorAll('th button')[0].click()")
    assert browser.run(order) == ["a grasp", "a green", "smokesm"]


def test_colours_go_and_come_back(page: Path, browser: Browser | None) -> None:
    if browser is None:
        assert len(Page(page.read_text("utf-8")).of("input")) == 1 + 3
        return
    browser.open(page)
    seen = "[...document.querySelectorAll('.map')].map(map => getComputedStyle(map).display !== 'none')"
    assert browser.run(seen) == [True, True, True]
    browser.run("document.querySelectorAll('.picture input')[1].click()")
    assert browser.run(seen) == [True, False, True]
    browser.run("document.querySelector('#overlay').click()")
    assert browser.run(seen) == [False, False, False]


def test_film_plays_from_a_moment_and_a_film_that_is_gone_is_told(page: Path, browser: Browser | None) -> None:
    if browser is None:
        (player,) = Page(page.read_text("utf-8")).of("video")
        assert player["src"] == "./film.mp4"
        return
    browser.open(page)
    has_failed = "new Promise(done => { const film = document.querySelector('video');"
    has_failed += " const look = () => film.error ? done(true) : film.readyState ? done(false) : setTimeout(look, 20);"
    has_failed += " look(); })"
    assert browser.run(has_failed) is False
    browser.run("document.querySelector('section.query [data-at] button').click()")
    at_s = "new Promise(done => { const film = document.querySelector('video'); film.paused || film.pause();"
    at_s += " const look = () => film.seeking ? setTimeout(look, 20) : done(film.currentTime); look(); })"
    assert browser.run(at_s) == pytest.approx(5.25, abs=0.3)
    gone = page.with_name("film.mp4")
    gone.rename(page.with_name("moved.mp4"))
    try:
        browser.open(page)
        assert browser.run(has_failed) is True
        told = "new Promise(done => setTimeout(() => done(document.querySelector('video + .note').hidden), 50))"
        assert browser.run(told) is False
    finally:
        page.with_name("moved.mp4").rename(gone)


def test_nothing_is_run_but_the_script_of_the_page(page: Path, browser: Browser | None) -> None:
    if browser is None:
        assert "script-src 'sha256-" in page.read_text("utf-8").replace("&#39;", "'")
        return
    forged = page.with_name("forged.html")
    bad = "<img src='https://example.invalid/x.png' onerror='window.bad = 1'><script>window.bad = 2</script>"
    forged.write_text(page.read_text("utf-8").replace("<header>", f"{bad}<header>"))
    browser.open(forged)
    assert browser.run("window.bad === undefined")
    assert browser.run("document.querySelectorAll('th button').length > 0")  # the page's own script ran
