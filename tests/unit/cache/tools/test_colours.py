"""Tokens become colours: one basis and one scale for a whole video."""

import numpy as np

from qle.cache.tools.colours import TokenColours


def test_colours_separate_what_differs(rng: np.random.Generator) -> None:
    """Two kinds of tokens in a few noisy channels: every colour tells the kind, the same in each frame."""
    kind = rng.integers(2, size=(4, 6, 6))
    tokens = kind[..., None] * np.linspace(3, 5, 16) + rng.normal(0, 0.1, (4, 6, 6, 16))
    colours = TokenColours.fit(tokens)
    red = colours.apply(tokens)[..., 0].astype(int)
    assert red[kind == 1].min() - red[kind == 0].max() > 150
    assert np.array_equal(colours.apply(tokens[2]), colours.apply(tokens)[2])


def test_colours_of_equal_tokens_are_no_error() -> None:
    tokens = np.ones((3, 2, 2, 2))
    assert np.unique(TokenColours.fit(tokens).apply(tokens)).size == 1
