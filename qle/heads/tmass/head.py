"""The T-MASS head: which videos is a text about? The text is a cloud, the video is pooled by how its frames fit the text.

    frames (raw, evenly over the video) + sentence (raw) -> pooled video --\\
    cosines of both -> radius; sentence + radius * noise -> sampled text ---> cosine

After T-MASS (Wang et al. 2024), over frozen frame vectors and sentences. Its published numbers come from an evaluation that
pools each candidate with the candidate's own caption and so tells who is right; here every (text, video) pair is scored with
its own pooling. The published formula is kept as `leaking_similarity`, for those who compare with published numbers.

Scores are the best of several sampled texts. The noise of these trials is drawn once, with the head, is part of its weights, and
is the same for every pair: then a score depends on nothing but its pair, and candidates are compared under the same luck.
"""

import math
from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn

from qle.errors import ConfigError
from qle.heads.base import Losses, TokenShapes
from qle.heads.retrieval import FRAMES, RetrievalBatch, RetrievalHead, RetrievalOutput
from qle.heads.tmass.sampled_text import (
    Prior,
    SimilarityRadius,
    all_frame_cosines,
    cosines_of_trials,
    draw_noise,
    frame_cosines,
    sampled_texts,
)
from qle.heads.tmass.text_pooling import TextPooling
from qle.nn.losses import paired_cross_entropy
from qle.text.base import Words

TILE_NUMBERS = 2 << 20
"""Numbers of one width (pairs times dim) that a tile of pairs holds; about ten such arrays live at a time."""
MAX_LOG_SCALE = math.log(100.0)
"""The scale of similarities is cut here, as CLIP's."""


@dataclass(frozen=True, kw_only=True)
class TmassConfig:
    """Sizes, noise and weights of losses."""

    num_frames: int = 12
    """Frames of a video that it reads, evenly over its length."""
    dim: int = 512
    """Width that texts and frames are brought to. Where neither is projected, theirs counts."""
    projection: Literal["auto", "always", "never"] = "auto"
    """Whether texts and frames first go through a linear layer and a norm each. auto: where their widths differ. Needed as well
    where the widths agree by chance, the two coming from models that were not trained together."""
    num_heads: int = 1
    dropout: float = 0.3
    prior: Prior = "uniform01"
    """Noise of sampled texts: uniform in 0..1, or normal."""
    prior_std: float = 1.0
    """Deviation of the normal noise (published: 0.003, LSMDC)."""
    trials: int = 20
    """Sampled texts of a pair when videos are ranked; the best one counts."""
    scoring: Literal["max_k", "deterministic"] = "max_k"
    """How videos are ranked: max_k as published, or deterministic, the text itself without noise."""
    support_weight: float = 0.8
    """Weight of the loss on the text at the near side of its cloud; 0: none (published: MSR-VTT 0.8, LSMDC and DiDeMo 0)."""
    scale: float = 100.0
    """First value of the factor on similarities before the softmax of the loss; learned, never above 100."""

    def __post_init__(self) -> None:
        for name in ("num_frames", "dim", "num_heads", "trials"):
            if getattr(self, name) < 1:
                raise ConfigError(f"head tmass.{name} = {getattr(self, name)}: expected 1 or more")
        if not 0 <= self.dropout < 1:
            raise ConfigError(f"head tmass.dropout = {self.dropout}: expected 0 or more and below 1")
        if not 0 <= self.support_weight < math.inf:
            raise ConfigError(f"head tmass.support_weight = {self.support_weight}: expected 0 or more")
        if not 0 < self.prior_std < math.inf:
            raise ConfigError(f"head tmass.prior_std = {self.prior_std}: expected a number above 0")
        if not 0 < self.scale <= 100:
            raise ConfigError(f"head tmass.scale = {self.scale}: expected a number above 0, 100 at most")


class TmassHead(RetrievalHead):
    """T-MASS: how well texts and videos fit, with texts as clouds of points."""

    name: ClassVar[str] = "tmass"
    Config: ClassVar[type] = TmassConfig
    noise: Tensor

    def __init__(self, config: TmassConfig, shapes: TokenShapes) -> None:
        super().__init__()
        if FRAMES not in shapes.streams:
            raise ConfigError(
                f"head tmass reads frame vectors, and was given only {', '.join(shapes.streams)}\n"
                "train it with: qle train-heads --head tmass"
            )
        self.config, self.num_frames = config, config.num_frames
        (frame_dim,) = shapes.streams[FRAMES]
        dim = self._width(config, frame_dim, shapes.sentence_dim)
        self.enter_text, self.enter_frames = (
            _WidthEntry(width, dim) if self.is_projected else nn.Identity()
            for width in (shapes.sentence_dim, frame_dim)
        )
        self.pooling = TextPooling(dim, config.num_heads, dropout=config.dropout)
        self.radius = SimilarityRadius(config.num_frames, dim)
        self.log_scale = nn.Parameter(torch.tensor(math.log(config.scale)))
        # With a seed of its own and in the weights: the scores of a run stay what they are on every machine.
        fixed = torch.Generator().manual_seed(0)
        self.register_buffer("noise", self._draw((config.trials, dim), generator=fixed))

    def forward(self, batch: RetrievalBatch) -> RetrievalOutput:
        """In training mode each text is sampled once, anew; else with the first of the fixed noises."""
        assert batch.words is not None
        if self.training:
            with torch.no_grad():  # steps may go over it; gradients must still lead back
                self.log_scale.clamp_(max=MAX_LOG_SCALE)
        text = self._texts(batch.words)[batch.query_index]
        frames = self._frames(batch.frames)
        noise = self._draw(text.shape, device=text.device) if self.training else self.noise[:1]
        return self.compare(text, frames, noise)

    def compare(
        self, text: Float[Tensor, "pairs dim"], frames: Float[Tensor, "pairs frames dim"], noise: Tensor
    ) -> RetrievalOutput:
        """All similarities of a training batch of entered texts and frames. noise: "pairs dim", or 1 for all pairs.

        A text is sampled in the cloud that it has beside its own video, and then held against all videos.
        """
        pooled = self.pooling(text, frames)
        with torch.autocast(text.device.type, enabled=False):  # the scale of 100 makes small differences large
            pooled, text, frames = pooled.float(), text.float(), frames.float()
            radius = self.radius(frame_cosines(text, frames))
            similarity = _cosines(text + radius * noise, pooled)
            support = None
            if self.config.support_weight:
                # Of each video over all texts: what it is whatever is asked.
                towards = F.normalize(pooled.mean(1) - text, dim=-1)
                support = _cosines(text + towards * radius, pooled)
        return RetrievalOutput(similarity=similarity, support=support)

    def loss(self, output: RetrievalOutput, batch: RetrievalBatch) -> Losses:
        """Each text finds its video among those of the batch, and each video its text."""
        scale = self.log_scale.exp()
        terms = {"sampled": paired_cross_entropy(scale * output.similarity, batch.positives)}
        if output.support is not None:
            terms["support"] = self.config.support_weight * paired_cross_entropy(
                scale * output.support, batch.positives
            )
        return Losses(total=torch.stack(list(terms.values())).sum(), terms=terms)

    def similarity(self, words: Words, frames: Float[Tensor, "videos frames dim"]) -> Float[Tensor, "texts videos"]:
        """As `config.scoring` says. In tiles: memory stays bounded, whatever the number of texts and videos."""
        text = self._texts(words).float()
        similarity = text.new_empty(len(text), len(frames))
        for texts, videos in _tiles(len(text), len(frames), self.num_frames, text.shape[1]):
            part, entered = text[texts], self._frames(frames[videos]).float()
            pooled = self.pooling(part, entered).float()
            if self.config.scoring == "deterministic":
                scores = torch.einsum("nd,vnd->nv", F.normalize(part, dim=-1), F.normalize(pooled, dim=-1))
            else:
                radius = self.radius(all_frame_cosines(part, entered))
                scores = cosines_of_trials(part, radius, pooled, self.noise).amax(-1).T
            similarity[texts, videos] = scores
        return similarity

    def sampled_similarity(
        self,
        words: Words,
        frames: Float[Tensor, "videos frames dim"],
        *,
        noise: Tensor | None = None,
        trials: int | None = None,
        generator: torch.Generator | None = None,
    ) -> Float[Tensor, "texts videos trials"]:
        """Every trial of every pair with noise of its own: drawn from `generator`, which must be on the device of the head, or
        given as "videos trials texts dim". The published way of drawing, for looking at the spread; not tiled."""
        text, entered = self._texts(words).float(), self._frames(frames).float()
        if noise is None:
            shape = (len(frames), trials or self.config.trials, *text.shape)
            noise = self._draw(shape, device=text.device, generator=generator)
        pooled = F.normalize(self.pooling(text, entered).float(), dim=-1)
        samples = sampled_texts(text, self.radius(all_frame_cosines(text, entered)), noise)
        return torch.einsum("vknd,vnd->nvk", samples, pooled)

    def leaking_similarity(
        self,
        words: Words,
        frames: Float[Tensor, "videos frames dim"],
        video_of_text: Int[Tensor, " texts"],
        *,
        noise: Tensor | None = None,
    ) -> Float[Tensor, "texts videos"]:
        """parity: the published evaluation, which knows the answer: NOT a measure of retrieval. Every candidate is pooled
        with its own caption instead of the query: the n-th caption of a video is held against the n-th captions of the
        others. NaN where a candidate has none (always, where it has no caption at all).

        noise: as in `sampled_similarity`; without it the fixed one.
        """
        text, entered = self._texts(words).float(), self._frames(frames).float()
        slot = _slots(video_of_text)
        similarity = text.new_full((len(text), len(frames)), math.nan)
        for video in range(len(frames)):
            candidate = entered[video : video + 1]
            pooled = F.normalize(self.pooling(text, candidate)[0].float(), dim=-1)
            radius = self.radius(all_frame_cosines(text, candidate))
            drawn = self.noise[None, :, None] if noise is None else noise[video : video + 1]
            samples = sampled_texts(text, radius, drawn)[0]
            best = torch.einsum("knd,nd->nk", samples, pooled).argmax(-1)
            selected = samples.transpose(0, 1)[torch.arange(len(text), device=text.device), best]
            for own in torch.nonzero(video_of_text == video).flatten().tolist():
                rivals = slot == slot[own]
                similarity[rivals, video] = selected[rivals] @ pooled[own]
        return similarity

    def coarse(self, words: Words) -> Float[Tensor, "texts dim"]:
        """The middle of a text's cloud beside a video that it has nothing to do with."""
        text = self._texts(words).float()
        if self.config.scoring == "deterministic":
            return F.normalize(text, dim=-1)
        unrelated = self.radius(text.new_zeros(self.num_frames))
        return F.normalize(text + unrelated * self.noise.mean(0), dim=-1)

    def coarse_frames(self, mean_frame: Float[Tensor, "videos dim"]) -> Float[Tensor, "videos dim"]:
        """The mean frame, as if it were all of the video: then there is nothing that a text could choose."""
        return F.normalize(self.pooling.pool_alone(self._frames(mean_frame)).float(), dim=-1)

    def _width(self, config: TmassConfig, frame_dim: int, sentence_dim: int) -> int:
        self.is_projected = config.projection == "always" or (
            config.projection == "auto" and frame_dim != sentence_dim
        )  # fmt: skip
        if not self.is_projected and frame_dim != sentence_dim:
            raise ConfigError(
                f"head tmass: frames are {frame_dim} wide and sentences {sentence_dim}: they cannot be compared as they are\n"
                "set head.projection=auto, or choose the text encoder that belongs to the frames"
            )
        dim = config.dim if self.is_projected else frame_dim
        if dim % config.num_heads:
            raise ConfigError(f"head tmass: width {dim} is no multiple of num_heads = {config.num_heads}")
        return dim

    def _texts(self, words: Words) -> Float[Tensor, "texts dim"]:
        """Raw sentences, as long as the encoder made them."""
        sentence = words.sentence.to(self.log_scale.dtype)
        raw = sentence if words.sentence_norm is None else sentence * words.sentence_norm[:, None].to(sentence)
        entered: Tensor = self.enter_text(raw)
        return entered

    def _frames(self, frames: Float[Tensor, "*shape frame_dim"]) -> Float[Tensor, "*shape dim"]:
        entered: Tensor = self.enter_frames(frames.to(self.log_scale.dtype))
        return entered

    def _draw(
        self, shape: tuple[int, ...], *, device: torch.device | None = None, generator: torch.Generator | None = None
    ) -> Tensor:
        return draw_noise(shape, self.config.prior, self.config.prior_std, device=device, generator=generator)


class _WidthEntry(nn.Sequential):
    """To the width of the head, and to a length that the noise, of about 1 in every dimension, is meant for."""

    def __init__(self, width: int, dim: int) -> None:
        super().__init__(nn.Linear(width, dim), nn.LayerNorm(dim))


def _cosines(
    text: Float[Tensor, "texts dim"], pooled: Float[Tensor, "videos texts dim"]
) -> Float[Tensor, "texts videos"]:
    """Row: text; each video as that text has pooled it."""
    return torch.einsum("nd,vnd->nv", F.normalize(text, dim=-1), F.normalize(pooled, dim=-1))


def _tiles(num_texts: int, num_videos: int, num_frames: int, dim: int) -> list[tuple[slice, slice]]:
    """Ranges of texts and of videos, so small that neither pairs nor frames are many."""
    pairs = max(1, TILE_NUMBERS // dim)
    texts = max(1, min(num_texts, math.isqrt(pairs)))
    videos = max(1, pairs // (texts + num_frames))
    return [
        (slice(first, first + texts), slice(begin, begin + videos))
        for begin in range(0, num_videos, videos)
        for first in range(0, num_texts, texts)
    ]


def _slots(video_of_text: Int[Tensor, " texts"]) -> Int[Tensor, " texts"]:
    """The how manieth caption of its video each text is."""
    same = video_of_text[:, None] == video_of_text
    return same.tril(-1).sum(1)
