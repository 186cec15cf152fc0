"""How the layers of the Moment-DETR family begin: Xavier, as their programs have it for everything inside the transformer.

A packed projection of queries, keys and values is drawn as one matrix there, so its numbers are smaller by the square root of 2
than those of three matrices; ours is cut in two, and drawn from the same bounds.
"""

import math

from torch import nn

from qle.nn.attention import Attention


def begin_as_published(layer: nn.Module) -> None:
    """Weights of all linear layers; biases stay as they are."""
    packed = set()
    for module in layer.modules():
        if isinstance(module, Attention):
            bound = math.sqrt(6 / (4 * module.queries.in_features))
            for linear in (module.queries, module.keys_values):
                nn.init.uniform_(linear.weight, -bound, bound)
                packed.add(linear)
    for module in layer.modules():
        if isinstance(module, nn.Linear) and module not in packed:
            nn.init.xavier_uniform_(module.weight)
