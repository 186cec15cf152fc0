"""What a video file holds, found by reading its packets and decoding one frame.

    path --probe--> VideoInfo (display time of every frame, key frames, size, rotation, fingerprint), or DecodeError

Headers lie: about the rate (an average), the count (edit lists hide frames), the length (a copy that broke off keeps its
header). So all packets of the video stream are read once; that costs disk time but no decoding, and numbers are kept in flat
arrays, 17 bytes a frame, since ten hours at 30 fps are a million packets.
"""

import errno
from array import array
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path

import av
import av.container
import av.error
import av.stream
import av.video
import numpy as np

from qle.cache.sources import fingerprint
from qle.errors import PASSING, REFUSED, DecodeError, InputError
from qle.extract.decode.decoder import no_beat
from qle.types import SourceFingerprint, VideoInfo

LEFT_OVER = 0.02
"""A file that ends this share before its declared length broke off; less is rounding, or a stream that ends earlier."""
LEFT_OVER_S = 0.25
"""The same for files of a few seconds."""
_PASSING_ERRORS = frozenset({errno.EIO, errno.ESTALE}) | REFUSED
"""What a disk or system answers that says nothing of the file."""


@dataclass(slots=True)
class _Packets:
    """The video stream as stored, in decoding order."""

    ticks: "array[int]" = field(default_factory=lambda: array("q"))
    durations: "array[int]" = field(default_factory=lambda: array("q"))
    is_key: bytearray = field(default_factory=bytearray)
    num_hidden: int = 0
    """Needed for decoding but never shown (edit lists)."""
    num_corrupt: int = 0
    """Cut off by the end of the file, or marked as damaged."""
    has_stamps: bool = True
    """Every packet says when its frame is shown."""
    first_frame: av.VideoFrame | None = None
    """What comes out of the decoder first: true size, format and rotation."""
    first_error: str = "no frame comes out"
    is_tried: bool = False
    """The first frame has come, or will not."""
    ends: dict[int, int] = field(default_factory=dict)
    """Stream number -> tick where its last packet ends; kept for containers that declare one length for all."""

    @property
    def num_stored(self) -> int:
        return len(self.ticks) + self.num_hidden


def probe(path: Path, beat: Callable[[], None] = no_beat, *, keep_partial: bool = False) -> VideoInfo:
    """All that is known about a video before its frames are wanted. `beat` is called on every packet.

    A file that broke off fails, as its rows would silently end too early; `keep_partial` takes what is there and says so.
    """
    print_of_file = _fingerprint(path)
    with open_video(path) as (container, stream):
        packets = _read_packets(container, stream, beat)
        expected = _frames_expected(container, stream, packets)
        if expected is not None and not keep_partial:
            raise _truncated(path, packets, expected)
        _distrust_invented_stamps(container, stream, packets)
        codec, declared = stream.codec_context.codec.canonical_name, int(stream.frames)
        time_base, rate = Fraction(stream.time_base or 0), stream.average_rate
    first = _first_frame(path, packets)
    ticks, is_key, last_duration = _in_display_order(packets)
    if packets.has_stamps:
        # A recording cut out of a longer one may begin with frames that refer to others before the cut: nobody shows them.
        shown = int(np.searchsorted(ticks, first.pts))
        ticks, is_key = ticks[shown:], is_key[shown:]
    else:
        is_key = np.arange(len(ticks)) == 0
    pts_s = ticks * (time_base.numerator / time_base.denominator)
    rotation = -round(first.rotation / 90) * 90 % 360  # the container's angle counts counter-clockwise
    width, height = (first.width, first.height) if rotation in (0, 180) else (first.height, first.width)
    return VideoInfo(
        path=path,
        fingerprint=print_of_file,
        codec=codec,
        pixel_format=first.format.name,
        width=width,
        height=height,
        rotation=rotation,
        time_base=time_base,
        pts_s=pts_s,
        is_key=is_key,
        end_s=float(pts_s[-1]) + _last_duration_s(pts_s, last_duration * float(time_base), rate),
        has_edit_list=packets.num_hidden > 0,
        declared_frames=declared,
        has_stamps=packets.has_stamps,
        frames_expected=expected,
    )


@contextmanager
def open_video(path: Path) -> Iterator[tuple[av.container.InputContainer, av.video.VideoStream]]:
    """The container and its best video stream, closed at the end; one decoding thread, since workers are processes."""
    try:
        # An absolute path cannot be taken for a protocol ("a:b.mp4"), and only files are opened, whatever a playlist says.
        container = av.open(str(path.absolute()), options={"protocol_whitelist": "file"}, metadata_errors="ignore")
    except MemoryError:
        raise
    except (av.error.FFmpegError, OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise DecodeError(f"{path} cannot be opened as a video: {reason}", kind="open") from error
    try:
        stream = _best_stream(path, container)
        stream.thread_count = 1
        yield container, stream
    finally:
        container.close()


def _best_stream(path: Path, container: av.container.InputContainer) -> av.video.VideoStream:
    """The stream that a player would choose; cover pictures of audio files are not video."""
    cover = av.stream.Disposition.attached_pic
    streams = [stream for stream in container.streams.video if not stream.disposition & cover]
    if not streams:
        kinds = ", ".join(sorted({stream.type for stream in container.streams})) or "nothing"
        raise DecodeError(f"{path} has no video stream, it holds: {kinds}", kind="no-video")
    best = container.streams.best("video")
    stream = best if best in streams else max(streams, key=lambda stream: stream.width * stream.height)
    if stream.codec_context is None:
        raise DecodeError(f"{path}: no decoder for its video codec is built in", kind="open")
    return stream


def _read_packets(
    container: av.container.InputContainer, stream: av.video.VideoStream, beat: Callable[[], None]
) -> _Packets:
    packets = _Packets()
    # The length that Matroska declares is that of its longest stream: all are followed to see whether the file goes that far.
    follows_all = _is_matroska(container)
    streams = [s for s in container.streams if s.type in ("video", "audio")] if follows_all else [stream]
    ends, index = packets.ends, stream.index
    try:
        for packet in container.demux(*streams):
            beat()
            stream_index = packet.stream_index
            if stream_index == index and not packets.is_tried:
                _try_first_frame(packets, packet)
            if packet.size == 0:
                continue  # the end marker
            if follows_all and (pts := packet.pts) is not None:
                ends[stream_index] = max(ends.get(stream_index, pts), pts + (packet.duration or 0))
            if stream_index == index:
                _note(packets, packet)
    except MemoryError:
        raise
    except av.error.FFmpegError:
        packets.num_corrupt += 1  # reading stops here: what came before is judged like a file that broke off
    return packets


def _try_first_frame(packets: _Packets, packet: av.Packet) -> None:
    """In passing, because opening a long file twice takes its index into memory twice."""
    try:
        frames = packet.decode()
        packets.first_frame = frames[0] if frames else None
        packets.is_tried = bool(frames)
    except MemoryError:
        raise
    except av.error.FFmpegError as error:
        packets.is_tried, packets.first_error = True, error.strerror


def _note(packets: _Packets, packet: av.Packet) -> None:
    if packet.is_corrupt:
        packets.num_corrupt += 1
        return
    tick = packet.pts
    if tick is None:
        packets.has_stamps = False
        tick = packet.dts if packet.dts is not None else len(packets.ticks) * (packet.duration or 1)
    if packet.is_discard:
        packets.num_hidden += 1
        return
    packets.ticks.append(tick)
    packets.durations.append(packet.duration or 0)
    packets.is_key.append(packet.is_keyframe)


def _is_matroska(container: av.container.InputContainer) -> bool:
    return "matroska" in container.format.name


def _frames_expected(
    container: av.container.InputContainer, stream: av.video.VideoStream, packets: _Packets
) -> int | None:
    """How many frames a file should have that broke off while it was copied or recorded; None for a whole one."""
    expected = packets.num_stored + packets.num_corrupt
    if "mp4" in container.format.name:
        expected = max(
            expected, len(stream.index_entries)
        )  # of samples that the edit list leaves, not of all in the header
    elif stream.frames and packets.num_stored < stream.frames * (1 - LEFT_OVER) - 1:
        expected = int(stream.frames)
    elif _is_matroska(container) and container.duration:
        declared_s = container.duration / av.time_base
        end_s = max((float(end * container.streams[i].time_base) for i, end in packets.ends.items()), default=0.0)
        if end_s < declared_s * (1 - LEFT_OVER) - LEFT_OVER_S:
            expected = max(expected + 1, round(packets.num_stored * declared_s / max(end_s, 1e-3)))
    return expected if packets.num_stored < expected else None


def _truncated(path: Path, packets: _Packets, expected: int) -> DecodeError:
    return DecodeError(
        f"{path} is truncated: {packets.num_stored} of {expected} frames are there. Copy or record it again,\n"
        "or take what is there, marked as partial: --keep-partial",
        kind="truncated",
        frames_decoded=packets.num_stored,
        frames_expected=expected,
    )


def _distrust_invented_stamps(
    container: av.container.InputContainer, stream: av.video.VideoStream, packets: _Packets
) -> None:
    """AVI keeps no display times. The demuxer makes some up, in the order of decoding, unless it can parse the codec."""
    if container.format.name == "avi" and stream.codec_context.has_b_frames:
        packets.has_stamps &= bool((np.diff(np.frombuffer(packets.ticks, np.int64)) < 0).any())


def _first_frame(path: Path, packets: _Packets) -> av.VideoFrame:
    num_frames = len(packets.ticks)
    if num_frames and packets.first_frame is not None:
        return packets.first_frame
    raise DecodeError(
        f"{path}: the first frame cannot be decoded: {packets.first_error}"
        if num_frames
        else f"{path}: the video stream holds no frame",
        kind="decode" if num_frames else "no-video",
        frames_decoded=0,
        frames_expected=num_frames,
    )


def _in_display_order(packets: _Packets) -> tuple[np.ndarray, np.ndarray, int]:
    """Stamps strictly increasing, key flags in the same order, duration of the last."""
    ticks = np.frombuffer(packets.ticks, np.int64)
    unique, index = np.unique(ticks, return_index=True)
    is_key = np.frombuffer(packets.is_key, np.uint8)[index].astype(bool)
    return unique, is_key, packets.durations[int(index[-1])]


def _last_duration_s(pts_s: np.ndarray, declared_s: float, rate: Fraction | None) -> float:
    """How long the last frame stays: as the container says, else as long as its neighbours, else by the average rate."""
    if declared_s > 0:
        return declared_s
    if len(pts_s) > 1:
        return float(np.median(np.diff(pts_s[-9:])))
    return float(1 / rate) if rate else 0.0


def _fingerprint(path: Path) -> SourceFingerprint:
    try:
        return fingerprint(path)
    except InputError as error:
        is_passing = isinstance(error.__cause__, OSError) and error.__cause__.errno in _PASSING_ERRORS
        raise DecodeError(str(error), kind=PASSING if is_passing else "open") from error
