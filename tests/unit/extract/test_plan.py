"""Inputs become videos with keys that are stable, distinct and below their root."""

import os

import pytest

from qle.errors import ConfigError, InputError
from qle.extract.plan import discover


def touch(path):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(b"x")
    return path


def keys(sources):
    return [source.key for source in sources]


def test_a_folder_is_walked_and_equal_names_stay_apart(tmp_path):
    for name in ("a/video.mp4", "b/video.mp4", "b/video.MKV", "notes.txt", ".hidden/x.mp4", "b/._video.mp4"):
        touch(tmp_path / name)
    assert keys(discover([str(tmp_path)])) == ["a/video.mp4", "b/video.MKV", "b/video.mp4"]


def test_a_glob_keeps_what_lies_below_its_fixed_part(tmp_path):
    touch(tmp_path / "day1/or2/x.mp4")
    touch(tmp_path / "day2/or2/x.mp4")
    assert keys(discover([f"{tmp_path}/day*/**/*.mp4"])) == ["day1/or2/x.mp4", "day2/or2/x.mp4"]


def test_files_are_named_by_themselves_unless_two_would_share_a_key(tmp_path):
    first, second = touch(tmp_path / "a/x.mp4"), touch(tmp_path / "b/x.mp4")
    assert keys(discover([str(first)])) == ["x.mp4"]
    assert keys(discover([str(first), str(first)])) == ["x.mp4"]
    with pytest.raises(InputError, match="--root"):
        discover([str(first), str(second)])
    assert keys(discover([str(first), str(second)], root=tmp_path)) == ["a/x.mp4", "b/x.mp4"]
    with pytest.raises(ConfigError, match="below the root"):
        discover([str(second)], root=tmp_path / "a")


def test_linked_folders_are_followed_and_loops_end(tmp_path):
    touch(tmp_path / "real/x.mp4")
    (tmp_path / "list").mkdir()
    (tmp_path / "list/ward").symlink_to(tmp_path / "real")
    (tmp_path / "real/loop").symlink_to(tmp_path / "list")
    assert keys(discover([str(tmp_path / "list")])) == ["ward/x.mp4"]


def test_one_missing_file_of_a_manifest_fails_later_as_a_video(tmp_path):
    touch(tmp_path / "x.mp4")
    (tmp_path / "list.csv").write_text("path\nx.mp4\ngone.mp4\n")
    assert keys(discover([str(tmp_path / "list.csv")])) == ["gone.mp4", "x.mp4"]


def test_limit_takes_the_first_keys(tmp_path):
    for name in "cab":
        touch(tmp_path / f"{name}.mp4")
    assert keys(discover([str(tmp_path)], limit=2)) == ["a.mp4", "b.mp4"]


def test_a_name_that_is_not_utf8_gets_a_printable_key(tmp_path):
    path = os.fsencode(tmp_path) + b"/caf\xe9.mp4"
    with open(path, "wb") as file:
        file.write(b"x")
    assert keys(discover([str(tmp_path)])) == ["caf\\xe9.mp4"]


def test_a_manifest_gives_paths_keys_and_clips(tmp_path):
    touch(tmp_path / "videos/x.mp4")
    manifest = tmp_path / "list.csv"
    manifest.write_text("Path,key,start,end\nvideos/x.mp4,,,\nvideos/x.mp4,first half,0,10\nvideos/x.mp4,,10,20.5\n")
    found = {source.key: (source.start_s, source.end_s) for source in discover([str(manifest)])}
    assert found == {"videos/x.mp4": (None, None), "first half": (0, 10), "videos/x.mp4#10-20.5": (10, 20.5)}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("name\nx.mp4\n", "no column"),
        ("path\ngone.mp4\n", r"list\.csv:2: .*gone\.mp4 does not exist"),
        ("path,start\nx.mp4,soon\n", r"list\.csv:2: start is 'soon'"),
        ("path,start\nx.mp4,nan\n", r"list\.csv:2: start is 'nan'"),
        ("path,start,end\nx.mp4,5,2\n", "not after start"),
        ("path,key\nx.mp4,one\nx.mp4,caf\xe9\n", r"list\.csv: line 3 is not UTF-8"),
    ],
)
def test_a_bad_manifest_names_the_line(tmp_path, text, message):
    touch(tmp_path / "x.mp4")
    (tmp_path / "list.csv").write_text(text, encoding="latin-1")
    with pytest.raises(InputError, match=message):
        discover([str(tmp_path / "list.csv")])


def test_clips_late_in_a_long_video_keep_their_own_keys(tmp_path):
    touch(tmp_path / "x.mp4")
    (tmp_path / "list.csv").write_text("path,start,end\nx.mp4,35999.12,\nx.mp4,35999.14,\n")
    assert keys(discover([str(tmp_path / "list.csv")])) == ["x.mp4#35999.12-", "x.mp4#35999.14-"]


def test_two_parts_of_a_video_under_one_key_are_refused_and_not_dropped(tmp_path):
    touch(tmp_path / "x.mp4")
    manifest = tmp_path / "list.csv"
    manifest.write_text("path,video_id,start,end\nx.mp4,v1,0,10\nx.mp4,v1,10,\n")
    with pytest.raises(InputError, match="share the key 'v1': 0-10 and 10- s"):
        discover([str(manifest)])
    manifest.write_text("path,video_id,start,end\nx.mp4,v1,0,10\nx.mp4,v1,0,10\n")
    assert keys(discover([str(manifest)])) == ["v1"]


@pytest.mark.parametrize("name", ["missing", "missing/*.mp4", "empty"])
def test_nothing_found_says_what_to_give(tmp_path, name):
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match="give a folder"):
        discover([str(tmp_path / name)])


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16"])
def test_a_manifest_is_read_as_spreadsheets_save_it(tmp_path, encoding):
    touch(tmp_path / "x, 1.mp4")
    (tmp_path / "list.csv").write_bytes("path;key;start;end\r\nx, 1.mp4;Köln;1,5;2\r\n".encode(encoding))
    (source,) = discover([str(tmp_path / "list.csv")])
    assert (source.key, source.path.name, source.start_s, source.end_s) == ("Köln", "x, 1.mp4", 1.5, 2.0)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('path,key\nx.mp4,"' + "k" * 131_073, r"list\.csv:2: no CSV \(field larger than"),
        ("path\ns3://bucket/x.mp4\n", r"list\.csv:2: s3://bucket/x.mp4: expected a path on this machine"),
        ("path\n" + "x.mp4\n" * 2000 + "x\0.mp4\n", r"list\.csv:2002: a zero byte"),
        ("path\nx\0.mp4\n", "zero bytes"),
    ],
    ids=["long", "address", "late zero", "zero"],
)
def test_a_manifest_that_cannot_be_used_is_one_error(tmp_path, text, message):
    touch(tmp_path / "x.mp4")
    (tmp_path / "list.csv").write_text(text)
    with pytest.raises(InputError, match=message):
        discover([str(tmp_path / "list.csv")])
