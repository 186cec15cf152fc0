"""The words of the surgical datasets."""

from collections import Counter

import pytest

from qle.data.readers.concepts import CHOLEC80_PHASES, CHOLEC80_TOOLS, triplet_sentence

CONCEPTS = CHOLEC80_PHASES + CHOLEC80_TOOLS

PUBLISHED = """Preparation phase / Calot triangle dissection phase / Clipping and cutting phase / Gallbladder dissection phase /
Gallbladder packaging phase / Cleaning and coagulation phase / Retraction phase / a grasper is present / a bipolar forceps is
present / a hook cautery is present / scissors are present / a clip applier is present / an irrigator is present / a suction
instrument is present / a specimen retrieval bag is present"""


def test_the_fifteen_published_texts() -> None:
    assert [text for concept in CONCEPTS for text in concept.published] == " ".join(PUBLISHED.split()).split(" / ")


def test_every_concept_has_four_wordings_of_its_own_and_one_is_held_out() -> None:
    texts = [text.lower() for concept in CONCEPTS for text in (*concept.wordings, concept.held_out)]
    assert Counter(texts).most_common(1)[0][1] == 1
    assert len({concept.key for concept in CONCEPTS}) == 14
    assert all(len(concept.wordings) >= 3 for concept in CONCEPTS)


@pytest.mark.parametrize(
    ("triplet", "sentence"),
    [
        ("grasper,retract,gallbladder", "the grasper retracts the gallbladder"),
        ("bipolar,coagulate,blood_vessel", "the bipolar forceps coagulate the blood vessel"),
        ("scissors,cut,cystic_duct", "the scissors cut the cystic duct"),
        ("clipper,clip,cystic_artery", "the clip applier clips the cystic artery"),
        ("irrigator,aspirate,fluid", "the irrigator aspirates fluid"),
        ("irrigator,irrigate,abdominal_wall_cavity", "the irrigator irrigates the abdominal wall"),
        ("grasper,pack,gallbladder", "the grasper packs the gallbladder"),
        ("hook,null_verb,null_target", "the cautery hook does nothing"),
        ("scissors,null_verb,null_target", "the scissors do nothing"),
        ("needle_driver,pull_through,suture", "the needle driver pulls through the suture"),
        ("probe,push,null_target", "the probe pushes"),
        ("probe,carry,needle", "the probe carries the needle"),
    ],
)
def test_triplets_are_sentences(triplet: str, sentence: str) -> None:
    assert triplet_sentence(*triplet.split(",")) == sentence
