"""The token whose product with a clip is the clip's saliency: the context of the video and what stands out of it (CG-DETR).

clips, their mean, how much each clip has to do with the query -> a mixture of learned prompts + the mean
"""

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn


class SaliencyToken(nn.Module):
    """Each clip chooses among prompts by how it differs from the mean; the prompts that important clips choose most are mixed."""

    def __init__(self, dim: int, num_prompts: int, num_kept: int) -> None:
        super().__init__()
        self.num_kept = num_kept
        self.prompts = nn.Parameter(torch.randn(num_prompts, dim))
        self.position = nn.Parameter(torch.randn(1, dim))

    def forward(
        self,
        clips: Float[Tensor, "items clips dim"],
        context: Float[Tensor, "items dim"],
        importance: Float[Tensor, "items clips"],
    ) -> Float[Tensor, "items 1 dim"]:
        """`importance` is 0 for padding; all that count is its ratio to the sum. It gets no gradient."""
        apart = F.normalize((clips - context[:, None]).float(), dim=-1)
        choice = (apart @ F.normalize(self.prompts.float(), dim=-1).T).softmax(-1)
        importance = importance.detach().float()
        share = importance / importance.sum(1, keepdim=True).clamp(min=torch.finfo(torch.float32).tiny)
        chosen = torch.einsum("ic,icp->ip", share, choice)
        weight, number = chosen.topk(self.num_kept, dim=1)
        mixed = (weight[..., None] * self.prompts[number]).sum(1)
        return (mixed + context)[:, None]
