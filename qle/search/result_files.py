"""What a search has found as text: for people (table), for programs (json, jsonl, csv). No torch.

As `qle localize` writes its results, with the video's rank and similarity beside them: json and jsonl have an entry for each
(query, video) in the order of their best moment, csv and table a line for each moment in the order of the corpus.
"""

import csv
import io
import json
from collections.abc import Sequence
from typing import Any

from qle.eval.submissions.write import qid_value, six_digits, to_ms
from qle.localize.moment_files import cell, short_clock
from qle.outputs import one_line
from qle.search.request import MomentHit, Searched, SearchResult, VideoHit

FORMATS = ("table", "json", "jsonl", "csv")


def render(kind: str, result: SearchResult) -> str:
    """The text of one of FORMATS."""
    return {"table": to_table, "json": to_json, "jsonl": to_jsonl, "csv": to_csv}[kind](result)


def to_table(result: SearchResult) -> str:
    """Queries below each other, their results best first."""
    columns = ("moment", "score", "similarity", "video rank") if result.has_moments else ("similarity", "share")
    head: tuple[str, ...] = ("query", "rank", "video", *columns)
    rows: list[tuple[str, ...]] = [head]
    for searched in result.searched:
        lines = _moment_lines(searched) if result.has_moments else _video_lines(searched)
        lines = lines or [("", "nothing", *("" for _ in head[3:]))]
        names = [one_line(searched.query.text), *("" for _ in lines[1:])]
        rows += [(name, *line) for name, line in zip(names, lines, strict=True)]
    widths = [max(len(row[column]) for row in rows) for column in range(len(head))]
    rows.insert(1, tuple("-" * width for width in widths))
    lines_of = ("  ".join(text.ljust(width) for text, width in zip(row, widths, strict=True)).rstrip() for row in rows)
    return "\n".join(lines_of) + "\n"


def to_json(result: SearchResult) -> str:
    """One object: where the numbers come from, all predictions, and why videos have none."""
    values: dict[str, Any] = {
        "provenance": result.provenance,
        "num_videos": result.num_videos,
        "predictions": [entry for searched in result.searched for entry in _predictions(searched)]
        if result.has_moments
        else [],
        "videos": [
            {"query": searched.query.text, "qid": searched.query.qid, **_video(video)}
            for searched in result.searched
            for video in searched.videos
        ],
        "failures": result.failures,
    }
    return json.dumps(values, indent=2, allow_nan=False) + "\n"


def to_jsonl(result: SearchResult) -> str:
    """The QVHighlights submission format, a line for each (query, video); without moments the windows are missing."""
    lines: list[dict[str, Any]] = []
    for number, searched in enumerate(result.searched):
        qid = number if searched.query.qid is None else qid_value(searched.query.qid)
        asked = {"qid": qid, "query": searched.query.text}
        if not result.has_moments:
            lines += [asked | {"vid": video.video, "qle": _video(video)} for video in searched.videos]
        for video, moments in _by_video(searched):
            windows = [[to_ms(m.start_s), to_ms(m.end_s), six_digits(m.score)] for _, m in moments]
            own = _video(video) | {
                "duration_s": to_ms(moments[0][1].duration_s),
                "ranks": [rank for rank, _ in moments],
            }
            lines.append(
                asked
                | {"vid": video.video, "pred_relevant_windows": windows}
                | {"pred_exist_score": six_digits(moments[0][1].presence), "qle": own}
            )
    return "".join(json.dumps(line, allow_nan=False) + "\n" for line in lines)


def to_csv(result: SearchResult) -> str:
    """One line a moment, or a video; text that a spreadsheet would run as a formula gets an apostrophe before it."""
    out = io.StringIO(newline="")
    writer = csv.writer(out, lineterminator="\n")
    beside = ["similarity", "video_rank", "share"]
    timed = ["start_s", "end_s", "score", "presence", "probability"] if result.has_moments else []
    writer.writerow(["video", "qid", "query", "rank", *timed, *beside])
    for searched in result.searched:
        names = [cell(searched.query.qid or ""), cell(searched.query.text)]
        for rank, moment in enumerate(searched.moments, start=1):
            numbers = [to_ms(moment.start_s), to_ms(moment.end_s)]
            numbers += [six_digits(value) for value in (moment.score, moment.presence, moment.probability)]
            writer.writerow([cell(moment.video.video), *names, rank, *numbers, *_beside(moment.video)])
        for video in () if result.has_moments else searched.videos:
            writer.writerow([cell(video.video), *names, video.rank, *_beside(video)])
    return out.getvalue()


def _moment_lines(searched: Searched) -> list[tuple[str, ...]]:
    return [
        (
            str(rank), one_line(moment.video.video), f"{short_clock(moment.start_s)} - {short_clock(moment.end_s)}",
            f"{moment.score:.3f}", f"{moment.video.similarity:.3f}", str(moment.video.rank),
        )
        for rank, moment in enumerate(searched.moments, start=1)
    ]  # fmt: skip


def _video_lines(searched: Searched) -> list[tuple[str, ...]]:
    return [
        (str(video.rank), one_line(video.video), f"{video.similarity:.3f}", f"{video.share:.3f}")
        for video in searched.videos
    ]


def _predictions(searched: Searched) -> list[dict[str, Any]]:
    predictions = []
    for video, moments in _by_video(searched):
        first = moments[0][1]
        spans = [
            {"start_s": to_ms(m.start_s), "end_s": to_ms(m.end_s), "score": six_digits(m.score)}
            | {"rank": rank, "probability": six_digits(m.probability)}
            for rank, m in moments
        ]
        asked = {"video": video.video, "query": searched.query.text, "qid": searched.query.qid}
        known = {"duration_s": to_ms(first.duration_s), "presence": six_digits(first.presence)}
        known |= {
            "absent": six_digits(1 - first.presence),
            "similarity": six_digits(video.similarity),
            "video_rank": video.rank,
        }
        predictions.append(asked | known | {"moments": spans})
    return predictions


def _by_video(searched: Searched) -> list[tuple[VideoHit, Sequence[tuple[int, MomentHit]]]]:
    """Videos in the order of their best moment, with the rank of each moment in the corpus."""
    by_video: dict[str, tuple[VideoHit, list[tuple[int, MomentHit]]]] = {}
    for rank, moment in enumerate(searched.moments, start=1):
        by_video.setdefault(moment.video.video, (moment.video, []))[1].append((rank, moment))
    return list(by_video.values())


def _video(video: VideoHit) -> dict[str, Any]:
    return {"video": video.video, "video_rank": video.rank} | dict(
        zip(("similarity", "share"), (six_digits(video.similarity), six_digits(video.share)), strict=True)
    )


def _beside(video: VideoHit) -> list[Any]:
    return [six_digits(video.similarity), video.rank, six_digits(video.share)]
