"""decord: numbers frames by itself, so it is used only on files where its numbers are checked against their stamps.

It hides neither what an edit list hides nor turns a picture upright, repeats a good frame where a bad one should be, and aborts
the process on some damaged files: hence the checks here, `choose_decoder`, and the process of its own.
"""

from collections.abc import Callable, Iterator

import numpy as np

from qle.errors import DecodeError
from qle.extract.decode.decoder import Decoder, FrameRequest, no_beat, upright

STAMP_SLACK_S = 1e-3
"""decord keeps stamps as 32-bit floats; beyond half an hour those are coarser than a millisecond."""


class DecordDecoder(Decoder):
    """One thread, one frame at a time: with more, decord decodes ahead without bound."""

    def frames(self, request: FrameRequest, beat: Callable[[], None] = no_beat) -> Iterator[tuple[int, np.ndarray]]:
        import decord  # choose_decoder has seen that it is there

        decord.logging.set_level(decord.logging.QUIET)
        try:
            reader = decord.VideoReader(str(request.path.absolute()), num_threads=1, fault_tol=1)
            if len(reader) != request.num_frames:
                raise self._failure(request, f"it counts {len(reader)} frames, the file shows {request.num_frames}", 0)
            for wanted, number in enumerate(request.numbers.tolist()):
                reader.seek_accurate(number)
                rgb = reader.next().asnumpy()
                self._check_stamp(request, reader, wanted)
                beat()
                yield number, upright(rgb, request.rotation)
        except decord.DECORDError as error:
            raise self._failure(request, str(error).strip().splitlines()[-1], 0) from error

    def _check_stamp(self, request: FrameRequest, reader: object, wanted: int) -> None:
        number = int(request.numbers[wanted])
        expected_s = float(request.pts_s[wanted])
        start_s = float(reader.get_frame_timestamp(number)[0])  # type: ignore[attr-defined]
        if abs(start_s - expected_s) > STAMP_SLACK_S + expected_s * 1e-6:
            reason = f"its frame {number} is that of {start_s:.3f} s, not of {expected_s:.3f} s"
            raise self._failure(request, reason, number)

    def _failure(self, request: FrameRequest, reason: str, num_good: int) -> DecodeError:
        return DecodeError(
            f"{request.path}: decord cannot read this file exactly: {reason}\nUse --decoder pyav (or auto).",
            kind="decode",
            frames_decoded=num_good,
            frames_expected=request.num_frames,
        )
