"""Whether the backbones that uncached videos need are to be had, asked before anything large is imported.

RunRecord + LocalizeRequest -> nothing, or ConfigError for a model that is neither on this machine nor on the hub
"""

from pathlib import Path

from qle.hub import check_available
from qle.localize.request import LocalizeRequest
from qle.runs.record import RunRecord


def check_backbones(record: RunRecord, request: LocalizeRequest) -> None:
    """For videos that surely must be extracted, since there is no cache that could hold them. Files and folders are looked at
    later, where they are opened."""
    if not request.videos or request.cache is not None:
        return
    for number, use in enumerate(record.spaces):
        backbone = use.hashed.get("backbone")
        is_of_library = isinstance(backbone, dict) and str(backbone.get("id")).startswith("hf-")
        given = request.weights[min(number, len(request.weights) - 1)] if request.weights else use.backbone_source
        if is_of_library and given is not None and not Path(given).is_absolute():
            check_available(given)
