"""What can be asked about a laparoscopic cholecystectomy, in which words: the one place for phases, tools and their texts.

A concept is a thing that a dataset labels; queries are wordings of it. Cholec80 labels 14: seven phases and seven tools. The
15 published query texts (the irrigator has two, one for each of its uses) come first; further wordings serve for training,
and one of each concept is held out of all training, to ask whether a head has learnt the words or their meaning.
"""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class SurgicalConcept:
    """One labelled thing and its wordings."""

    key: str
    """`Annotation.concept`, e.g. "phase/preparation"."""
    label: str
    """Its name in the files of Cholec80: a value of column Phase, or a column of the tool file."""
    published: tuple[str, ...]
    """The published query texts."""
    paraphrases: tuple[str, ...]
    """Further wordings for training."""
    held_out: str
    """A wording that no training sees."""

    @property
    def wordings(self) -> tuple[str, ...]:
        """All that training may see."""
        return self.published + self.paraphrases


CHOLEC80_PHASES: tuple[SurgicalConcept, ...] = (
    SurgicalConcept(
        key="phase/preparation",
        label="Preparation",
        published=("Preparation phase",),
        paraphrases=("the operation is being prepared", "the first look around and the placing of instruments"),
        held_out="getting ready before the dissection begins",
    ),
    SurgicalConcept(
        key="phase/calot-triangle-dissection",
        label="CalotTriangleDissection",
        published=("Calot triangle dissection phase",),
        paraphrases=("the hepatocystic triangle is dissected", "dissection around the cystic duct and artery"),
        held_out="Calot's triangle is being cleared",
    ),
    SurgicalConcept(
        key="phase/clipping-and-cutting",
        label="ClippingCutting",
        published=("Clipping and cutting phase",),
        paraphrases=("the cystic duct and artery are clipped and divided", "clips are placed and the duct is cut"),
        held_out="closing the cystic structures with clips and dividing them",
    ),
    SurgicalConcept(
        key="phase/gallbladder-dissection",
        label="GallbladderDissection",
        published=("Gallbladder dissection phase",),
        paraphrases=("the gallbladder is detached from the liver bed", "dissecting the gallbladder off the liver"),
        held_out="separation of the gallbladder from the liver",
    ),
    SurgicalConcept(
        key="phase/gallbladder-packaging",
        label="GallbladderPackaging",
        published=("Gallbladder packaging phase",),
        paraphrases=("the gallbladder is put into the bag", "packing the gallbladder into a retrieval bag"),
        held_out="the freed gallbladder is bagged",
    ),
    SurgicalConcept(
        key="phase/cleaning-and-coagulation",
        label="CleaningCoagulation",
        published=("Cleaning and coagulation phase",),
        paraphrases=("the field is rinsed and bleeding is stopped", "washing the liver bed and coagulating it"),
        held_out="haemostasis and lavage at the end",
    ),
    SurgicalConcept(
        key="phase/gallbladder-retraction",
        label="GallbladderRetraction",
        published=("Retraction phase",),
        paraphrases=("the gallbladder is taken out of the body", "retrieval of the bag through the abdominal wall"),
        held_out="pulling the specimen out",
    ),
)
"""In the order of the operation; their numbers 0 to 6 in other files are places in this tuple."""

CHOLEC80_TOOLS: tuple[SurgicalConcept, ...] = (
    SurgicalConcept(
        key="tool/grasper",
        label="Grasper",
        published=("a grasper is present",),
        paraphrases=("grasping forceps can be seen", "there is a grasper in view"),
        held_out="the surgeon has a grasper in the picture",
    ),
    SurgicalConcept(
        key="tool/bipolar",
        label="Bipolar",
        published=("a bipolar forceps is present",),
        paraphrases=("bipolar forceps can be seen", "there is a bipolar instrument in view"),
        held_out="the surgeon has a bipolar coagulator in the picture",
    ),
    SurgicalConcept(
        key="tool/hook",
        label="Hook",
        published=("a hook cautery is present",),
        paraphrases=("an electrocautery hook can be seen", "there is a hook in view"),
        held_out="the surgeon has a cautery hook in the picture",
    ),
    SurgicalConcept(
        key="tool/scissors",
        label="Scissors",
        published=("scissors are present",),
        paraphrases=("a pair of scissors can be seen", "there are scissors in view"),
        held_out="the surgeon has laparoscopic scissors in the picture",
    ),
    SurgicalConcept(
        key="tool/clipper",
        label="Clipper",
        published=("a clip applier is present",),
        paraphrases=("a clipper can be seen", "there is an instrument for placing clips in view"),
        held_out="the surgeon has a clip applicator in the picture",
    ),
    SurgicalConcept(
        key="tool/irrigator",
        label="Irrigator",
        published=("an irrigator is present", "a suction instrument is present"),
        paraphrases=("a suction and irrigation tube can be seen", "there is an irrigator in view"),
        held_out="the surgeon has a rinsing and suction device in the picture",
    ),
    SurgicalConcept(
        key="tool/specimen-bag",
        label="SpecimenBag",
        published=("a specimen retrieval bag is present",),
        paraphrases=("a specimen bag can be seen", "there is a retrieval bag in view"),
        held_out="the surgeon has a bag for the specimen in the picture",
    ),
)

CONCEPT_OF_TEXT = {
    text.lower(): concept.key for concept in CHOLEC80_PHASES + CHOLEC80_TOOLS for text in concept.published
}
"""Published query text -> its concept, for files that hold only the texts."""

TRIPLET_INSTRUMENTS = {
    "bipolar": "bipolar forceps",
    "hook": "cautery hook",
    "clipper": "clip applier",
}
"""CholecT50's words that no reader of English would use; the others stand for themselves, "_" aside."""

TRIPLET_TARGETS = {"abdominal_wall_cavity": "abdominal wall"}

_PLURAL = frozenset({"scissors", "bipolar forceps"})
_NO_ARTICLE = frozenset({"fluid"})


def triplet_sentence(instrument: str, verb: str, target: str) -> str:
    """("grasper", "retract", "gallbladder") -> "the grasper retracts the gallbladder"; an idle instrument only shows."""
    subject = TRIPLET_INSTRUMENTS.get(instrument, instrument.replace("_", " "))
    is_plural = subject in _PLURAL
    if verb == "null_verb":
        return f"the {subject} {'do' if is_plural else 'does'} nothing"
    words = verb.replace("_", " ") if is_plural else _third_person(verb.replace("_", " "))
    if target == "null_target":
        return f"the {subject} {words}"
    thing = TRIPLET_TARGETS.get(target, target.replace("_", " "))
    return f"the {subject} {words} {thing if thing in _NO_ARTICLE else f'the {thing}'}"


def _third_person(verb: str) -> str:
    first, *rest = verb.split(" ")
    ending = "es" if first.endswith(("s", "sh", "ch", "x", "z", "o")) else "s"
    if first.endswith("y") and first[-2:-1] not in "aeiou":
        first, ending = first[:-1], "ies"
    return " ".join([first + ending, *rest])
