"""Every error that qle raises on purpose, in one tree.

    QleError                    a message for the user: what, where, got and expected, what to run next (three lines at most)
    |- ConfigError              a flag, preset or config value is wrong                              exit 2
    |- InputError               a path or manifest that the user named is missing or unusable        exit 3
    |- DecodeError              one video cannot be read as asked                                    exit 3
    |- AnnotationError          a row of an annotation file is wrong                                 exit 3
    |- CacheError               the cache is not what it should be                                   exit 3
    |  |- CacheMissingError     no such cache, space or video
    |  |- CacheMismatchError    another space, format or source than asked for
    |  `- CacheCorruptError     bytes on disk differ from the commit record
    |- CheckpointError          a weights file does not fit the model, or is unsafe to load          exit 3
    |- TrainingError            a training cannot go on                                            exit 3
    `- MissingDependencyError   an optional package is needed                                        exit 2

Anything else that escapes is a bug of qle (exit 1).
"""

import errno

REFUSED = frozenset({errno.EMFILE, errno.ENFILE, errno.EAGAIN, errno.ENOMEM})
"""What a system refuses to a process for want of handles, threads or memory: it says nothing of the file that was asked for."""


class QleError(Exception):
    """Base of all expected errors; `exit_code` is what the command line ends with."""

    exit_code = 3


class ConfigError(QleError):
    """A flag, preset or config value is wrong."""

    exit_code = 2


class InputError(QleError):
    """A path or manifest that the user named is missing or unusable."""


class DecodeError(QleError):
    """One video cannot be read as asked. `kind` is the class that errors.jsonl records."""

    def __init__(
        self,
        message: str,
        *,
        kind: str = "decode",
        frames_decoded: int | None = None,
        frames_expected: int | None = None,
    ) -> None:
        super().__init__(message)
        self.kind = kind
        self.frames_decoded = frames_decoded
        self.frames_expected = frames_expected


class AnnotationError(QleError):
    """A row of an annotation file is wrong."""


class CacheError(QleError):
    """The cache is not what it should be."""


class CacheMissingError(CacheError):
    """No such cache, space or video."""


class CacheMismatchError(CacheError):
    """Another space, format or source than asked for."""


class CacheCorruptError(CacheError):
    """Bytes on disk differ from the commit record."""


class CheckpointError(QleError):
    """A weights file does not fit the model, or is unsafe to load."""


class TrainingError(QleError):
    """A training cannot go on."""


class MissingDependencyError(QleError, ImportError):
    """An optional package is needed."""

    exit_code = 2
