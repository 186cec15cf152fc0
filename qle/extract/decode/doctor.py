"""What the decoders of this machine can do, found by using them on a clip that is made on the spot.

The only place that asks the video libraries about themselves; the words for the user are doctor.py's.
"""

import tempfile
from dataclasses import dataclass
from pathlib import Path

import av
import numpy as np
from av.codec import Codec
from av.codec.codec import UnknownCodecError

from qle.errors import QleError
from qle.extract.decode.decoder import DECODERS, make_decoder, request_frames
from qle.extract.decode.probe import probe
from qle.extract.decode.write import write_video

CODECS = ("h264", "hevc", "av1", "vp8", "vp9", "mpeg2video", "mpeg4")
TOLERANCE = 6.0
"""Mean difference in grey levels to what was encoded; another frame of the clip differs by more than 20."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DecoderFacts:
    """The state of the decoders here."""

    pyav: str
    ffmpeg: str
    missing_codecs: tuple[str, ...]
    problems: dict[str, str]
    """Decoder -> why it cannot be used; empty text where it gave every frame of the clip."""


def decoder_facts() -> DecoderFacts:
    """Versions, codecs, and whether each decoder gives back the frames of a small clip."""
    with tempfile.TemporaryDirectory(prefix="qle-doctor-") as folder:
        path = Path(folder) / "clip.mp4"
        # Every frame has another brightness, so that a wrong one cannot pass.
        frames = np.stack([np.full((64, 96, 3), 20 + 22 * number, np.uint8) for number in range(10)])
        problems = {name: _problem(name, path, frames) for name in sorted(DECODERS, reverse=True)}
    return DecoderFacts(
        pyav=av.__version__,
        ffmpeg=av.ffmpeg_version_info,
        missing_codecs=tuple(name for name in CODECS if not _can_decode(name)),
        problems=problems,
    )


def _problem(name: str, path: Path, frames: np.ndarray) -> str:
    try:
        if not path.exists():
            write_video(path, frames, fps=10)
        wanted = np.array([0, 7, 9])
        decoded = dict(make_decoder(name).frames(request_frames(probe(path), wanted)))
    except ImportError as error:
        return f"not installed ({error})"
    except (QleError, OSError) as error:
        return f"cannot decode a plain clip: {error}"
    worst = max(float(np.abs(decoded[n].astype(float) - frames[n]).mean()) for n in wanted.tolist())
    return "" if worst <= TOLERANCE else f"gives other pixels than were encoded (mean difference {worst:.0f} of 255)"


def _can_decode(name: str) -> bool:
    try:
        return bool(Codec(name, "r").is_decoder)
    except UnknownCodecError:
        return False
