"""Where does the knowledge of a trained run end? Its training texts, and the distance at which words mean nothing to it.

    training annotations + trained text encoder -> KnownTexts, stored in the run

Two kinds of texts say where the limit lies. A training text whose concept is left out is as far from the other concepts as
a new thing of the same kind would be: near. The same text with its letters shuffled is nonsense in any subject: far. The
probability of being understood is logistic in the distance between the two. Where a text encoder does not put nonsense
farther away than new concepts, as one that is trained from nothing on few texts may not, nothing is fitted and no query is
called unknown.
"""

from collections.abc import Sequence

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from qle.data.annotations import Annotation
from qle.data.negatives import united_concepts
from qle.errors import InputError
from qle.eval.logistic import fit_logistic
from qle.eval.ranking import auroc_of
from qle.text.bank import QueryBank
from qle.text.known import KnownTexts

MOST_TEXTS = 8192
"""Kept of more distinct texts; drawn once and for all."""
MOST_GARBLED = 512
LEAST_AUROC = 0.9
"""Least AUROC of nonsense against new concepts for a limit to be drawn between them."""
RIDGE = 0.05
"""Strength of the ridge in the logistic fit, in units of the spread of the distances: the classes are often separable."""


@torch.no_grad()
def learn_known(bank: QueryBank, annotations: Sequence[Annotation]) -> KnownTexts | None:
    """None where the text encoder cannot tell words from nonsense, or reads only texts that it was given."""
    concept_of = {annotation.query: annotation.concept_key for annotation in united_concepts(annotations)}
    rng = np.random.default_rng(0)
    texts = _some(sorted(concept_of), MOST_TEXTS, rng)
    try:
        garbled = [garble(text, rng) for text in _some(texts, MOST_GARBLED, rng)]
        sentences = _encoded(bank, texts)
        known = KnownTexts(sentences=sentences, limit=2.0, slope=0.0)
        far = known.distance(_encoded(bank, garbled))
    except InputError:  # an encoder of stored queries, or of a list of words
        return None
    near = _from_other_concepts(sentences, [concept_of[text] for text in texts])
    return _fitted(sentences, near.double().cpu().numpy(), far.double().cpu().numpy())


def garble(text: str, rng: np.random.Generator) -> str:
    """The same letters in another order: words of the same lengths that mean nothing."""
    indices = [index for index, sign in enumerate(text) if sign.isalnum()]
    signs = list(text)
    for index, source in zip(indices, rng.permutation(indices).tolist(), strict=True):
        signs[index] = text[source]
    return "".join(signs)


def _fitted(sentences: Tensor, near: np.ndarray, far: np.ndarray) -> KnownTexts | None:
    """Both kinds weigh the same, however many there are of each."""
    is_near = np.concatenate([np.ones(len(near)), np.zeros(len(far))])
    distance = np.concatenate([near, far])
    if not auroc_of(-distance, is_near > 0) >= LEAST_AUROC:
        return None
    weight = np.where(is_near > 0, 1 / len(near), 1 / len(far)) * min(len(near), len(far))
    middle, spread = float(distance.mean()), max(float(distance.std()), 1e-6)
    slope, bias = fit_logistic((distance - middle) / spread, is_near, weight, centre=(0.0, 0.0), ridge=RIDGE)
    return KnownTexts(sentences=sentences, limit=middle - bias / slope * spread, slope=-slope / spread)


def _from_other_concepts(sentences: Float[Tensor, "texts dim"], concepts: Sequence[str]) -> Float[Tensor, " texts"]:
    """Distance of each text from the nearest one of another concept; of texts of one concept alone from the next text, and
    0 of a single one."""
    numbers = {concept: number for number, concept in enumerate(dict.fromkeys(concepts))}
    owner = torch.tensor([numbers[concept] for concept in concepts], device=sentences.device)
    if len(numbers) == 1:
        owner = torch.arange(len(concepts), device=sentences.device)
    distances = []
    for part, own in zip(sentences.split(1024), owner.split(1024), strict=True):
        alike = (part @ sentences.T).masked_fill(own[:, None] == owner[None], -torch.inf)
        distances.append((1 - alike.amax(-1)).clamp(min=0))
    distance = torch.cat(distances)
    return torch.where(torch.isfinite(distance), distance, torch.zeros_like(distance))


def _encoded(bank: QueryBank, texts: Sequence[str]) -> Float[Tensor, "texts dim"]:
    for text in texts:
        bank.encoder.check(text)
    was_training = bank.encoder.training
    bank.encoder.eval()
    parts = [bank.encode(texts[first : first + 128]).sentence for first in range(0, len(texts), 128)]
    bank.encoder.train(was_training)
    return F.normalize(torch.cat(parts).float(), dim=-1)


def _some(texts: Sequence[str], most: int, rng: np.random.Generator) -> list[str]:
    if len(texts) <= most:
        return list(texts)
    return [texts[number] for number in np.sort(rng.choice(len(texts), size=most, replace=False)).tolist()]
