"""The built-in encoder: always the same, and good enough for a head to learn from."""

import numpy as np
import pytest
import torch

from qle.backbones import BackboneRequest, build_backbone
from qle.errors import ConfigError

WEIGHTS_DIGEST = "2e66214bf1e1496992177079eb8065c3cf701762892f93629bb65f297ca0e67e"


def scene(
    rng: np.random.Generator, colour: tuple[int, int, int] | None, centre: tuple[int, int] = (112, 112)
) -> np.ndarray:
    """A pink noisy wall, with a disc of 3 % of the picture on it."""
    wall = np.array([190, 110, 100]) + rng.normal(0, 14, (224, 224, 3)) + rng.normal(0, 10, 3)
    if colour is not None:
        rows, cols = np.mgrid[:224, :224]
        is_disc = (rows - centre[0]) ** 2 + (cols - centre[1]) ** 2 < 22**2
        wall[is_disc] = np.array(colour) + rng.normal(0, 14, (int(is_disc.sum()), 3))
    return wall.clip(0, 255).astype(np.uint8)


def encode(frames: list[np.ndarray]) -> dict[str, torch.Tensor]:
    backbone = build_backbone(BackboneRequest(name="tiny", device="cpu"))
    return backbone.encode(torch.from_numpy(np.stack(frames))[:, None])


def test_weights_are_the_same_on_every_machine() -> None:
    backbone = build_backbone(BackboneRequest(name="tiny", device="cpu"))
    assert backbone.provenance()["weights"] == WEIGHTS_DIGEST


@pytest.mark.slow
def test_a_linear_probe_tells_green_from_red_and_finds_the_disc(rng) -> None:
    """Three kinds of scene; a ridge regression on single tokens, fitted on half of them, must read the other half."""
    kinds = [(60, 150, 60), (150, 30, 40), None]
    places = [(int(r), int(c)) for r, c in rng.integers(40, 184, (60, 2))]
    frames = [scene(rng, kinds[i % 3], places[i]) for i in range(60)]
    patch = encode(frames)["patch"][:, 0].double()
    tokens = torch.stack([patch[i, places[i][0] // 16, places[i][1] // 16] for i in range(60)])
    tokens = torch.cat([tokens, torch.ones(60, 1, dtype=torch.float64)], dim=1)
    labels = torch.eye(3, dtype=torch.float64)[torch.arange(60) % 3]
    train = slice(0, 30)
    gram = tokens[train].T @ tokens[train] + torch.eye(tokens.shape[1], dtype=torch.float64)
    probe = torch.linalg.solve(gram, tokens[train].T @ labels[train])
    guesses = (tokens[30:] @ probe).argmax(dim=1)
    assert (guesses == torch.arange(30, 60) % 3).double().mean() >= 0.95


def test_tokens_show_texture_and_position() -> None:
    grey = np.full((224, 224, 3), 128, np.uint8)
    stripes = grey.copy()
    stripes[:, ::2] += 60
    stripes[:, 1::2] -= 60  # same mean colour everywhere
    flat, striped = encode([grey, stripes])["patch"][:, 0]
    assert torch.cosine_similarity(flat, striped, dim=-1).max() < 0.95
    rows, cols = np.mgrid[:14, :14]
    centred = flat.reshape(196, 64).double() - flat.reshape(196, 64).double().mean(0)
    where = torch.from_numpy(np.stack([rows.ravel(), cols.ravel()], 1)).double() - 6.5
    fit = centred @ torch.linalg.lstsq(centred, where, driver="gelsd").solution
    assert (fit - where).abs().max() < 1.0


@pytest.mark.parametrize("asked", [{"context": "centre"}, {"image_size": 448}, {"weights": "some.pth"}])
def test_what_tiny_cannot_do_is_refused(asked) -> None:
    with pytest.raises(ConfigError):
        build_backbone(BackboneRequest(name="tiny", **asked))


@pytest.mark.parametrize(("name", "hint"), [("m2crll", "m2crl"), ("tinny", "tiny")])
def test_an_unknown_name_is_answered_with_the_nearest(name, hint) -> None:
    with pytest.raises(ConfigError, match=f"did you mean '{hint}'.*hf, m2crl, tiny"):
        build_backbone(BackboneRequest(name=name))
