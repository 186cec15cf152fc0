"""Names: what users call a video, and what it may be called on a disk."""

from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from qle.cache.layout import (
    MAX_NAME,
    canonical_json,
    check_key,
    clean_key,
    key_from_name,
    safe_name,
    space_folder_name,
    space_hash,
    video_folder,
)
from qle.errors import ConfigError
from qle.types import SpaceSpec

ANY_TEXT = st.text(st.characters(), max_size=400) | st.text("./\\~%\x00 aB\udc80é", max_size=200)


@given(ANY_TEXT)
@example("..")
@example(".")
@example("")
@example("/etc/passwd")
@example("../" * 1000 + "etc/passwd")
@example("a\x00b")
@example("x" * 5000)
@example("\udcff\udcfe.mp4")
@example("C:\\windows\\system32")
@example("~/.ssh/id_rsa")
def test_no_key_leaves_its_folder(key: str) -> None:
    name = safe_name(key)
    assert name
    assert len(name) <= MAX_NAME
    assert name.isascii()
    assert not set(name) & set('/\\\x00:*?"<>| ')
    assert not name.startswith(".")
    space = Path("/cache/space")
    folder = video_folder(space, key, "zarr")
    assert folder.parent.parent == space / "videos"
    assert len(folder.parent.name) == 2
    assert folder.name == name + ".zarr"


@given(ANY_TEXT, ANY_TEXT)
@example("a/b", "a%2Fb")
@example(".a", "%2Ea")
@example("x" * 5000, "x" * 5001)
@example("x" * 5000, safe_name("x" * 5000))
@example("\udcff", "\\xff")
def test_different_keys_have_different_names(one: str, other: str) -> None:
    assert (safe_name(one) == safe_name(other)) == (one == other)


@given(ANY_TEXT)
def test_a_name_gives_its_key_back_unless_it_was_shortened(key: str) -> None:
    assert key_from_name(safe_name(key)) == (None if "~" in safe_name(key) else key)


@pytest.mark.parametrize("name", ["a copy", "\u00fc", "%FF", "%ff", "%", "", "a~0123", "%2"])
def test_a_name_that_is_not_one_of_ours_has_no_key(name: str) -> None:
    assert key_from_name(name) is None


@pytest.mark.parametrize("key", ["video.mp4", "ward-3_bed.2.avi"])
def test_plain_names_stay_readable(key: str) -> None:
    assert safe_name(key) == key


def test_keys_that_no_record_could_hold_are_refused() -> None:
    with pytest.raises(ConfigError, match="clean_key"):
        check_key("\udcff.mp4")
    check_key(clean_key("\udcff.mp4"))
    assert clean_key("\udcff.mp4") == "\\xff.mp4"
    assert clean_key("größe.mp4") == "größe.mp4"
    with pytest.raises(ConfigError, match="empty"):
        check_key("")


def test_a_space_is_named_by_what_it_means_and_not_by_order() -> None:
    first = {"backbone": "m2crl", "sampling": {"fps": 1.0, "phase": 0}}
    again = {"sampling": {"phase": 0, "fps": 1.0}, "backbone": "m2crl"}
    other = {"backbone": "m2crl", "sampling": {"fps": 2.0, "phase": 0}}
    assert space_hash(first) == space_hash(again) != space_hash(other)
    spec = SpaceSpec(name="m2crl 1fps", hashed=first, streams=(), recorded={})
    assert space_folder_name(spec) == f"m2crl%201fps-{space_hash(first)[:12]}"


@pytest.mark.parametrize("value", [{"nan": float("nan")}, {"path": Path("x")}, {1j: 2}])
def test_only_plain_json_describes_a_space(value: dict) -> None:
    with pytest.raises(ConfigError, match="plain JSON"):
        canonical_json(value)
