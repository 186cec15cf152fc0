"""Where everything lies in a cache, and nothing else: names and paths, no reading and no writing.

    <root>/qle-cache.json                         format and identity of the cache
    <root>/<space>/space.json                     what the numbers mean; <space> = readable name + 12 hex of the hash
    <root>/<space>/videos/<hh>/<name>.zarr/       one video (or <name>.hdf5/); it exists once its _COMMIT.json stands here
    <root>/<space>/{tmp,claims,runs}/  errors.jsonl  index.parquet

A key is the user's name for a video, often a path and sometimes hostile ("../../etc/passwd"). `safe_name` turns any key
into one file name that differs for different keys and cannot leave its folder; the true key stands in the record.
"""

import hashlib
import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from qle.errors import ConfigError
from qle.types import SpaceSpec, StoreKind

FORMAT = 1
CACHE_FILE = "qle-cache.json"
SPACE_FILE = "space.json"
COMMIT_FILE = "_COMMIT.json"
ERRORS_FILE = "errors.jsonl"
VIDEOS, TMP, CLAIMS, RUNS = "videos", "tmp", "claims", "runs"

STORE_SUFFIXES: dict[StoreKind, str] = {"zarr": ".zarr", "hdf5": ".hdf5"}
"""In the order in which a reader looks for a video."""

CONVERT = "convert-"
CONVERSIONS = frozenset(f"{CONVERT}{store}" for store in STORE_SUFFIXES)
"""Names of the folders in tmp/ in which videos wait that are on their way into another format. No space is called so."""

MAX_NAME = 120
"""Longest safe name: with a suffix well below the 255 bytes that every common file system allows."""

_PLAIN = frozenset(b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789._-")
_NAME = re.compile(r"(?:[A-Za-z0-9._-]|%[0-9A-F]{2})+")
_ESCAPES = re.compile(r"%([0-9A-F]{2})")
_HASH_MARK = "~"  # never plain, so a shortened name cannot be mistaken for a whole one


def safe_name(key: str) -> str:
    """One file name for a key: percent-encoded, never empty, never hidden, at most MAX_NAME long, injective."""
    raw = key.encode("utf-8", "surrogatepass")
    name = "".join(chr(byte) if byte in _PLAIN else f"%{byte:02X}" for byte in raw)
    if name.startswith("."):  # hidden files, "." and ".."
        name = "%2E" + name[1:]
    if name and len(name) <= MAX_NAME:
        return name
    digest = hashlib.sha256(raw).hexdigest()[:32]
    head = re.sub(r"%.?$", "", name[: MAX_NAME - len(digest) - 1])  # not half an escape
    return f"{head}{_HASH_MARK}{digest}"


def key_from_name(name: str) -> str | None:
    """The key that `safe_name` turned into this name; None where the name was shortened or is not one of ours."""
    if not _NAME.fullmatch(name):
        return None
    raw = _ESCAPES.sub(lambda match: chr(int(match[1], 16)), name).encode("latin-1")
    try:
        return raw.decode("utf-8", "surrogatepass")
    except UnicodeDecodeError:
        return None


def clean_key(text: str) -> str:
    r"""A key that JSON can hold: bytes of a file name that are no text (surrogates in Python) become "\xff"."""
    return text.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")


def check_key(key: str) -> None:
    """Refuse what no record could hold."""
    try:
        key.encode("utf-8")
    except UnicodeEncodeError:
        raise ConfigError(
            f"video key {key!a} holds characters that are no Unicode text; pass it through layout.clean_key"
        ) from None
    if not key:
        raise ConfigError("a video key is empty; expected the path of the video relative to the folder of videos")


def key_hash(key: str) -> str:
    """sha256 of a key in hex; its first two digits name the sub-folder, its first sixteen the temp folders."""
    return hashlib.sha256(key.encode("utf-8", "surrogatepass")).hexdigest()


def video_folder(space: Path, key: str, store: StoreKind) -> Path:
    """Where the video stands once it is committed."""
    return space / VIDEOS / key_hash(key)[:2] / (safe_name(key) + STORE_SUFFIXES[store])


def canonical_json(value: Mapping[str, Any]) -> str:
    """The one spelling of a mapping: sorted keys, no spaces, ASCII, no NaN. What is equal is spelled equally."""
    try:
        return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=True, allow_nan=False)
    except (TypeError, ValueError) as error:
        raise ConfigError(f"a space must be described by plain JSON values, got {value!r:.300}; {error}") from error


def space_hash(hashed: Mapping[str, Any]) -> str:
    """sha256 of the canonical JSON, in hex: the identity of a space."""
    return hashlib.sha256(canonical_json(hashed).encode("ascii")).hexdigest()


def space_folder_name(spec: SpaceSpec) -> str:
    """Readable name, then twelve digits of the hash: `m2crl-1fps-float16-0123456789ab`."""
    return f"{safe_name(spec.name)}-{space_hash(spec.hashed)[:12]}"
