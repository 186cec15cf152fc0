"""What comes after clips have listened to words, in QD-DETR and MESM: a token reads along, a decoder answers.

heard clips (rounds x items, clips, dim) -> token + encoder -> reference decoder -> spans and classes, of the first round
                                                           `--> saliency: how clips agree with the token, of all rounds

The items stand in the batch once, or twice: first with their own query, then with one that does not happen in them. Spans
are asked of the first round only.
"""

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from qle.nn.detr.config import DetrConfig
from qle.nn.detr.encoder import Encoder, EncoderLayer
from qle.nn.detr.outputs import SpanPredictor, TokenSaliency
from qle.nn.detr.reference_decoder import ReferenceDecoder
from qle.nn.detr.token_encoder import TokenEncoder


class TokenDetr(nn.Module):
    """Encoder, decoder and what they say."""

    def __init__(self, config: DetrConfig, *, sees_token: bool = True) -> None:
        super().__init__()
        sizes, dropout = (config.dim, config.num_heads, config.hidden), config.dropout
        layers = [EncoderLayer(*sizes, dropout=dropout, activation="prelu") for _ in range(config.encoder_layers)]
        self.encoder = TokenEncoder(Encoder(layers, final_norm=False), config.dim, is_seen=sees_token)
        self.decoder = ReferenceDecoder(*sizes, config.decoder_layers, config.num_queries, dropout=dropout)
        self.predict = SpanPredictor(config.dim)
        self.saliency = TokenSaliency(config.dim)

    def forward(
        self,
        heard: Float[Tensor, "rounds_items clips dim"],
        positions: Float[Tensor, "items clips dim"],
        mask: Bool[Tensor, "items clips"],
    ) -> tuple[
        Float[Tensor, "layers items queries 2"],
        Float[Tensor, "layers items queries 2"],
        Float[Tensor, "rounds items clips"],
    ]:
        """Logits, spans, saliency."""
        items = len(mask)
        rounds = len(heard) // items
        memory, token = self.encoder(heard, positions.repeat(rounds, 1, 1), mask.repeat(rounds, 1))
        states, references = self.decoder(memory[:items], mask, positions)
        logits, spans = self.predict(states, references)
        return logits, spans, torch.unflatten(self.saliency(memory, token), 0, (rounds, items))
