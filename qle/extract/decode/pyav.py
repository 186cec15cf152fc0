"""PyAV: the reference decoder. Exact by construction: a frame is taken for the wanted one only if it carries its stamp.

Colour: swscale's bilinear path with the file's own matrix and range (BT.601 limited where it is silent), 8-bit RGB. It is
what OpenCV and decord do too, so pre-trained encoders have seen such pixels; against an exact conversion it is 1.3 levels of 255
off on average (rounding, nearest chroma) and costs half as much. 10-bit and 4:4:4 sources go the same way.
"""

from collections.abc import Callable, Iterator
from contextlib import ExitStack

import av
import av.error
import numpy as np
from av.video.reformatter import Interpolation, VideoReformatter

from qle.errors import DecodeError
from qle.extract.decode.decoder import NO_TICK, Decoder, FrameRequest, no_beat, upright
from qle.extract.decode.probe import open_video


class PyavDecoder(Decoder):
    """Goes straight through or jumps to key frames as the request says; goes back further when a jump did not lead there."""

    def frames(self, request: FrameRequest, beat: Callable[[], None] = no_beat) -> Iterator[tuple[int, np.ndarray]]:
        to_rgb = VideoReformatter()  # keeps its tables from frame to frame
        with ExitStack() as open_files:
            walk = _Walk(request, open_files, beat)
            for wanted, number in enumerate(request.numbers):
                frame = walk.to(wanted)
                rgb = to_rgb.reformat(frame, format="rgb24", interpolation=Interpolation.BILINEAR, threads=1)
                yield int(number), upright(_pixels(rgb), request.rotation)


def _pixels(rgb: av.VideoFrame) -> np.ndarray:
    """The frame's own memory as (height, width, 3), without the bytes that pad its lines."""
    plane = rgb.planes[0]
    lines = np.frombuffer(plane, np.uint8).reshape(rgb.height, plane.line_size)
    return lines[:, : rgb.width * 3].reshape(rgb.height, rgb.width, 3)


class _Walk:
    """One pass over the file: where it stands, and how many frames are known to be good up to there."""

    def __init__(self, request: FrameRequest, open_files: ExitStack, beat: Callable[[], None]) -> None:
        self._request = request
        self._open_files = open_files
        self._beat = beat
        self._ahead: av.VideoFrame | None = None
        self._base_tick = NO_TICK
        self._base_number = 0
        self._num_since_base = 0
        self._num_counted = 0
        self._skips_unwanted = request.has_stamps
        self._trusts_jumps = request.has_stamps
        self._restart()

    def to(self, wanted: int) -> av.VideoFrame:
        """The wanted frame, by the planned way, else from an earlier key frame, else from the beginning."""
        tick, key_tick = int(self._request.ticks[wanted]), int(self._request.seek_ticks[wanted])
        if key_tick != NO_TICK and self._trusts_jumps:
            self._set_base(key_tick - 1, int(self._request.seek_numbers[wanted]))
            self._jump(key_tick)
        frame, error = self._advance(tick)
        if frame is None and self._request.has_stamps:
            # Skipped frames, a container that jumps inexactly, leading pictures: all are left out of the second try.
            self._skips_unwanted = False
            self._jump((key_tick if key_tick != NO_TICK else tick) - 1)
            frame, error = self._advance(tick)
        if frame is None and error is None and self._request.has_stamps:
            self._trusts_jumps = False  # one pass over the whole file is bearable, one for every jump is not
            self._restart()
            frame, error = self._advance(tick)
        if frame is None:
            raise self._failure(wanted, error)
        self._skips_unwanted = self._request.has_stamps
        self._set_base(tick, int(self._request.numbers[wanted]) + 1)
        return frame

    def _advance(self, tick: int) -> tuple[av.VideoFrame | None, av.error.FFmpegError | None]:
        """Decodes up to the frame with this stamp. None where the decoder passes it by or cannot go on."""
        ahead, self._ahead = self._ahead, None
        if ahead is not None and ahead.pts >= tick:
            return self._judge(ahead, tick)
        try:
            for frame in self._frames:
                if frame.pts is None:
                    continue
                self._num_since_base += frame.pts > self._base_tick
                if frame.pts >= tick:
                    return self._judge(frame, tick)
        except av.error.FFmpegError as error:
            return None, error
        return None, None

    def _judge(self, frame: av.VideoFrame, tick: int) -> tuple[av.VideoFrame | None, None]:
        # A damaged frame on the way straight through is what every player shows; after a jump it may be the jump's fault.
        if frame.pts == tick and (self._is_straight or not frame.is_corrupt):
            return frame, None
        self._ahead = frame if frame.pts > tick else None
        return None, None

    def _decoded(self, is_after_jump: bool = False) -> Iterator[av.VideoFrame]:
        ticks = self._request.ticks
        for packet in self._container.demux(self._stream):
            if is_after_jump and packet.size and not packet.is_keyframe:
                continue  # some containers land between key frames: what comes out before one is not to be trusted
            is_after_jump = False
            self._beat()
            if self._request.has_stamps and packet.pts is not None:
                place = int(np.searchsorted(ticks, packet.pts))
                is_wanted = place < len(ticks) and ticks[place] == packet.pts
                # Nothing refers to a "nonref" frame, so leaving it out changes no other frame.
                skip = "DEFAULT" if is_wanted or not self._skips_unwanted else "NONREF"
                if self._stream.codec_context.skip_frame != skip:
                    self._stream.codec_context.skip_frame = skip
            for frame in packet.decode():
                if not self._request.has_stamps:
                    frame.pts, self._num_counted = self._num_counted, self._num_counted + 1
                yield frame

    def _jump(self, tick: int) -> None:
        """To the last key frame that is not after `tick`, or to the beginning where there is none."""
        self._ahead = None
        self._num_since_base = 0
        self._is_straight = False
        try:
            self._container.seek(tick, stream=self._stream, backward=True)
            self._frames = self._decoded(is_after_jump=True)
        except av.error.FFmpegError:
            self._restart()

    def _restart(self) -> None:
        """Opens the file anew: the only way to its beginning that every container and every edit list agrees on."""
        self._open_files.close()
        self._container, self._stream = self._open_files.enter_context(open_video(self._request.path))
        self._ahead = None
        self._num_since_base = 0
        self._num_counted = 0
        self._is_straight = True
        self._frames = self._decoded()

    def _set_base(self, tick: int, number: int) -> None:
        self._base_tick, self._base_number, self._num_since_base = tick, number, 0

    def _failure(self, wanted: int, error: av.error.FFmpegError | None) -> DecodeError:
        num_good = self._base_number + self._num_since_base
        reason = error.strerror if error is not None else "it never comes out of the decoder"
        return DecodeError(
            f"{self._request.path}: the frame at {self._request.pts_s[wanted]:.3f} s cannot be decoded: {reason}\n"
            f"{num_good} of {self._request.num_frames} frames are good. Repair or re-encode the file.",
            kind="decode",
            frames_decoded=num_good,
            frames_expected=self._request.num_frames,
        )
