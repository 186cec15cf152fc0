"""Tensors of an official checkpoint and of a head, tied by name: one table serves both directions.

official state -> load_official(head, state, links) -> head with those weights;  official_state(head, links) -> official names

A link says that some official tensors, one after another, hold the same numbers as some of ours, one after another. Fused
projections differ in where they are cut, and nothing else.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from qle.weights import check_tensors, load_exactly

Names = str | Sequence[str]


@dataclass(frozen=True, slots=True, kw_only=True)
class Link:
    """Laid end to end, `official` and `ours` are the same."""

    official: tuple[str, ...]
    ours: tuple[str, ...]
    unused: Tensor | None = None
    """What the official model is given for a tensor that it holds and never uses, where our head has none. Such a tensor
    is left out on the way in."""


def tied(official: Names, ours: Names, leaves: Sequence[str] = ("weight", "bias")) -> list[Link]:
    """Modules (or several of each) whose leaves are the same."""
    official, ours = ([names] if isinstance(names, str) else names for names in (official, ours))
    return [
        Link(
            official=tuple(f"{name}{_dot(leaf)}" for name in official),
            ours=tuple(f"{name}{_dot(leaf)}" for name in ours),
        )
        for leaf in leaves
    ]


def alone(official: str, ours: str) -> list[Link]:
    """One tensor."""
    return tied(official, ours, leaves=("",))


def _dot(leaf: str) -> str:
    return f".{leaf}" if leaf else ""


def count_layers(state: Mapping[str, Tensor], prefix: str) -> int:
    """How many different numbers follow the prefix in the names of the tensors."""
    return len({match[1] for name in state if (match := re.match(rf"{re.escape(prefix)}\.(\d+)\.", name))})


def official_state(head: nn.Module, links: Sequence[Link]) -> dict[str, Tensor]:
    """Every tensor of the head under its official name, as copies."""
    own = head.state_dict()
    state: dict[str, Tensor] = {}
    for link in links:
        if link.ours[0] in own:
            whole = torch.cat([own[name] for name in link.ours]) if len(link.ours) > 1 else own[link.ours[0]]
        else:
            assert link.unused is not None, f"the head has no {link.ours[0]}"
            whole = link.unused
        parts = whole.chunk(len(link.official)) if len(link.official) > 1 else (whole,)
        state.update(zip(link.official, (part.detach().clone() for part in parts), strict=True))
    return state


def load_official(head: nn.Module, state: Mapping[str, Tensor], links: Sequence[Link], *, where: str) -> None:
    """Into the head, if and only if every official tensor is there, is known and has its shape; else CheckpointError."""
    given = {name.removeprefix("module."): tensor for name, tensor in state.items()}
    check_tensors({name: part.shape for name, part in official_state(head, links).items()}, given, where=where)
    own = head.state_dict()
    renamed: dict[str, Tensor] = {}
    for link in links:
        if link.ours[0] not in own:
            continue
        whole = (
            torch.cat([given[name] for name in link.official]) if len(link.official) > 1 else given[link.official[0]]
        )
        lengths = [len(own[name]) for name in link.ours]
        parts = whole.split(lengths) if len(link.ours) > 1 else (whole,)
        renamed.update(zip(link.ours, parts, strict=True))
    load_exactly(head, renamed, where=where)
