"""qle: Query, Localize, Explain. Importing it loads neither torch nor a video library."""

from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

if TYPE_CHECKING:
    from qle.cache.reader import open_cache as open_cache

__all__ = ["__version__", "open_cache"]


def __getattr__(name: str) -> Any:
    if name == "open_cache":
        from qle.cache.reader import open_cache

        return open_cache
    raise AttributeError(f"module 'qle' has no attribute {name!r}")
