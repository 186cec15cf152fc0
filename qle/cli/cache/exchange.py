"""`qle cache import` and `export`: tokens as feature files of other programs, in and out."""

from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, get_args

import typer

from qle.cli import console
from qle.cli.cache.options import SOME_FAILED_EXIT, CacheArgument, choice, example, show_report
from qle.cli.options import Json, Quiet
from qle.cli.progress import StepProgress
from qle.errors import ConfigError
from qle.runtime import cache_folder

if TYPE_CHECKING:
    import numpy as np

IMPORT_HELP = (
    "Feature files of others into a space: .npz, .npy, .pt, one a video, or .h5/.hdf5 keyed by id. "
    "Their rows need times: --clip-length (row i at its clip's middle), --fps (row i at i/fps), or an array `pts` in the file."
    + example(
        "import /data/cache --from clip_features/ --name clip-b32 --clip-length 2",
        "import /data/cache --from i3d.hdf5 --name i3d --fps 1.5 --array feat",
    )
)


def import_(
    cache: CacheArgument = None,
    source: Annotated[list[Path] | None, typer.Option("--from", help="Feature file or folder of them; may be repeated.")] = None,
    name: Annotated[str | None, typer.Option(help="What made the features; names the space and tells it from others.")] = None,
    clip_length: Annotated[float | None, typer.Option(help="Seconds that a row describes.")] = None,
    fps: Annotated[float | None, typer.Option(help="Rows a second.")] = None,
    array: Annotated[str, typer.Option(help="Which array, where a file holds several.")] = "features",
    dtype: Annotated[str | None, typer.Option(help="float16 or float32; default as the first file has it.")] = None,
    store: Annotated[str, typer.Option(help="zarr or hdf5.")] = "zarr",
    json: Json = False,
    quiet: Quiet = False,
) -> None:  # fmt: skip
    from qle.cache.tools.interchange import ImportOptions, import_features
    from qle.types import StoreKind

    if not source or not name:
        raise ConfigError("import needs --from FILES and --name NAME (what made the features)")
    options = ImportOptions(
        name=name, fps=fps, clip_length_s=clip_length, array=array,
        dtype=choice("dtype", dtype, ("float16", "float32")), store=choice("store", store, get_args(StoreKind)),
    )  # fmt: skip
    with StepProgress("imported", is_quiet=quiet) as progress:
        report = import_features(
            source, cache_folder(cache), options, load_tensors=load_tensors, on_progress=progress.update
        )
    summary = f"{report.num_imported:,} videos imported into {report.space}, {report.num_already:,} were there"
    show_report(asdict(report), f"{summary}, {len(report.failed):,} failed", as_json=json)
    raise typer.Exit(SOME_FAILED_EXIT if report.failed else 0)


EXPORT_HELP = (
    "A stream as feature files for other programs: one .npz (features, pts), .npy or .pt a video, or one .h5 keyed by id."
    + example(
        "export /data/cache --to features/",
        "export /data/cache --to patches.h5 --form h5 --stream patch --space m2crl",
    )
)


def export(
    cache: CacheArgument = None,
    to: Annotated[Path | None, typer.Option(help="Folder for the files, or the .h5 file.")] = None,
    space: Annotated[str | None, typer.Option(help="The space, by any beginning of its name; the only one if not given.")] = None,
    stream: Annotated[str, typer.Option(help="frame, patch, clip...")] = "frame",
    form: Annotated[str | None, typer.Option(help="npz, npy, pt or h5; default h5 for a name that ends so, else npz.")] = None,
    video_id: Annotated[list[str] | None, typer.Option("--video", help="Only this video, by its key; may be repeated.")] = None,
    json: Json = False,
    quiet: Quiet = False,
) -> None:  # fmt: skip
    from qle.cache.tools.feature_files import Form
    from qle.cache.tools.interchange import export_features

    if to is None:
        raise ConfigError("export needs --to FOLDER, or --to FILE.h5 --form h5")
    chosen: Form = choice("form", form or ("h5" if to.suffix in (".h5", ".hdf5") else "npz"), get_args(Form))
    with StepProgress("exported", is_quiet=quiet) as progress:
        report = export_features(
            cache_folder(cache), to, space=space, stream=stream, form=chosen, keys=video_id or (), save_tensor=save_tensor,
            on_progress=progress.update,
        )  # fmt: skip
    summary = f"{report.num_exported:,} videos written to {to} ({console.format_bytes(report.size_bytes)})"
    show_report(asdict(report), f"{summary}, {report.num_already:,} were there", as_json=json)


def load_tensors(path: Path) -> "dict[str, np.ndarray]":
    """Arrays of a .pt file, without running any code in it. qle/cache knows no torch, so it is handed this."""
    import torch

    from qle.errors import InputError
    from qle.weights import load_file

    loaded = load_file(path)
    named = loaded if isinstance(loaded, Mapping) else {"features": loaded}
    tensors = {str(name): value for name, value in named.items() if isinstance(value, torch.Tensor)}
    if not tensors:
        raise InputError(f"{path} holds no tensor")
    return {
        name: (value.float() if value.dtype == torch.bfloat16 else value).cpu().numpy()
        for name, value in tensors.items()
    }


def save_tensor(path: Path, values: "np.ndarray") -> None:
    """An array as a bare tensor in a .pt file."""
    import torch

    torch.save(torch.from_numpy(values), path)
