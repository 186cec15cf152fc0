"""Hugging Face text towers against the library itself, and what happens when a folder is not what it should be."""

import json
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn
from transformers import (
    AutoTokenizer,
    BartConfig,
    BartModel,
    BertConfig,
    BertForMaskedLM,
    BertModel,
    CLIPModel,
    CLIPTextModel,
    RobertaConfig,
    RobertaModel,
    SiglipTextModel,
    T5EncoderModel,
)

from qle.errors import CheckpointError, ConfigError
from qle.text import LoraSettings, TextRequest, build_text_encoder, rebuild_text_encoder
from tests.small_models import (
    LONGEST,
    SIZES,
    bert_folder,
    clip_pair_folder,
    clip_text_folder,
    siglip_text_folder,
    t5_folder,
    word_piece_tokenizer,
)

pytestmark = pytest.mark.slow

QUERIES = ["a green polyp", "water jet, then the polyp"]


def build(folder: Path | str, **options):
    return build_text_encoder(TextRequest(name=str(folder), **options))


def close(found: torch.Tensor, expected: torch.Tensor) -> None:
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-5)


@torch.no_grad()
def test_clip_equals_its_official_use_padded_to_full_length(tmp_path: Path) -> None:
    """Published QLE pads every query to the context length; the places behind the end change nothing."""
    folder = clip_pair_folder(tmp_path)
    words = build(folder)(QUERIES)
    inputs = AutoTokenizer.from_pretrained(folder)(
        QUERIES, padding="max_length", max_length=LONGEST, return_tensors="pt"
    )
    model = CLIPModel.from_pretrained(folder).eval()
    official = model.text_model(**inputs)
    embedding = nn.functional.normalize(model.text_projection(official.pooler_output), dim=-1)
    assert inputs["input_ids"].shape[1] == LONGEST > words.mask.shape[1]
    for row, length in enumerate(inputs["attention_mask"].sum(dim=1).tolist()):
        assert int(words.mask[row].sum()) == length
        close(words.states[row, :length], official.last_hidden_state[row, :length])
    close(words.sentence, embedding)


@torch.no_grad()
def test_a_clip_tower_alone_pools_its_end_mark(tmp_path: Path) -> None:
    folder = clip_text_folder(tmp_path)
    encoder = build(folder)
    output = CLIPTextModel.from_pretrained(folder).eval()(
        **AutoTokenizer.from_pretrained(folder)(QUERIES, padding=True, return_tensors="pt")
    )
    words = encoder(QUERIES)
    assert encoder.spec()["architecture"]["pooling"] == "pooled"
    close(words.sentence, nn.functional.normalize(output.pooler_output, dim=-1))
    last = words.mask.sum(dim=1) - 1
    close(words.sentence, nn.functional.normalize(words.states[torch.arange(2), last], dim=-1))


def test_only_the_text_half_is_kept(tmp_path: Path) -> None:
    names = [name for name, _ in build(clip_pair_folder(tmp_path)).named_parameters()]
    assert names
    assert not [name for name in names if "vision" in name or "visual" in name or "logit_scale" in name]


@torch.no_grad()
@pytest.mark.parametrize("make", [bert_folder, t5_folder])
def test_other_families_average_their_words(tmp_path: Path, make) -> None:
    folder = make(tmp_path)
    words = build(folder)(QUERIES)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    model = (BertModel if make is bert_folder else T5EncoderModel).from_pretrained(folder).eval()
    for row, query in enumerate(QUERIES):
        ids = tokenizer(query, return_tensors="pt")["input_ids"]
        states = model(input_ids=ids).last_hidden_state[0]
        close(words.states[row, : ids.shape[1]], states)
        close(words.sentence[row], nn.functional.normalize(states.mean(dim=0), dim=0))


@torch.no_grad()
def test_siglip_always_sees_full_length(tmp_path: Path) -> None:
    folder = siglip_text_folder(tmp_path)
    inputs = AutoTokenizer.from_pretrained(folder)(
        QUERIES, padding="max_length", max_length=LONGEST, return_tensors="pt"
    )
    output = SiglipTextModel.from_pretrained(folder).eval()(input_ids=inputs["input_ids"])
    words = build(folder, max_words=12)(QUERIES)
    assert words.mask.shape[1] == int(inputs["attention_mask"].sum(dim=1).max())
    close(words.states[0][words.mask[0]], output.last_hidden_state[0][inputs["attention_mask"][0].bool()])
    close(words.sentence, nn.functional.normalize(output.pooler_output, dim=-1))


def test_a_pooler_that_the_files_lack_is_not_made_up(tmp_path: Path) -> None:
    """A masked-language checkpoint has none; the library would fill it with other noise, and another digest, every time."""
    tokenizer = word_piece_tokenizer()
    tokenizer.save_pretrained(tmp_path)
    BertForMaskedLM(BertConfig(**SIZES, vocab_size=len(tokenizer))).save_pretrained(tmp_path)
    assert build(tmp_path).spec() == build(tmp_path).spec()


def test_how_many_words_a_model_reads(tmp_path: Path) -> None:
    tokenizer = word_piece_tokenizer()
    config = RobertaConfig(**SIZES, vocab_size=len(tokenizer), max_position_embeddings=34, pad_token_id=1)
    tokenizer.save_pretrained(tmp_path)
    RobertaModel(config).save_pretrained(tmp_path)
    assert build(tmp_path).max_words == 32  # two positions are taken by padding
    (tmp_path / "sentence_bert_config.json").write_text('{"max_seq_length": 20, "do_lower_case": false}')
    assert build(tmp_path).max_words == 20
    assert build(tmp_path, max_words=8).max_words == 8
    with pytest.raises(ConfigError, match=r"max_words = 21: .* at most 20"):
        build(tmp_path, max_words=21)
    assert build(t5_folder(tmp_path / "t5")).max_words == 512


@torch.no_grad()
def test_sentence_pooling_is_what_the_files_say(tmp_path: Path) -> None:
    folder = bert_folder(tmp_path)
    (folder / "1_Pooling").mkdir()
    settings = folder / "1_Pooling" / "config.json"
    settings.write_text(
        '{"word_embedding_dimension": 32, "pooling_mode_cls_token": true, "pooling_mode_mean_tokens": false}'
    )
    words = build(folder)(QUERIES)
    close(words.sentence, nn.functional.normalize(words.states[:, 0], dim=-1))
    settings.write_text('{"embedding_dimension": 32, "pooling_mode": "mean", "include_prompt": true}')
    assert build(folder).spec()["architecture"]["pooling"] == "mean"
    settings.write_text('{"pooling_mode_max_tokens": true}')
    with pytest.raises(ConfigError, match="pooled by max_tokens"):
        build(folder)


def test_nobody_trains_the_tower_by_accident(tmp_path: Path) -> None:
    """Its dropout stays off inside a parent in training mode, and a frozen encoder records no graph."""
    encoder = build(bert_folder(tmp_path))
    parent = nn.Sequential(encoder).train()
    assert parent.training
    assert not any(module.training for module in encoder.tower.modules())
    first, second = encoder(QUERIES), encoder(QUERIES)
    assert torch.equal(first.states, second.states)
    assert not first.states.requires_grad
    assert not first.states.is_inference()


def test_a_model_that_changed_or_moved_since_the_run(tmp_path: Path) -> None:
    spec = build(bert_folder(tmp_path / "a")).spec()
    moved = bert_folder(tmp_path / "b")
    assert spec["name"] == spec["request"]["name"] == str(tmp_path / "a")
    again = rebuild_text_encoder(spec, source=str(moved))
    assert again.spec()["weights"] == spec["weights"]
    state = load_file(moved / "model.safetensors")
    name = "embeddings.word_embeddings.weight"
    save_file(state | {name: state[name] + 1e-3}, moved / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(CheckpointError, match=r"weights are not those of the run: [0-9a-f]{64} instead of"):
        rebuild_text_encoder(spec, source=str(moved))
    with pytest.raises(CheckpointError, match="architecture are not those of the run"):
        rebuild_text_encoder(spec, source=str(t5_folder(tmp_path / "c")))


def test_no_such_model_offline(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    with pytest.raises(ConfigError, match=r"nobody/no-such-model: no such folder[\s\S]*check the id, or pass a folder"):
        build("nobody/no-such-model")
    with pytest.raises(ConfigError, match="no text encoder could be loaded"):
        build(tmp_path)  # an empty folder


def test_folders_that_lack_something(tmp_path: Path) -> None:
    for folder in (clip_text_folder(tmp_path / "clip"), bert_folder(tmp_path / "bert")):
        (folder / "tokenizer.json").unlink()
        with pytest.raises(ConfigError, match="tokenizer knows no words"):
            build(folder)  # the library makes one that calls every word unknown
    larger = bert_folder(tmp_path / "larger")
    tokenizer = AutoTokenizer.from_pretrained(larger)
    tokenizer.add_tokens(["endoscope"])
    tokenizer.save_pretrained(larger)
    with pytest.raises(ConfigError, match=r"tokenizer has \d+ word pieces, the network \d+"):
        build(larger)
    file = t5_folder(tmp_path / "t5") / "model.safetensors"
    state = load_file(file)
    del state["encoder.final_layer_norm.weight"]
    save_file(state, file, metadata={"format": "pt"})
    with pytest.raises(CheckpointError, match=r"1 tensors are missing or misshapen: encoder\.final_layer_norm"):
        build(file.parent)


def test_damaged_folders_are_one_clear_error(tmp_path: Path) -> None:
    """The library fails on each of them in another way of its own; none of it is a reason for a traceback."""
    good = bert_folder(tmp_path / "good")
    config = json.loads((good / "config.json").read_text())
    damages: list[tuple[str, bytes]] = [
        ("model.safetensors", (good / "model.safetensors").read_bytes()[:2000]),
        ("model.safetensors", b""),
        ("config.json", json.dumps(config | {"hidden_act": "nope"}).encode()),
        ("config.json", json.dumps(config | {"hidden_size": "x"}).encode()),
        ("config.json", json.dumps(config | {"hidden_size": 64}).encode()),
        ("tokenizer.json", b'{"a": 1}'),
        ("1_Pooling/config.json", b"{bad"),
    ]
    for number, (name, content) in enumerate(damages):
        folder = Path(shutil.copytree(good, tmp_path / f"bad-{number}"))
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_bytes(content)
        with pytest.raises(ConfigError, match="no text encoder could be loaded from there") as caught:
            build(folder)
        assert len(str(caught.value).splitlines()) <= 3


def test_a_pickle_is_refused_and_not_run(tmp_path: Path) -> None:
    folder = bert_folder(tmp_path / "bert")
    (folder / "model.safetensors").unlink()
    (folder / "pytorch_model.bin").write_bytes(f"cos\nsystem\n(S'touch {tmp_path / 'ran'}'\ntR.".encode())
    with pytest.raises(ConfigError, match="no text encoder could be loaded"):
        build(folder)
    assert not (tmp_path / "ran").exists()


def test_models_that_are_no_text_towers(tmp_path: Path) -> None:
    tokenizer = word_piece_tokenizer()
    tokenizer.save_pretrained(tmp_path)
    sizes = {"d_model": 8, "encoder_layers": 1, "decoder_layers": 1, "encoder_ffn_dim": 8, "decoder_ffn_dim": 8}
    config = BartConfig(**sizes, encoder_attention_heads=1, decoder_attention_heads=1, vocab_size=len(tokenizer))
    BartModel(config).save_pretrained(tmp_path)
    with pytest.raises(ConfigError, match="models of type bart are not supported"):
        build(tmp_path)


def test_what_cannot_be_asked_of_it(tmp_path: Path) -> None:
    folder = bert_folder(tmp_path)
    with pytest.raises(ConfigError, match=r"text\.dim = 32"):
        build(folder, dim=32)
    with pytest.raises(
        ConfigError, match=r"LoRA target 'gate_proj' is no linear layer of this model\nits layers: dense"
    ):
        build(folder, lora=LoraSettings(targets=("q_proj", "gate_proj")))
    with pytest.raises(TypeError, match="pass \\[query\\]"):
        build(folder)("a polyp")
