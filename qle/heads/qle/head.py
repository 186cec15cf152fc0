"""The QLE head: every patch of every row listens to the words of the query, and what it makes of them adds up to a score.

    tokens (rows, cells, width) + words -> guided layers -> relevance map -> mean = raw logit of the row
                                                         -> row features  -> temporal mixer -> refined logit
                                                                          -> presence logit of the video

Rows are read one by one (`read_rows`), so overlapping windows never cost twice and chunks of any size give the same
numbers; what does not depend on the query is computed once for all of them. The mixer then runs over the whole video.

After Language-Guided-Endoscopy-Localization (the settings of `QleConfig.published` load its weights through compat/qle.py).
Different by default: tokens are normalised and projected to `dim`, cells know their place, the mixer knows order, distance in
seconds and padding, the refined logit starts as the raw one, a row's feature is where the map is high instead of the plain
mean, and the evidence penalty is a real KL divergence.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor, nn

from qle.errors import ConfigError
from qle.heads.base import Losses, TokenShapes
from qle.heads.qle.guided import GuidedLayer
from qle.heads.qle.presence import Presence, anywhere
from qle.heads.qle.stem import Stem
from qle.heads.rows import HeadOutput, RowBatch, RowHead, RowReading, RowScores
from qle.nn.attention import grid_band
from qle.nn.losses import binary_cross_entropy, evidential_cross_entropy, misleading_evidence, smoothness
from qle.nn.positions import grid_positions
from qle.nn.temporal.mixers import MixerKind, StateSizes, build_mixer
from qle.text.base import Words

_LEAST = {
    "dim": 4, "num_layers": 1, "num_heads": 1, "hidden": 1, "stem": 0, "look_reach": 0, "temporal_layers": 1,
    "temporal_heads": 1, "temporal_hidden": 1, "reach_rows": 1, "state_dim": 1, "state_kernel": 1, "state_expand": 1,
}  # fmt: skip
"""Smallest whole numbers that make a head; None, where it is allowed, has a meaning of its own."""

SCORES_WIDTH = 64
"""Width of the mixer over raw scores, which have no width of their own; as in the first published generation."""


@dataclass(frozen=True, kw_only=True)
class QleConfig:
    """Sizes, parts and weights of losses."""

    dim: int | None = 96
    """Width of the head. None: that of the tokens, which then enter as they are (published)."""
    num_layers: int = 1
    """Guided layers."""
    num_heads: int = 4
    hidden: int | None = None
    """Width of the feed-forward parts; None: twice `dim`."""
    dropout: float = 0.1
    stem: int = 128
    """Channels of two small convolutions in front, which see how neighbouring cells lie to each other. 0: none (published)."""
    look_reach: int | None = 0
    """Cells see their neighbours up to so far in each layer; 0: only themselves, and the self-attention is left out. Near
    reach keeps the map peaking where the thing is. None: all cells (published), which then all know of it and light up."""
    knows_place: bool = True
    """Cells carry the code of their place in the picture."""
    pooling: Literal["relevance", "mean"] = "relevance"
    """How patches become the feature of their row: where the map is high, or all alike (published)."""
    matches: bool = True
    """What counts as relevant is read off the sentence too, not off the guided patches alone (published: alone)."""
    map_gain: float = 2.0
    """Map = gain * (w . patch + b). The mean over cells makes small things faint; the gain lets them speak up."""
    temporal: MixerKind = "transformer"
    """Mixer over time. transformer and ssm work on features, scores on the raw logits. published: order-blind."""
    temporal_layers: int = 2
    temporal_heads: int = 4
    temporal_hidden: int | None = None
    """None: twice `dim`."""
    reach_rows: int = 16
    """How far a row looks to either side in each layer of the transformer. Training shows no more than `data.window_rows`,
    so let the two be about alike: a row that looks further than it was taught to sees what it has never seen."""
    state_dim: int = 16
    """Numbers of state of each channel of the state space mixer."""
    state_kernel: int = 4
    """Rows of the short convolution in front of the published state space mixer."""
    state_expand: int = 2
    """Width inside the published state space mixer, in widths of the head."""
    output: Literal["logit", "evidence"] = "logit"
    """evidence: for and against, from which a probability and its uncertainty follow."""
    confidence: Literal["none", "gate", "published"] = "none"
    """gate: how far a row believes the words is learned from both. published: it scales the tokens instead."""
    raw_weight: float = 1.0
    refined_weight: float = 1.0
    smooth_weight: float = 0.02
    """On |z_{t+1} - z_t| of the refined logit."""
    misleading_weight: float = 0.2
    """On evidence for the wrong class (evidence only)."""
    positive_weight: float = 1.0
    """Weight of rows where the query happens, against those where it does not."""
    presence_weight: float = 0.5
    """On the presence output: whether the query happens anywhere in the rows that are seen. 0: there is no such output."""

    def __post_init__(self) -> None:
        for name, least in _LEAST.items():
            value = getattr(self, name)
            if value is not None and value < least:
                raise ConfigError(f"head qle.{name} = {value}: expected {least} or more")
        for name in (
            "raw_weight",
            "refined_weight",
            "smooth_weight",
            "misleading_weight",
            "positive_weight",
            "presence_weight",
        ):
            if not 0 <= getattr(self, name) < math.inf:
                raise ConfigError(f"head qle.{name} = {getattr(self, name)}: expected 0 or more")
        if not 0 < self.map_gain < math.inf:
            raise ConfigError(f"head qle.map_gain = {self.map_gain}: expected a number above 0")
        if not 0 <= self.dropout < 1:
            raise ConfigError(f"head qle.dropout = {self.dropout}: expected 0 or more and below 1")

    @classmethod
    def published(
        cls,
        *,
        temporal: Literal["published", "published-ssm"] = "published",
        num_heads: int = 8,
        num_layers: int = 2,
        hidden: int | None = None,
        output: Literal["logit", "evidence"] = "logit",
        confidence: Literal["none", "published"] = "none",
    ) -> "QleConfig":
        """The settings of the published code. `hidden` of its first generation was 2048, of its second 4 x width."""
        return cls(
            dim=None,
            num_layers=num_layers,
            num_heads=num_heads,
            hidden=hidden,
            stem=0,
            look_reach=None,
            knows_place=False,
            pooling="mean",
            matches=False,
            map_gain=1.0,
            temporal=temporal,
            temporal_layers=4 if temporal == "published-ssm" else 2,
            temporal_heads=8,
            temporal_hidden=2048,
            output=output,
            confidence=confidence,
            smooth_weight=0.45,
            presence_weight=0.0,
        )


class QleHead(RowHead):
    """QLE: relevance of every cell of every row for a query, and from it the score of the row."""

    near: Tensor | None
    name: ClassVar[str] = "qle"
    Config: ClassVar[type] = QleConfig
    earlier: ClassVar[Mapping[str, Any]] = {"presence_weight": 0.0}

    def __init__(self, config: QleConfig, shapes: TokenShapes) -> None:
        super().__init__()
        if "patch" not in shapes.streams:
            raise ConfigError(
                f"head qle reads patch tokens, and this space has only {', '.join(shapes.streams)}\n"
                "extract again without --tokens frame"
            )
        self.config, self.streams = config, ("patch",)
        self.rows, self.cols, token_dim = shapes.streams["patch"]
        dim = config.dim or token_dim
        for name, width in (
            ("num_heads", dim),
            ("temporal_heads", SCORES_WIDTH if config.temporal == "scores" else dim),
        ):
            if width % getattr(config, name):
                raise ConfigError(f"head qle: width {width} is no multiple of {name} = {getattr(config, name)}")
        self.enter = _TokenEntry(token_dim, dim, self.rows, self.cols, config)
        near = None if not config.look_reach else grid_band(self.rows, self.cols, config.look_reach)
        self.register_buffer("near", near, persistent=False)
        self.words = nn.Linear(shapes.text_dim, dim)
        self.word_norm = nn.LayerNorm(dim) if config.dim is not None else nn.Identity()
        hidden = config.hidden or 2 * dim
        self.guided = nn.ModuleList(
            GuidedLayer(dim, config.num_heads, hidden, dropout=config.dropout, looks=config.look_reach != 0)
            for _ in range(config.num_layers)
        )
        self.confidence = None if config.confidence == "none" else _confidence(dim)
        self.relevance = nn.Linear(dim, 1)
        self.match = nn.Linear(shapes.sentence_dim, dim + 1) if config.matches else None
        if config.dim is not None:  # a gain on numbers that begin near nothing: large steps from a calm start
            for linear in (self.relevance, self.match):
                if linear is not None:
                    nn.init.normal_(linear.weight, std=0.1 / config.map_gain)
                    nn.init.zeros_(linear.bias)
        self.temporal = _Refinement(dim, config)
        self.presence = Presence(dim, dropout=config.dropout) if config.presence_weight else None

    def forward(self, batch: RowBatch) -> HeadOutput:
        assert batch.words is not None
        words = batch.words.select(batch.query_index)
        tokens = batch.streams["patch"]
        features, relevance = self._read(tokens, words)
        raw = relevance.mean(-1)
        num_queries = raw.shape[1]
        row_mask = batch.row_mask.repeat_interleave(num_queries, dim=0)
        features = features.flatten(0, 1)
        refined, evidence = self.temporal(
            features, raw.flatten(0, 1), batch.times_s.repeat_interleave(num_queries, dim=0), row_mask
        )
        presence = None if self.presence is None else self.presence(features, refined, row_mask)
        return HeadOutput(
            logit=refined.unflatten(0, raw.shape[:2]),
            raw_logit=raw,
            relevance_map=relevance.unflatten(-1, (self.rows, self.cols)),
            evidence=None if evidence is None else evidence.unflatten(0, raw.shape[:2]),
            presence_logit=None if presence is None else presence.unflatten(0, raw.shape[:2]),
        )

    def read_rows(
        self, streams: Mapping[str, Float[Tensor, " time *row"]], words: Words, *, with_maps: bool = False
    ) -> RowReading:
        tokens = streams["patch"][None]
        group = Words(states=words.states[None], mask=words.mask[None], sentence=words.sentence[None])
        features, relevance = self._read(tokens, group)
        maps = relevance[0].unflatten(-1, (self.rows, self.cols)) if with_maps else None
        return RowReading(features=features[0], raw_logit=relevance[0].mean(-1), relevance_map=maps)

    def refine(
        self, reading: RowReading, times_s: Float[Tensor, " time"], row_mask: Bool[Tensor, " time"]
    ) -> RowScores:
        queries = len(reading.raw_logit)
        row_mask = row_mask.expand(queries, -1)
        refined, evidence = self.temporal(reading.features, reading.raw_logit, times_s.expand(queries, -1), row_mask)
        return RowScores(
            logit=refined,
            uncertainty=None if evidence is None else 2 / (evidence.sum(-1) + 2),
            presence_logit=None if self.presence is None else self.presence(reading.features, refined, row_mask),
        )

    def loss(self, output: HeadOutput, batch: RowBatch) -> Losses:
        target, known = batch.relevance, batch.relevance_mask
        assert target is not None
        assert known is not None
        assert output.logit is not None
        assert output.raw_logit is not None
        config = self.config
        weight = config.positive_weight
        terms = {
            "raw": config.raw_weight
            * binary_cross_entropy(output.raw_logit.float(), target, known, positive_weight=weight),
            "smooth": config.smooth_weight * smoothness(output.logit.float(), known),
        }
        if output.evidence is None:
            refined = binary_cross_entropy(output.logit.float(), target, known, positive_weight=weight)
        else:
            refined = evidential_cross_entropy(output.evidence.float(), target, known)
            misleading = misleading_evidence(output.evidence.float(), target, known)
            terms["misleading"] = config.misleading_weight * misleading
        terms["refined"] = config.refined_weight * refined
        if output.presence_logit is not None:
            happens, is_known = anywhere(target, known, batch.row_mask)
            presence = binary_cross_entropy(output.presence_logit.float(), happens, is_known)
            terms["presence"] = config.presence_weight * presence
        return Losses(total=torch.stack(list(terms.values())).sum(), terms=terms)

    def loss_counts(self, batch: RowBatch) -> Mapping[str, Tensor]:
        known = batch.relevance_mask
        assert known is not None
        counts = {**super().loss_counts(batch), "smooth": (known[..., 1:] & known[..., :-1]).sum()}
        if self.presence is not None:
            assert batch.relevance is not None
            counts["presence"] = anywhere(batch.relevance, known, batch.row_mask)[1].sum()
        return counts

    def _read(
        self, tokens: Float[Tensor, "groups time rows cols dim"], words: Words
    ) -> tuple[Float[Tensor, "groups queries time dim"], Float[Tensor, "groups queries time cells"]]:
        """Features and relevance of every row for every query; words are "groups queries words text_dim"."""
        groups = len(words.mask)
        num_rows = tokens.shape[1]
        heard = self.word_norm(self.words(words.states.to(self.words.weight.dtype)))
        patches = self.enter(tokens.flatten(2, 3).flatten(0, 1))
        patches = patches.unflatten(0, (groups, num_rows))[:, None]  # one copy, shared by all queries
        gate = None
        if self.confidence is not None:
            confidence = self._confidence(patches, heard, words.mask)
            if self.config.confidence == "published":
                patches = patches * confidence
            else:
                gate = confidence.expand(-1, -1, -1, patches.shape[3], -1).flatten(2, 3)
        for layer in self.guided:
            assert isinstance(layer, GuidedLayer)
            copies = patches.shape[1]
            looked = layer.look(patches.flatten(0, 2), self.near).unflatten(0, (groups, copies, num_rows))
            patches = layer.listen(looked.flatten(2, 3), heard, words.mask, gate)
            patches = patches.unflatten(2, (num_rows, -1))
        relevance = self.config.map_gain * self._relevance(patches, words)
        if self.config.pooling == "mean":
            return patches.mean(3), relevance
        share = relevance.softmax(-1)
        # Not an einsum: the gradient of that lies across the patches, and adding it up costs two more passes over them.
        return (share[..., None, :].to(patches.dtype) @ patches).squeeze(-2), relevance

    def _relevance(self, patches: Tensor, words: Words) -> Float[Tensor, "groups queries time cells"]:
        """Linear in the patches, so that the mean over the cells is the relevance of the mean."""
        if self.match is None:
            relevance: Tensor = self.relevance(patches).squeeze(-1)
            return relevance
        # What all queries look for and what this one does, added up first: one product over the patches instead of two.
        wanted = self.match(words.sentence.to(self.match.weight.dtype))
        direction = wanted[..., :-1] + self.relevance.weight.squeeze(0)
        offset = wanted[..., -1] + self.relevance.bias
        matched = torch.einsum("gqtcd,gqd->gqtc", patches, direction.to(patches.dtype))
        total: Tensor = matched + offset[..., None, None]
        return total

    def _confidence(self, patches: Tensor, words: Tensor, mask: Tensor) -> Float[Tensor, "groups queries time 1 1"]:
        assert self.confidence is not None
        # parity: the published mean counts the padding in, so its score depends on how long the other queries are.
        is_published = self.config.confidence == "published"
        weight = (torch.ones_like(mask) if is_published else mask)[..., None].to(words.dtype)
        said = (words * weight).sum(2) / weight.sum(2)
        seen = patches.mean(3).expand(-1, words.shape[1], -1, -1)
        both = torch.cat([seen, said[:, :, None].expand_as(seen)], dim=-1)
        score: Tensor = torch.sigmoid(self.confidence(both))
        return score[..., None]


class _TokenEntry(nn.Module):
    """Tokens of any backbone to the width of the head, with the place of each cell."""

    cell_code: Tensor

    def __init__(self, token_dim: int, dim: int, rows: int, cols: int, config: QleConfig) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(token_dim) if config.dim is not None else nn.Identity()
        self.project = nn.Linear(token_dim, dim) if config.dim is not None else nn.Identity()
        self.rows = rows
        self.stem = Stem(dim, config.stem, dropout=config.dropout) if config.stem else None
        code = grid_positions(rows, cols, dim) if config.knows_place else torch.zeros(1)
        self.register_buffer("cell_code", code, persistent=False)

    def forward(self, tokens: Float[Tensor, "rows cells token_dim"]) -> Float[Tensor, "rows cells dim"]:
        if not torch.is_autocast_enabled(tokens.device.type):
            tokens = tokens.to(self.cell_code.dtype)
        entered: Tensor = self.project(self.norm(tokens))
        if self.stem is not None:
            entered = self.stem(entered.unflatten(1, (self.rows, -1))).flatten(1, 2)
        return entered + self.cell_code


class _Refinement(nn.Module):
    """Row features and raw logits -> refined logits, by the mixer of the config."""

    def __init__(self, dim: int, config: QleConfig) -> None:
        super().__init__()
        self.kind = config.temporal
        self.is_residual = self.kind in ("transformer", "ssm", "scores")
        width = SCORES_WIDTH if self.kind == "scores" else dim
        self.mixer = build_mixer(
            config.temporal,
            width,
            num_layers=config.temporal_layers,
            num_heads=config.temporal_heads,
            hidden=config.temporal_hidden or 2 * width,
            dropout=config.dropout,
            reach=config.reach_rows,
            state=StateSizes(dim=config.state_dim, kernel=config.state_kernel, expand=config.state_expand),
        )
        num_outputs = 2 if config.output == "evidence" else 1
        # Our mixers are told the raw logits too and only correct them; the published ones begin from nothing.
        self.score = nn.Linear(1, width) if self.is_residual else None
        self.out = None if self.kind == "none" and num_outputs == 1 else nn.Linear(width, num_outputs)
        if self.is_residual and self.out is not None:
            nn.init.zeros_(self.out.weight)
            nn.init.zeros_(self.out.bias)

    def forward(
        self,
        features: Float[Tensor, "batch time dim"],
        raw: Float[Tensor, "batch time"],
        times_s: Float[Tensor, "batch time"],
        mask: Bool[Tensor, "batch time"],
    ) -> tuple[Float[Tensor, "batch time"], Float[Tensor, "batch time 2"] | None]:
        if self.out is None:
            return raw, None
        mixed = features
        if self.score is not None:
            told = self.score(raw[..., None])
            mixed = told if self.kind == "scores" else features + told
        if self.mixer is not None:
            mixed = self.mixer(mixed, times_s, mask)
        out = self.out(mixed)
        if out.shape[-1] == 1:
            return out.squeeze(-1) + (raw if self.is_residual else 0), None
        if self.is_residual:
            out = out + torch.stack([raw, -raw], dim=-1)
        evidence = F.softplus(out.float())
        return torch.log((evidence[..., 0] + 1) / (evidence[..., 1] + 1)), evidence


def _confidence(dim: int) -> nn.Module:
    return nn.Sequential(nn.Linear(2 * dim, dim // 2), nn.ReLU(), nn.Linear(dim // 2, 1))
