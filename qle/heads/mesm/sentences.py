"""The sentence that a video would have (MESM, segment-sentence level): one vector, made by looking at its clips.

clips (items, clips, dim) -> SentenceRebuilder -> (items, dim) of unit length -> stands in front of the words of the query

A learned blank looks at the clips through some layers; no word of any query takes part, so it is a function of the video
alone. Published batches put the queries of one recording side by side, and let the blank look at all of its clips.
"""

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from qle.nn.detr.moment_losses import CALM
from qle.nn.detr.text_to_video import TextToVideoLayer, published_mask
from qle.nn.spans import pairwise_giou


class SentenceRebuilder(nn.Module):
    """The blank, and the layers through which it looks."""

    def __init__(self, dim: int, num_heads: int, hidden: int, num_layers: int, *, dropout: float) -> None:
        super().__init__()
        self.blank = nn.Parameter(torch.zeros(dim))
        self.layers = nn.ModuleList(
            TextToVideoLayer(dim, num_heads, hidden, dropout=dropout) for _ in range(num_layers)
        )

    def forward(
        self, clips: Float[Tensor, "items clips dim"], mask: Bool[Tensor, "items ..."]
    ) -> Float[Tensor, "items dim"]:
        """The mask is (items, clips), or (items, heads, 1, clips)."""
        nowhere = torch.zeros(len(clips), 1, len(self.blank), dtype=self.blank.dtype, device=clips.device)
        sentence = nowhere + self.blank
        for layer in self.layers:
            sentence = layer(sentence, nowhere, clips, None, mask)
        return F.normalize(sentence[:, 0], dim=-1)


def clips_of_sources(
    clips: Float[Tensor, "items clips dim"], clip_mask: Bool[Tensor, "items clips"], sources: Int[Tensor, " items"]
) -> tuple[Float[Tensor, "items more_clips dim"], Bool[Tensor, "items more_clips"]]:
    """For each item the real clips of all items of its source, one after another."""
    is_seen = ((sources[:, None] == sources)[:, :, None] & clip_mask).flatten(1)
    width = int(is_seen.sum(dim=1).max())
    order = is_seen.to(torch.uint8).argsort(dim=1, descending=True, stable=True)[:, :width]
    return clips.flatten(0, 1)[order], is_seen.gather(1, order)


def published_sentence_mask(
    mask: Bool[Tensor, "items clips"], sources: Int[Tensor, " items"], num_heads: int
) -> Bool[Tensor, "items heads 1 clips"]:
    """parity: masks of (padded sentence, padded clip) are laid out in the wrong order of heads, as in `published_mask`; the
    sentences of an item are those of its source, and its own row of the mask is the one that it looks through."""
    is_same = sources[:, None] == sources
    num_sentences = is_same.sum(dim=1)
    own = is_same.tril(-1).sum(dim=1)
    numbers = torch.arange(int(num_sentences.max()), device=mask.device)
    whole = published_mask(numbers < num_sentences[:, None], mask, num_heads)
    return whole.gather(2, own[:, None, None, None].expand(-1, num_heads, 1, mask.shape[1]))


def outermost(
    starts: Float[Tensor, " targets"], ends: Float[Tensor, " targets"], counts: tuple[int, ...]
) -> Float[Tensor, "items 2"]:
    """(first start, last end) of the moments of each item; (inf, -inf) where there is none."""
    item = torch.repeat_interleave(torch.tensor(counts, device=starts.device), output_size=len(starts))
    first = starts.new_full((len(counts),), float("inf")).scatter_reduce(0, item, starts, "amin")
    last = ends.new_full((len(counts),), float("-inf")).scatter_reduce(0, item, ends, "amax")
    return torch.stack([first, last], dim=-1)


def sentence_loss(
    moments: Float[Tensor, "items dim"],
    texts: Float[Tensor, "items dim"],
    is_positive: Bool[Tensor, "items items"],
    counts: Bool[Tensor, " items"],
    *,
    temperature: float,
) -> Float[Tensor, ""]:
    """Each moment against the texts of all items, by their cosine: the mean log share of those that are its own. A mean over
    the items that count."""
    cosine = F.normalize(moments.float(), dim=-1) @ F.normalize(texts.float(), dim=-1).T / temperature
    logit = cosine - cosine.amax(dim=1, keepdim=True)
    log_share = logit - torch.log(logit.exp().sum(dim=1, keepdim=True) + CALM)
    of_item = (is_positive * log_share).sum(dim=1) / (is_positive.sum(dim=1) + CALM)
    return -(of_item * counts).sum() / counts.sum().clamp(min=1)


def same_moment(
    edges: Float[Tensor, "items 2"], groups: Int[Tensor, " items"], least: float
) -> Bool[Tensor, "items items"]:
    """Items of one group whose outermost edges overlap (generalised) by `least` or more."""
    return (groups[:, None] == groups) & (pairwise_giou(edges, edges) >= least)
