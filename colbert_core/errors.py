"""The errors this package raises beside Python's own.

Wrong arguments are plain ``TypeError`` and ``ValueError``. What can go wrong outside the caller's code has a name here::

    ColBERTError
    ├── CheckpointError                  a model folder cannot be used as it is
    │   ├── CheckpointNotFoundError      the folder or one of its files is not there (also a FileNotFoundError)
    │   └── UnsupportedCheckpointError   a known format, or an unknown one, that this version does not read
    └── MissingExtraError                an optional package is not installed (also an ImportError)
"""


class ColBERTError(Exception):
    """Base of every error that is neither a ``TypeError`` nor a ``ValueError``."""


class CheckpointError(ColBERTError):
    """A model folder is damaged, or its parts do not belong together."""


class CheckpointNotFoundError(CheckpointError, FileNotFoundError):
    """A model folder, or a file it must hold, is not where it was looked for."""


class UnsupportedCheckpointError(CheckpointError):
    """The checkpoint is in a format that this version does not read."""


class MissingExtraError(ColBERTError, ImportError):
    """An optional dependency is needed for this and is not installed."""
