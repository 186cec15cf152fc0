"""What the demo would type, ask and compare; tests/e2e/test_demo.py runs it."""

import json
import math
from pathlib import Path

import pytest

from qle.config import preset_names
from qle.data.annotations import Annotation, write_annotations
from qle.errors import AnnotationError, ConfigError
from qle.synthetic import demo
from qle.synthetic.demo import AIMS, PRESET, Aim, DemoConfig, choose_questions, learning_stages, measured_aims


def test_fewer_videos_shrink_all_splits_alike_and_more_leave_the_tests_as_they_are() -> None:
    wholes = (demo.NUM_VAL, demo.NUM_TEST, demo.NUM_COMPOSITION)
    assert [DemoConfig().share(whole) for whole in wholes] == list(wholes)
    assert [DemoConfig(num_videos=10 * demo.NUM_TRAIN).share(whole) for whole in wholes] == list(wholes)
    half = DemoConfig(num_videos=demo.NUM_TRAIN // 2)
    assert [half.share(whole) for whole in wholes] == [round(whole / 2) for whole in wholes]
    assert DemoConfig(num_videos=2).share(demo.NUM_TEST) == demo.LEAST_VIDEOS


@pytest.mark.parametrize("wrong", [{"num_videos": 1}, {"steps": 0}])
def test_too_little_is_refused(wrong: dict[str, int]) -> None:
    with pytest.raises(ConfigError, match="expected"):
        DemoConfig(**wrong)


def test_the_preset_exists() -> None:
    assert PRESET in preset_names()  # that it can be trained with is tested with all the others


def test_stages_go_one_way_and_steps_are_only_named_where_they_were(tmp_path: Path) -> None:
    stages = learning_stages(tmp_path, DemoConfig(), "tiny")
    assert [stage.name for stage in stages] == [
        "prepare", "extract", "train-heads", "eval test", "eval composition", "eval paraphrase", "explain",
    ]  # fmt: skip
    assert not any("train.steps" in part for stage in stages for part in stage.line)
    few = learning_stages(tmp_path, DemoConfig(steps=7), "tiny")
    assert "train.steps=7" in few[2].line


def _write(folder: Path, name: str, *rows: tuple[str, str, str, bool]) -> None:
    path = folder / "made" / "annotations" / f"{name}.jsonl"
    path.parent.mkdir(parents=True, exist_ok=True)
    write_annotations(path, [
        Annotation(qid=f"{name}{number}", video=video, query=query, concept=concept, duration_s=9.0,
                   windows=((1.0, 2.5),) if happens else ())
        for number, (video, query, concept, happens) in enumerate(rows)
    ])  # fmt: skip


def test_questions_are_what_happens_what_does_not_and_one_in_new_words(tmp_path: Path) -> None:
    _write(
        tmp_path, "test",
        ("a.mp4", "a ring", "ring", True),
        ("b.mp4", "a polyp", "polyp", True), ("b.mp4", "a clip", "clip", True), ("b.mp4", "a ring", "ring", False),
    )  # fmt: skip
    _write(
        tmp_path, "paraphrase",
        ("a.mp4", "one sees a ring", "ring", True),
        ("b.mp4", "one sees a polyp", "polyp", True), ("b.mp4", "one sees a clip", "clip", True),
    )  # fmt: skip
    questions = choose_questions(tmp_path)
    assert [question.annotation.query for question in questions] == ["a polyp", "a clip", "a ring", "one sees a polyp"]
    assert {question.annotation.video for question in questions} == {"b.mp4"}
    assert questions[0].truth == 'known words: "a polyp" is true at 1.0 - 2.5 s'
    assert questions[2].truth == 'never there: "a ring" is true at no time'


def test_without_a_video_of_both_kinds_there_is_nothing_to_ask(tmp_path: Path) -> None:
    _write(tmp_path, "test", ("a.mp4", "a ring", "ring", True))
    _write(tmp_path, "paraphrase", ("a.mp4", "one sees a ring", "ring", True))
    with pytest.raises(AnnotationError):
        choose_questions(tmp_path)


def test_an_aim_is_met_from_its_value_on_and_never_by_a_number_that_does_not_exist(tmp_path: Path) -> None:
    values: dict[str, float | None] = {"test": 0.97, "composition": 0.89, "paraphrase": None}
    for source, auroc in values.items():
        metric = {"value": auroc, "interval": None, "floors": {"query_blind": 0.6, "position": None}}
        metrics = {"frame": {"auroc": metric}, "segment": {"r1@0.5": metric | {"interval": [0.1, 0.99]}}}
        metrics["absent"] = {"presence_auroc": metric, "false_alarms_at_10_misses": metric | {"value": 0.1}}
        (tmp_path / f"{source}.json").write_text(json.dumps({"metrics": metrics}))
    pointing = {"name": "pointing", "value": 0.5, "low": 0.4, "high": 0.6, "floors": {"centre": 0.2, "random": 0.1}}
    strict = pointing | {"name": "pointing, strict", "value": 0.8}
    refined = pointing | {"name": "pointing, refined", "value": 0.79}
    (tmp_path / "pointing.json").write_text(json.dumps({"measures": [pointing, strict, refined]}))
    found = measured_aims(tmp_path)
    assert [one.aim for one in found] == list(AIMS)
    assert [one.is_met for one in found] == [True, True, False, False, True, True, False, True, False]
    assert math.isnan(found[3].value)
    assert [one.interval for one in found] == [
        None,
        (0.1, 0.99),
        None,
        None,
        None,
        None,
        (0.4, 0.6),
        (0.4, 0.6),
        (0.4, 0.6),
    ]
    assert found[0].floors == {"query blind": 0.6}
    assert [one.aim.goal for one in found][4:6] == [">= 0.95", "<= 0.1"]
    assert not Aim(name="", source="", metric="", at_most=0.1).is_met(math.nan)
    assert found[6].floors == {"centre": 0.2, "random": 0.1}
