"""PyAV: the reference decoder. Exact by construction: a frame is taken for the wanted one only if it carries its stamp.

A stream that shows damage (a decoder that reports or logs errors, frames that it flags) is decoded straight: from the beginning,
without jumps, without leaving a frame out. What a decoder puts in the place of what is lost depends on every frame before it, so
this alone gives what a player shows. A decoder complains about a packet when it is handed over, which is before any frame comes
out that refers to it, also one that is shown earlier: so nothing was given that would have to be taken back. Wanted frames that
are flagged then are given, and named in `damaged`; what follows an error is not given before the next key frame.

Colour: swscale's bilinear path with the file's own matrix and range (BT.601 limited where it is silent), 8-bit RGB. It is
what OpenCV and decord do too, so pre-trained encoders have seen such pixels; against an exact conversion it is 1.3 levels of 255
off on average (rounding, nearest chroma) and costs half as much. 10-bit and 4:4:4 sources go the same way.
"""

import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack

import av
import av.error
import av.logging
import numpy as np
from av.video.reformatter import Interpolation, VideoReformatter

from qle.errors import DecodeError
from qle.extract.decode.decoder import NO_TICK, Decoder, FrameRequest, no_beat, upright
from qle.extract.decode.probe import open_video

NEVER_SKIPPED = frozenset({"vp7", "vp8"})
"""Codecs of which no frame is left out. What they keep from frame to frame (the map of segments) may be changed by a frame that
nothing refers to."""
FAULTS_OF_JUMPS = ("mmco: unref short failure", "number of reference frames")
"""How the errors begin that a whole stream gives after a jump: frames are to be forgotten that were never seen."""
CONCEALING = "concealing"
"""How the message begins that lost parts of a picture were made up; it is no error to those who log it."""


class PyavDecoder(Decoder):
    """Goes straight through or jumps to key frames as the request says; goes back further when a jump did not lead there."""

    def frames(self, request: FrameRequest, beat: Callable[[], None] = no_beat) -> Iterator[tuple[int, np.ndarray]]:
        self.damaged: set[int] = set()
        to_rgb = VideoReformatter()  # keeps its tables from frame to frame
        with ExitStack() as open_files:
            walk = _Walk(request, open_files, beat)
            for wanted, number in enumerate(request.numbers.tolist()):
                frame = walk.to(wanted)
                if frame.is_corrupt:
                    self.damaged.add(number)
                rgb = to_rgb.reformat(frame, format="rgb24", interpolation=Interpolation.BILINEAR, threads=1)
                yield number, upright(_pixels(rgb), request.rotation)


def _pixels(rgb: av.VideoFrame) -> np.ndarray:
    """The frame's own memory as (height, width, 3), without the bytes that pad its lines."""
    plane = rgb.planes[0]
    lines = np.frombuffer(plane, np.uint8).reshape(rgb.height, plane.line_size)
    return lines[:, : rgb.width * 3].reshape(rgb.height, rgb.width, 3)


class _Messages:
    """What the libraries log meanwhile in this thread, as (level, name, text); nothing of it is printed.

    The level is one of the whole process, and pictures of a page are decoded in several threads: it is set by the first that
    listens, and set back by the last.
    """

    _lock = threading.Lock()
    _num_listening = 0
    _before: tuple[int | None, bool] = (None, True)
    """Level, and whether repeated messages are skipped, while nobody listens."""

    def __enter__(self) -> list[tuple[int, str, str]]:
        with _Messages._lock:
            if _Messages._num_listening == 0:
                _Messages._before = av.logging.get_level(), av.logging.get_skip_repeated()
                av.logging.set_skip_repeated(
                    False
                )  # else an error would be missing that was the last one of another file too
                av.logging.set_level(av.logging.INFO)
            _Messages._num_listening += 1
        self._capture = av.logging.Capture()
        messages: list[tuple[int, str, str]] = self._capture.__enter__()
        return messages

    def __exit__(self, *exc_info: object) -> None:
        self._capture.__exit__(None, None, None)
        with _Messages._lock:
            _Messages._num_listening -= 1
            if _Messages._num_listening == 0:
                level, skips_repeated = _Messages._before
                av.logging.set_level(level)
                av.logging.set_skip_repeated(skips_repeated)


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
        self._is_damaged = False
        """Whether the stream has shown damage: from then on it is decoded straight."""
        self._is_straight = True
        """From the beginning to here, without a frame left out."""
        self._error: av.error.FFmpegError | None = None
        """What the decoder could not read since the last key frame."""
        self._first_key_tick = NO_TICK
        """Stamp of the first key frame since the file was opened or a jump."""
        self._num_keys = 0
        """Key frames since then."""
        self._frames: Iterator[av.VideoFrame] = iter(())
        self._restart()

    def to(self, wanted: int) -> av.VideoFrame:
        """The wanted frame, by the planned way, else from an earlier key frame, else straight from the beginning."""
        tick, key_tick = int(self._request.ticks[wanted]), int(self._request.seek_ticks[wanted])
        if key_tick != NO_TICK and self._trusts_jumps:
            self._set_base(key_tick - 1, int(self._request.seek_numbers[wanted]))
            self._jump(key_tick)
        frame = self._advance(tick)
        if frame is None and self._request.has_stamps and not self._is_damaged:
            # Skipped frames, a container that jumps inexactly, leading pictures: all are left out of the second try.
            self._skips_unwanted = False
            self._jump((key_tick if key_tick != NO_TICK else tick) - 1)
            frame = self._advance(tick)
        if frame is None and self._request.has_stamps and not (self._is_damaged and self._is_straight):
            self._skips_unwanted = False
            self._trusts_jumps = False  # one pass over the whole file is bearable, one for every jump is not
            self._restart()
            frame = self._advance(tick)
        if frame is None:
            raise self._failure(wanted)
        self._is_damaged |= frame.is_corrupt
        self._trusts_jumps &= not self._is_damaged
        self._skips_unwanted = self._request.has_stamps and not self._is_damaged
        self._set_base(tick, int(self._request.numbers[wanted]) + 1)
        return frame

    def _advance(self, tick: int) -> av.VideoFrame | None:
        """Decodes up to the frame with this stamp. None where the decoder passes it by or cannot go on, and where damage
        shows that must be decoded straight."""
        ahead, self._ahead = self._ahead, None
        if ahead is not None and ahead.pts >= tick:
            return self._judge(ahead, tick)
        try:
            for frame in self._frames:
                if self._is_damaged and not self._is_straight:
                    return None
                if frame.pts is None:
                    continue
                self._num_since_base += frame.pts > self._base_tick and self._error is None
                # Pictures before the first key frame refer to what lies before it: no wonder that they are flagged.
                if frame.is_corrupt and frame.pts >= self._first_key_tick:
                    self._is_damaged, self._skips_unwanted = True, False
                    if not self._is_straight:
                        return None
                if frame.pts >= tick:
                    return self._judge(frame, tick)
        except MemoryError:
            raise
        except av.error.FFmpegError as error:
            self._error, self._is_damaged = error, True
        return None

    def _judge(self, frame: av.VideoFrame, tick: int) -> av.VideoFrame | None:
        # A damaged frame on the way straight through is what every player shows; after a jump it may be the jump's fault.
        if frame.pts == tick and self._error is None and (self._is_straight or not frame.is_corrupt):
            return frame
        self._ahead = frame if frame.pts > tick else None
        return None

    def _decoded(self, is_after_jump: bool = False) -> Iterator[av.VideoFrame]:
        packets = self._container.demux(self._stream)
        is_before_key = True
        while True:
            with _Messages() as messages:
                packet = next(packets, None)
                if packet is None:
                    return
                self._note_gaps(packet, messages)
                self._num_keys += packet.is_keyframe
                if is_before_key and packet.size:
                    if packet.is_keyframe:
                        is_before_key = False
                        self._first_key_tick = NO_TICK if packet.pts is None else packet.pts
                    elif is_after_jump:
                        continue  # some containers land between key frames: what comes out before one is not to be trusted
                self._beat()
                self._choose_skipping(packet)
                frames = self._frames_of(packet, messages)
            for frame in frames:
                if not self._request.has_stamps:
                    frame.pts, self._num_counted = self._num_counted, self._num_counted + 1
                if frame.key_frame:
                    self._error = None
                yield frame

    def _note_gaps(self, packet: av.Packet, messages: list[tuple[int, str, str]]) -> None:
        """A piece of the file that cannot be read, or says itself that it is not whole: the decoder may not notice what is
        missing."""
        if packet.is_corrupt or (messages and any(level <= av.logging.ERROR for level, _, _ in messages)):
            self._is_damaged, self._skips_unwanted = True, False

    def _choose_skipping(self, packet: av.Packet) -> None:
        """Nothing refers to a "nonref" frame, so leaving it out changes no other frame of a stream without damage."""
        if not self._request.has_stamps or packet.pts is None:
            return
        ticks = self._request.ticks
        number = int(np.searchsorted(ticks, packet.pts))
        is_wanted = number < len(ticks) and ticks[number] == packet.pts
        is_skipping = not is_wanted and self._skips_unwanted and self._may_skip
        self._is_straight &= not is_skipping
        skip = "NONREF" if is_skipping else "DEFAULT"
        if self._stream.codec_context.skip_frame != skip:
            self._stream.codec_context.skip_frame = skip

    def _frames_of(self, packet: av.Packet, messages: list[tuple[int, str, str]]) -> list[av.VideoFrame]:
        """What comes out for a packet. On the straight way an error is passed over, as players do it: the frame is lost."""
        num_before = len(messages)
        try:
            frames: list[av.VideoFrame] = packet.decode()
            if len(messages) > num_before and self._is_complaint(packet, messages[num_before:]):
                self._is_damaged, self._skips_unwanted = True, False
            return frames
        except MemoryError:  # no fault of the stream
            raise
        except av.error.FFmpegError as error:
            if (
                not self._is_straight or not self._request.has_stamps
            ):  # counted frames would be numbered wrongly from here on
                raise
            self._is_damaged, self._skips_unwanted = True, False
            if not packet.is_corrupt:  # cut off by the end of the file: the probe has not counted its frame either
                self._error = error
            return []

    def _is_complaint(self, packet: av.Packet, messages: list[tuple[int, str, str]]) -> bool:
        """Whether messages that were logged for this packet tell of damage, rather than of the jump to a whole stream."""
        if not self._is_straight and packet.pts is not None and packet.pts < self._first_key_tick:
            return False
        is_first_part = not self._is_straight and self._num_keys <= 1
        return any(
            (level <= av.logging.ERROR and not (is_first_part and text.startswith(FAULTS_OF_JUMPS)))
            or text.startswith(CONCEALING)
            for level, _, text in messages
        )

    def _jump(self, tick: int) -> None:
        """To the last key frame that is not after `tick`, or to the beginning where there is none."""
        self._ahead = None
        self._error = None
        self._num_since_base = 0
        self._num_keys = 0
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
        self._may_skip = self._stream.codec_context.codec.canonical_name not in NEVER_SKIPPED
        # AVI counts its frames instead of stamping them: where some are lost, those behind have other numbers after a jump.
        if self._container.format.name == "avi" and self._stream.frames not in (0, self._request.num_frames):
            self._trusts_jumps = False
        self._ahead = None
        self._error = None
        self._num_since_base = 0
        self._num_counted = 0
        self._first_key_tick = NO_TICK
        self._num_keys = 0
        self._is_straight = True
        self._frames = self._decoded()

    def _set_base(self, tick: int, number: int) -> None:
        self._base_tick, self._base_number, self._num_since_base = tick, number, 0

    def _failure(self, wanted: int) -> DecodeError:
        num_good = self._base_number + self._num_since_base
        reason = self._error.strerror if self._error is not None else "it never comes out of the decoder"
        return DecodeError(
            f"{self._request.path}: the frame at {self._request.pts_s[wanted]:.3f} s cannot be decoded: {reason}\n"
            f"{num_good} of {self._request.num_frames} frames are good. Repair or re-encode the file.",
            kind="decode",
            frames_decoded=num_good,
            frames_expected=self._request.num_frames,
        )
