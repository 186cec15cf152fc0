"""Run folders: what is saved comes back, and everything that is not a whole run of this space is one clear error."""

import json
import shutil
from contextlib import suppress
from datetime import UTC, datetime
from itertools import product
from pathlib import Path

import numpy as np
import pytest
import torch

from qle.cache.reader import open_cache
from qle.cache.spaces import create_space
from qle.config import config_to_dict
from qle.data.streams.recipe import FeaturePart, FeatureRecipe
from qle.durable import fits_digest
from qle.errors import CacheMismatchError, CheckpointError
from qle.heads import build_head
from qle.heads.base import Head, TokenShapes
from qle.outputs import write_json
from qle.runs.load import load_run
from qle.runs.record import RunRecord, SpaceUse, check_space, read_run, read_sealed, run_state, save_run, write_sealed
from qle.segments.ranked import Ranking
from qle.segments.tracks import Localization
from qle.text import TextRequest, build_text_encoder
from qle.text.base import TextEncoder
from tests.planted import planted_spec
from tests.running import record_fields

CPU = torch.device("cpu")
STREAMS = {"patch": (2, 2, 8), "frame": (8,)}


def parts() -> tuple[Head, TextEncoder]:
    torch.manual_seed(3)
    text = build_text_encoder(TextRequest(name="tiny", dim=16), CPU)
    shapes = TokenShapes(streams=STREAMS, text_dim=text.dim, sentence_dim=text.sentence_dim)
    settings = {"dim": 16, "num_layers": 1, "num_heads": 2, "temporal_layers": 1, "temporal_heads": 2}
    return build_head("qle", settings, shapes), text


def record_of(head: Head, text: TextEncoder) -> RunRecord:
    return RunRecord(
        head="qle",
        head_config=config_to_dict(head.config),
        text=text.spec(),
        text_dim=text.dim,
        sentence_dim=text.sentence_dim,
        space=SpaceUse(name="planted", hash="ab" * 32, hashed={"a": {"b": 1}}, streams=STREAMS, rate_fps=None),
        localization=Localization(temperature=1.5, threshold=0.6, low_threshold=0.4),
        priors=None,
        settings={"train": {"lr": 0.1}},
        selection={"step": 3},
        versions={"qle": "0"},
        created=datetime.now(UTC),
    )


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("runs") / "run"
    head, text = parts()
    save_run(folder, record_of(head, text), head, text.train_state(), {"metrics.json": {"auroc": float("nan")}})
    return folder


@pytest.fixture
def run(made: Path, tmp_path: Path) -> Path:
    """A copy that may be damaged."""
    return Path(shutil.copytree(made, tmp_path / "run"))


def test_a_saved_run_comes_back_with_the_same_numbers(run):
    head, text = parts()
    loaded = load_run(run, CPU)
    assert loaded.record.localization == Localization(temperature=1.5, threshold=0.6, low_threshold=0.4)
    assert loaded.record.token_shapes.streams == STREAMS
    assert not loaded.head.training
    assert not any(value.requires_grad for value in (*loaded.head.parameters(), *loaded.text.encoder.parameters()))
    for name, value in head.state_dict().items():
        assert torch.equal(value, loaded.head.state_dict()[name]), name
    words, own = loaded.text.encode(["a polyp"]), text.eval()(["a polyp"])
    assert torch.equal(words.states, own.states)
    assert run_state(run) == "finished"
    assert record_fields(run / "metrics.json") == {"auroc": None}


def test_a_folder_that_is_no_run_is_told_apart(run, tmp_path):
    with pytest.raises(CheckpointError, match="no such run folder"):
        read_run(tmp_path / "nowhere")
    other = tmp_path / "other"
    other.mkdir()
    (other / "notes.txt").write_text("mine")
    with pytest.raises(CheckpointError, match="not a run folder"):
        read_run(other)
    with pytest.raises(CheckpointError, match="neither empty nor a run"):
        run_state(other)
    assert run_state(tmp_path / "nowhere") == "new"


def test_a_folder_of_several_seeds_names_one_of_them(run, tmp_path):
    run.rename(tmp_path / "seed-0")
    with pytest.raises(CheckpointError, match=f"pass one of its runs, e.g. {tmp_path}/seed-0"):
        load_run(tmp_path, CPU)


def test_a_half_written_run_says_how_to_go_on(run):
    write_json(run / "settings.json", {})
    (run / "config.json").unlink()
    assert run_state(run) == "unfinished"
    with pytest.raises(CheckpointError, match=r"half written.*\n.*same qle train-heads command") as caught:
        load_run(run, CPU)
    assert len(str(caught.value).splitlines()) <= 3
    (run / "settings.json").unlink()
    with pytest.raises(CheckpointError, match="half of a run"):
        load_run(run, CPU)


@pytest.mark.parametrize("name", ["model.safetensors", "text.safetensors"])
def test_weights_that_are_missing_cut_or_changed_are_refused(run, name):
    path = run / name
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(CheckpointError, match=rf"damaged or cut short.*\nthe run {run} is damaged"):
        load_run(run, CPU)
    path.write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))  # one bit
    with pytest.raises(CheckpointError, match="digest differs"):
        load_run(run, CPU)
    path.unlink()
    with pytest.raises(CheckpointError, match=f"{name} is missing"):
        load_run(run, CPU)


def test_a_trained_text_encoder_never_loads_without_its_numbers(run):
    """A record that does not name them got fresh ones: a run that finds nothing."""
    record = record_fields(run / "config.json")
    del record["digests"]["text.safetensors"]
    (run / "config.json").write_text(json.dumps(record))
    (run / "text.safetensors").unlink()
    with pytest.raises(CheckpointError, match=r"text\.safetensors is missing"):
        load_run(run, CPU)


@pytest.mark.parametrize("shape", [[2], [10**12, 10**12, 8], [2, 2, -8]])
def test_shapes_that_no_head_can_have_are_one_error(run, shape):
    record = record_fields(run / "config.json")
    record["space"]["streams"]["patch"] = shape
    (run / "config.json").write_text(json.dumps(record))
    with pytest.raises(CheckpointError, match=r"config.json: no head can be built|tensors do not fit"):
        load_run(run, CPU)


def test_the_record_decides_which_head_it_is(run):
    changed = record_fields(run / "config.json")
    (run / "config.json").write_text(json.dumps(changed | {"head": "clairvoyant"}))
    with pytest.raises(CheckpointError, match=r"config\.json: no head .*unknown head 'clairvoyant'"):
        load_run(run, CPU)
    wider = changed | {"head_config": changed["head_config"] | {"dim": 32}}
    (run / "config.json").write_text(json.dumps(wider))
    with pytest.raises(CheckpointError, match="tensors do not fit"):
        load_run(run, CPU)


def test_a_record_without_digests_does_not_switch_their_check_off(run):
    record = record_fields(run / "config.json")
    (run / "config.json").write_text(json.dumps(record | {"digests": {}}))
    with pytest.raises(CheckpointError, match="not the weights that"):
        load_run(run, CPU)


def test_every_flipped_bit_of_a_record_is_named_or_changes_nothing(run):
    """A gain of 2.1 instead of 2.0 gave other answers, without a word."""
    path = run / "config.json"
    text, whole = bytearray(path.read_bytes()), read_run(run)
    unnoticed = []
    for place, bit in product(range(len(text)), range(8)):
        text[place] ^= 1 << bit
        if fits_digest(bytes(text)):
            unnoticed.append(place)
            path.write_bytes(text)
            with suppress(CheckpointError):
                assert read_run(run) == whole
        text[place] ^= 1 << bit
    assert len(unnoticed) < 8 * 30  # of the name of that field itself, and what stands behind it
    path.write_bytes(text.replace(b"0.6", b"0.7", 1))
    with pytest.raises(CheckpointError, match=r"config\.json is not as it was written(?s:.*)take the last field"):
        read_run(run)


def test_every_flipped_bit_of_the_other_records_is_named_or_changes_nothing(run):
    write_sealed(run / "settings.json", {"head": "qle", "train": {"steps": 12}, "data": [0.5, None]})
    for path in (run / "settings.json", run / "metrics.json"):
        text, whole = bytearray(path.read_bytes()), read_sealed(path)
        assert b'"digest":"' in text
        for place, bit in product(range(len(text)), range(8)):
            text[place] ^= 1 << bit
            if not fits_digest(bytes(text)):
                text[place] ^= 1 << bit
                continue
            path.write_bytes(text)
            with suppress(CheckpointError):
                said = read_sealed(path)
                # A flip in the name of the digest makes an older record of it, with a field that nobody knows.
                assert whole.items() <= said.items()
                assert len(said) <= len(whole) + 1
            text[place] ^= 1 << bit
        path.write_bytes(text)
        path.write_bytes(text[:-20] + text[-19:])
        with pytest.raises(CheckpointError, match="its digest does not fit"):
            read_sealed(path)


def test_a_run_of_an_older_version_is_read_as_before(run):
    """Its record carries no digest."""
    before = read_run(run)
    (run / "config.json").write_text(json.dumps(record_fields(run / "config.json")))
    assert read_run(run) == before


def test_records_that_cannot_be_read_are_one_error(run):
    path = run / "config.json"
    good = record_fields(path)
    path.write_text("[" * 100_000)
    with pytest.raises(CheckpointError, match="is no JSON"):
        read_run(run)
    path.write_text('{"format": 1, "hea')
    with pytest.raises(CheckpointError, match="is no JSON"):
        read_run(run)
    path.write_text(json.dumps(good | {"space": {"name": "x"}}))
    with pytest.raises(CheckpointError, match=r"no record of a run: space\.hash"):
        read_run(run)
    for name, value in (("temperature", -1), ("temperature", "hot"), ("threshold", 7)):
        path.write_text(json.dumps(good | {"localization": good["localization"] | {name: value}}))
        with pytest.raises(CheckpointError, match=rf"config\.json is no record of a run: .*{name}"):
            read_run(run)
    path.write_text(json.dumps(good | {"format": 2}))
    with pytest.raises(CheckpointError, match="install a newer qle"):
        read_run(run)


def test_another_space_is_refused_with_what_differs(made, tmp_path):
    create_space(tmp_path / "cache", planted_spec("planted"))
    create_space(tmp_path / "other", planted_spec("strange"))
    space, other = open_cache(tmp_path / "cache").space(), open_cache(tmp_path / "other").space()
    record = read_run(made)
    same = SpaceUse(name="planted", hash=space.record.hash, hashed=space.record.hashed, streams=STREAMS, rate_fps=None)
    record = record.model_copy(update={"space": same})
    check_space(record, space)
    with pytest.raises(CacheMismatchError) as caught:
        check_space(record, other)
    message = str(caught.value)
    assert "backbone.id: run 'planted', cache 'strange'" in message
    assert "sampling" not in message  # does not differ
    assert len(message.splitlines()) == 3


def test_a_run_on_joined_spaces_comes_back_and_checks_all_of_them(tmp_path):
    for name in ("one", "two"):
        create_space(tmp_path / name, planted_spec(name))
    spaces = [open_cache(tmp_path / name).space() for name in ("one", "two")]
    uses = [
        SpaceUse(name=space.record.name, hash=space.record.hash, hashed=space.record.hashed, streams={}, rate_fps=None)
        for space in spaces
    ]
    recipe = FeatureRecipe(
        parts=tuple(FeaturePart(space=use.hash, stream="frame", dim=8, has_endpoints=use is uses[-1]) for use in uses),
        window_clips=20,
        long_videos="truncate",
    )
    text = build_text_encoder(TextRequest(name="tiny", dim=16), CPU)
    settings = {"dim": 16, "num_heads": 2, "hidden": 16, "encoder_layers": 1, "decoder_layers": 1, "num_queries": 2}
    shapes = TokenShapes(streams={"clips": (recipe.dim,)}, text_dim=text.dim, sentence_dim=text.sentence_dim)
    head = build_head("moment_detr", settings, shapes)
    ranking = Ranking(temperature=2.0, nms_tiou=0.7)
    record = RunRecord(
        head="moment_detr", head_config=config_to_dict(head.config), text=text.spec(), text_dim=text.dim,
        sentence_dim=text.sentence_dim, space=uses[0], more_spaces=(uses[1],), recipe=recipe, ranking=ranking,
        priors=None, settings={}, selection={}, versions={}, created=datetime.now(UTC),
    )  # fmt: skip
    save_run(tmp_path / "run", record, head, text.train_state(), {})
    loaded = load_run(tmp_path / "run", CPU)
    assert (loaded.record.recipe, loaded.record.ranking) == (recipe, ranking)
    assert loaded.record.token_shapes.streams == {"clips": (18,)}
    assert all(torch.equal(value, loaded.head.state_dict()[name]) for name, value in head.state_dict().items())
    assert "localization" not in json.loads((tmp_path / "run" / "config.json").read_text())
    check_space(loaded.record, *spaces)
    with pytest.raises(CacheMismatchError, match=r"trained on the space one-.*\nbackbone.id: run 'one', cache 'two'"):
        check_space(loaded.record, *reversed(spaces))
    with pytest.raises(CacheMismatchError, match=r"reads 2 spaces \(one-.*, two-.*\), 1 are given"):
        check_space(loaded.record, spaces[0])


def test_localization_survives_the_way_through_json(made):
    record = read_run(made)
    assert isinstance(record.localization, Localization)
    assert np.isfinite(record.localization.temperature)
    assert RunRecord.model_validate_json(record.model_dump_json()) == record
