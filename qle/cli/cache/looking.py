"""`qle cache inspect` and `verify`: what a cache holds, and whether it is as it was recorded. Nothing is changed."""

import shlex
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from qle.cli import console
from qle.cli.cache.options import DAMAGE_EXIT, CacheArgument, Spaces, example, few
from qle.cli.options import Json, Quiet
from qle.cli.progress import StepProgress
from qle.errors import ConfigError
from qle.runtime import cache_folder

if TYPE_CHECKING:
    from datetime import datetime

    from qle.cache.tools.inspect import CacheFacts, SpaceFacts, VideoFacts
    from qle.cache.tools.verify import Finding

INSPECT_HELP = (
    "What a cache holds: spaces, streams, videos by state, hours, bytes, provenance; or one video's numbers."
    + example(
        "inspect /data/cache",
        "inspect /data/cache --video 'ward 3/a.mp4' --picture a.png",
        "inspect /data/cache --json",
    )
)


def inspect(
    cache: CacheArgument = None,
    space: Spaces = None,
    video_id: Annotated[
        str | None, typer.Option("--video", help="A video, by its key, file name or stem: statistics of each stream.")
    ] = None,
    picture: Annotated[Path | None, typer.Option(help="With --video: PNG with the patch tokens as colours over time.")] = None,
    json: Json = False,
) -> None:  # fmt: skip
    from qle.cache.tools.inspect import find_video, inspect_cache, inspect_video, token_strip

    root = cache_folder(cache)
    if picture is not None and video_id is None:
        raise ConfigError("--picture draws one video: name it with --video KEY")
    if video_id is None:
        facts = inspect_cache(root, space or ())
        console.print_json(asdict(facts)) if json else _show_cache(facts)
        return
    videos = inspect_video(root, video_id, space or ())
    console.print_json([asdict(facts) for facts in videos]) if json else _show_videos(videos)
    if picture is not None:
        _, opened = find_video(root, video_id, space or ())[0]
        console.note(f"tokens as colours: {token_strip(opened, picture)}")


VERIFY_HELP = (
    "Check every video against its record: sizes, and with --deep every byte. Exit code 3 when something is wrong."
    + example(
        "verify /data/cache", "verify /data/cache --deep", "verify /data/cache --deep --video a.mp4 --video b.mp4"
    )
)


def verify(
    cache: CacheArgument = None,
    space: Spaces = None,
    video_id: Annotated[list[str] | None, typer.Option("--video", help="Only this video, by its key; may be repeated.")] = None,
    deep: Annotated[bool, typer.Option("--deep", help="Hash every file: finds one flipped bit. A killed run goes on.")] = False,
    again: Annotated[bool, typer.Option("--again", help="With --deep: also what an interrupted run had read already.")] = False,
    threads: Annotated[int | None, typer.Option(min=1, help="Files hashed at a time.")] = None,
    json: Json = False,
    quiet: Quiet = False,
) -> None:  # fmt: skip
    from qle.cache.tools.verify import verify as run

    root = cache_folder(cache)
    with StepProgress("verified", is_bytes=True, is_quiet=quiet) as progress:
        report = run(
            root, spaces=space or (), keys=video_id or (), deep=deep, again=again, num_threads=threads,
            on_progress=progress.update,
        )  # fmt: skip
    if json:
        console.print_json(asdict(report))
    else:
        for key, faults in report.faults.items():
            console.print_text(f"{key}: {faults}")
        rows = [(f.space, f.key, f.file, f.problem, few(f.videos)) for f in report.findings]
        if rows:
            console.table(["space", "video or pack", "file", "problem", "videos in that file"], rows)
        if report.from_before:
            console.print_text(_not_read_again(report.from_before))
        before = f", {report.num_from_before:,} of them by a run that was interrupted" if report.num_from_before else ""
        console.print_text(
            f"{report.num_videos:,} videos{before}, {report.num_files:,} files: "
            f"{len(rows) or 'no'} problems{'' if deep else ' (sizes only; --deep hashes every byte)'}"
        )
        if rows:
            console.print_text(_repair(root, report.findings, deep))
    raise typer.Exit(DAMAGE_EXIT if report.findings else 0)


def _not_read_again(from_before: "Mapping[str, datetime]") -> str:
    """Which videos a deep run took from an interrupted one, and since when nobody has looked at them."""
    oldest = min(from_before.values())
    return (
        f"not read again, since a run that was interrupted found them intact (from {oldest:%Y-%m-%d %H:%M} UTC on): "
        f"{few(tuple(from_before))}; --again reads them too"
    )


def _repair(root: Path, findings: "Sequence[Finding]", deep: bool) -> str:
    """What to do about damage, on one line."""
    steps = []
    if broken := [finding for finding in findings if not finding.key]:
        steps.append(f"first repair {', '.join(str(root / f.space / f.file) for f in broken)} as said above")
    if any(finding.key and not finding.pack for finding in findings):
        words = ["qle", "cache", "prune", str(root), "--damaged", *(["--deep"] if deep else []), "--yes"]
        steps.append(f"run: {shlex.join(words)}")
    for path in sorted({root / f.space / "packs" / f.pack for f in findings if f.pack}):
        steps.append(f"delete the pack {path}, which goes only as a whole")
    return "; ".join([*steps, "then run the same qle extract command again, which makes what is missing"])


def _show_cache(facts: "CacheFacts") -> None:
    if not facts.spaces:
        console.print_text("the cache has no space yet; make one with: qle extract --cache ...")
    if facts.num_leftovers:
        console.print_text(f"beside the spaces: {_left(facts)}")
    for space in facts.spaces:
        total = console.format_bytes(space.disk_bytes)
        console.facts(
            {
                "videos": ", ".join(f"{count:,} {state}" for state, count in space.states.items() if count) or "none",
                "rows": f"{space.num_rows:,} ({space.num_rows - space.num_valid:,} invalid), {space.hours:.2f} h of video",
                **(
                    {"not whole": few(tuple(f"{key} ({faults})" for key, faults in space.faults.items()))}
                    if space.faults
                    else {}
                ),
                "size": f"{console.format_bytes(space.token_bytes)} of tokens and times, {total} on disk"
                + (f", {space.num_packed:,} videos packed" if space.num_packed else ""),
                **({"left": _left(space)} if space.num_leftovers else {}),
                "made": f"{space.created:%Y-%m-%d %H:%M} UTC, hash {space.hash[:16]}",
                **{name: _brief(value) for name, value in space.provenance.items() if name != "streams"},
            },
            title=space.name,
        )
        console.table(
            ["stream", "axes", "shape of a row", "dtype"],
            [
                (s.name, " ".join(("time", *s.axes)), " x ".join(map(str, s.shape)) or "1", s.dtype)
                for s in space.streams
            ],
        )


def _left(facts: "CacheFacts | SpaceFacts") -> str:
    """What killed commands left, and what to do about it."""
    return (
        f"{facts.num_leftovers:,} things of {console.format_bytes(facts.leftover_bytes)} that killed commands left; "
        "the same commands go on from them or remove them, and so does: qle cache prune"
    )


def _show_videos(videos: "list[VideoFacts]") -> None:
    for video in videos:
        source = video.source
        console.facts(
            {
                "space": video.space,
                "rows": f"{video.num_rows:,} ({video.num_rows - video.num_valid:,} invalid), "
                f"{video.first_pts_s:.3f} s to {video.last_pts_s:.3f} s",
                **({"not whole": video.faults} if video.faults else {}),
                "files": f"{video.num_files} ({video.store}{', packed' if video.is_packed else ''}), "
                f"{console.format_bytes(video.size_bytes)}, in {video.folder}",
                "source": f"{source['path']}, {console.format_bytes(source['fingerprint']['size'])}, "
                f"{source['codec'] or 'unknown codec'} {source['width']}x{source['height']}, {source['duration_s']:.1f} s",
                "made": f"{video.created:%Y-%m-%d %H:%M} UTC, attempt {video.attempt}",
            },
            title=video.key,
        )
        rows = [
            (
                *(s.name, " x ".join(map(str, s.shape)), s.dtype),
                *map(_number, (s.minimum, s.maximum, s.mean, s.std)),
                s.num_not_finite,
            )
            for s in video.streams
        ]
        console.table(["stream", "shape", "dtype", "#min", "#max", "#mean", "#std", "#not finite"], rows)


def _brief(value: Any) -> str:
    """A nested description on one line."""
    if isinstance(value, Mapping):
        return ", ".join(f"{name} {_brief(inner)}" for name, inner in value.items() if inner is not None)
    if isinstance(value, list | tuple):
        return " ".join(map(_brief, value))
    return str(value)[:16] if isinstance(value, str) and len(value) > 60 else str(value)


def _number(value: float | None) -> str:
    return "none" if value is None else f"{value:.5g}"
