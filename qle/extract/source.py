"""Which bytes a video is. The function lives in the cache, whose resume asks the same question as a run."""

from qle.cache.sources import EDGE_BYTES, fingerprint

__all__ = ["EDGE_BYTES", "fingerprint"]
