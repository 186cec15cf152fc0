"""Answers of small random models: nonsense, but the same nonsense every time, and by the rules."""

import json
from pathlib import Path

import pytest
import torch
from transformers import GPT2LMHeadModel

from qle.data.summaries.language_model import PROMPT, LanguageModel
from qle.data.summaries.levels import LEVELS, Level
from qle.errors import CheckpointError, ConfigError
from tests.small_language_models import READS, gpt2_folder, t5_folder

CPU = torch.device("cpu")
EGG = ("the man puts an egg into the pan .", "then he cooks the egg .", "he eats the egg on a plate .")
TITLE, SENTENCE = LEVELS["title"], LEVELS["sentence"]

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("one_thread")]


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    root = tmp_path_factory.mktemp("models")
    return {
        "causal": gpt2_folder(root / "causal"),
        "chat": gpt2_folder(root / "chat", is_chat=True),
        "two-sided": t5_folder(root / "two-sided"),
    }


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["causal", "chat", "two-sided"])
def test_the_same_sentences_give_the_same_text(folders: dict[str, Path], kind: str) -> None:
    model = LanguageModel(str(folders[kind]), CPU)
    first = model.summarise(EGG, TITLE)
    assert first.num_used == len(EGG)
    model.summarise(EGG[:1], SENTENCE)
    torch.manual_seed(99)
    assert model.summarise(EGG, TITLE) == LanguageModel(str(folders[kind]), CPU).summarise(EGG, TITLE) == first


def test_decoding_is_greedy_and_stops_where_the_level_says(folders: dict[str, Path]) -> None:
    """As one step after the other with the network alone."""
    model = LanguageModel(str(folders["causal"]), CPU)
    tokens, _ = model._fitting(EGG, TITLE)
    network = GPT2LMHeadModel.from_pretrained(folders["causal"]).eval()
    ids, written = tokens["input_ids"], []
    with torch.inference_mode():
        while len(written) < TITLE.max_tokens and 1 not in written:
            written.append(int(network(ids).logits[0, -1].argmax()))
            ids = torch.cat([ids, torch.tensor([written[-1:]])], dim=1)
    expected = model._tokenizer.decode(written, skip_special_tokens=True)
    assert model._answer(tokens, TITLE) == expected


def test_settings_of_the_model_that_would_sample_are_not_heard(folders: dict[str, Path], tmp_path: Path) -> None:
    """Instruction models are published with a temperature; the library mixes it into what it is asked for."""
    folder = gpt2_folder(tmp_path / "hot")
    settings = json.loads((folder / "generation_config.json").read_text())
    settings |= {
        "do_sample": True,
        "temperature": 0.7,
        "top_k": 5,
        "top_p": 0.9,
        "repetition_penalty": 3.0,
        "num_beams": 2,
    }
    (folder / "generation_config.json").write_text(json.dumps(settings | {"max_new_tokens": 3}))
    cool, hot = (LanguageModel(str(path), CPU) for path in (folders["causal"], folder))
    assert hot.summarise(EGG, SENTENCE) == cool.summarise(EGG, SENTENCE)
    assert hot.identity(SENTENCE)["weights"] == cool.identity(SENTENCE)["weights"]


def test_the_chat_template_is_used_where_there_is_one(folders: dict[str, Path]) -> None:
    plain, chat = (LanguageModel(str(folders[kind]), CPU) for kind in ("causal", "chat"))
    said = chat._tokenizer.decode(chat._tokens(EGG, TITLE)["input_ids"][0])
    assert said.startswith("USER")
    assert said.endswith("BOT")
    assert "USER" not in plain._tokenizer.decode(plain._tokens(EGG, TITLE)["input_ids"][0])
    assert (plain.identity(TITLE)["template"], chat.identity(TITLE)["template"]) == ("plain", "chat")


def test_the_identity_tells_everything_that_decides(folders: dict[str, Path], tmp_path: Path) -> None:
    model = LanguageModel(str(folders["causal"]), CPU)
    identity = model.identity(TITLE)
    assert identity["model"] == str(folders["causal"])
    assert len(identity["weights"]) == 64
    assert identity["prompt"] == PROMPT.replace("{task}", TITLE.task)
    assert identity["decoding"] == "greedy, 32 tokens at most"
    assert model.identity(SENTENCE) != identity
    other = LanguageModel(str(gpt2_folder(tmp_path / "other", seed=1)), CPU)
    assert other.identity(TITLE)["weights"] != identity["weights"]


def test_a_prompt_that_is_too_long_loses_sentences_evenly(folders: dict[str, Path]) -> None:
    model = LanguageModel(str(folders["causal"]), CPU)
    many = [f"the man peels an orange {'then ' * number} ." for number in range(30)]
    tokens, used = model._fitting(many, TITLE)
    assert 1 < used < len(many)
    assert tokens["input_ids"].shape[1] <= READS - TITLE.max_tokens
    assert model.summarise(many, TITLE).num_used == used
    said = model._tokenizer.decode(tokens["input_ids"][0])
    assert "then " * 29 in said, "the last sentence is among them"


def test_a_model_with_too_short_a_memory_is_refused(folders: dict[str, Path]) -> None:
    model = LanguageModel(str(folders["causal"]), CPU)
    long = Level(name="long", num_sentences=9, task="Tell all.", max_tokens=READS)
    with pytest.raises(ConfigError, match="reads 256 word pieces, too few for a prompt with one sentence"):
        model.summarise(EGG, long)


def test_folders_that_hold_no_model(folders: dict[str, Path], tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(ConfigError, match="no language model could be loaded from there"):
        LanguageModel(str(tmp_path / "empty"), CPU)
    pickled = gpt2_folder(tmp_path / "pickled")
    torch.save(GPT2LMHeadModel.from_pretrained(pickled).state_dict(), pickled / "pytorch_model.bin")
    (pickled / "model.safetensors").unlink()
    with pytest.raises(ConfigError, match="no language model could be loaded from there"):
        LanguageModel(str(pickled), CPU)


def test_missing_weights_are_not_made_up(tmp_path: Path) -> None:
    from safetensors.torch import load_file, save_file

    folder = gpt2_folder(tmp_path / "model")
    state = load_file(folder / "model.safetensors")
    state.pop("transformer.h.1.mlp.c_fc.weight")
    save_file(state, folder / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(
        CheckpointError, match=r"1 tensors are missing or misshapen: transformer\.h\.1\.mlp\.c_fc\.weight"
    ):
        LanguageModel(str(folder), CPU)
