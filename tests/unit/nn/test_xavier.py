"""Where the layers of published moment heads begin."""

import math

import pytest
import torch

from qle.nn.detr.encoder import EncoderLayer
from qle.nn.detr.text_to_video import TextToVideoLayer


@pytest.mark.parametrize("kind", [EncoderLayer, TextToVideoLayer])
def test_layers_begin_within_the_bounds_of_the_published_programs(kind: type) -> None:
    torch.manual_seed(0)
    layer = kind(64, 4, 128, dropout=0.1)
    bounds = {
        "attention.queries.weight": math.sqrt(6 / (4 * 64)),
        "attention.keys_values.weight": math.sqrt(6 / (4 * 64)),
        "attention.out.weight": math.sqrt(6 / (2 * 64)),
        "feed_forward.0.weight": math.sqrt(6 / (64 + 128)),
        "feed_forward.3.weight": math.sqrt(6 / (64 + 128)),
    }
    parameters = dict(layer.named_parameters())
    for name, bound in bounds.items():
        (found,) = (value for key, value in parameters.items() if key.endswith(name))
        assert 0.97 * bound < found.detach().abs().max().item() <= bound, name
