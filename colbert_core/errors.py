"""The errors this package raises beside Python's own.

Wrong arguments are plain ``TypeError`` and ``ValueError``. What can go wrong outside the caller's code has a name here::

    ColBERTError
    ├── CheckpointError                  a model folder cannot be used as it is
    │   ├── CheckpointNotFoundError      the folder or one of its files is not there (also a FileNotFoundError)
    │   └── UnsupportedCheckpointError   a known format, or an unknown one, that this version does not read
    ├── EncoderMismatchError             an index was made with another encoder, or with none (also a ValueError)
    ├── StorageError                     an index on disk cannot do what was asked
    │   ├── IndexNotFoundError           there is no index at this path (also a FileNotFoundError)
    │   ├── IndexExistsError             there is something at this path already (also a FileExistsError)
    │   ├── DamagedIndexError            a file of the index is missing, cut short or changed
    │   ├── UnsupportedIndexError        a newer version of this package, or another library, wrote the index
    │   ├── IndexLockedError             another writer did not finish in time (also a TimeoutError)
    │   ├── ReadOnlyIndexError           the index can be searched but not changed here (also a PermissionError)
    │   └── IndexWriteError              the disk is full or failed; the index is as before (also an OSError)
    ├── PartialAddError                  an add of several batches failed after some of them were in
    ├── ClusterError                     machines that work together do not fit together
    │   ├── ClusterUnreachableError      nothing answers at this address (also a ConnectionError)
    │   └── ShardUnavailableError        no replica of a shard answered in time (also a TimeoutError)
    ├── ServiceError                     an HTTP service cannot do what a client asked
    │   ├── ServiceUnreachableError      nothing answers at this address, or the connection broke (also a ConnectionError)
    │   ├── ServiceTimeoutError          it did not answer in time (also a TimeoutError)
    │   ├── ServiceBusyError             it has more to do than it takes, again and again (also a TimeoutError)
    │   └── ServiceDeniedError           it wants a token, or another one (also a PermissionError)
    └── MissingExtraError                an optional package is not installed (also an ImportError)

A filter that asks for what no passage has is no error; it is a ``FilterWarning``, which ``warnings.simplefilter("error",
FilterWarning)`` makes one.
"""

from __future__ import annotations


class ColBERTError(Exception):
    """Base of every error that is neither a ``TypeError`` nor a ``ValueError``."""


class CheckpointError(ColBERTError):
    """A model folder is damaged, or its parts do not belong together."""


class CheckpointNotFoundError(CheckpointError, FileNotFoundError):
    """A model folder, or a file it must hold, is not where it was looked for."""


class UnsupportedCheckpointError(CheckpointError):
    """The checkpoint is in a format that this version does not read."""


class EncoderMismatchError(ColBERTError, ValueError):
    """The vectors of an index come from another encoder than the one at hand, or no encoder is known for it."""


class StorageError(ColBERTError):
    """An index on disk cannot do what was asked; what it held before, it still holds."""


class IndexNotFoundError(StorageError, FileNotFoundError):
    """There is no index at this path."""


class IndexExistsError(StorageError, FileExistsError):
    """An index, or something else, is at this path already."""


class DamagedIndexError(StorageError):
    """A file of the index is missing, cut short, or not what was written."""


class UnsupportedIndexError(StorageError):
    """The index is in a format that this version does not read."""


class IndexLockedError(StorageError, TimeoutError):
    """Another writer held the index for longer than this one was ready to wait."""


class ReadOnlyIndexError(StorageError, PermissionError):
    """The folder of the index cannot be written to, so the index can only be searched."""


class IndexWriteError(StorageError, OSError):
    """The disk is full or failed while the index was written."""


class PartialAddError(ColBERTError):
    """An ``add`` failed after some of its batches had been committed; the cause is its ``__cause__``.

    Attributes:
        added: ids of the passages of this call that are in the index, in the order given.
    """

    def __init__(self, message: str, added: list[str]) -> None:
        super().__init__(message)
        self.added = added

    def __reduce__(self) -> tuple[type[PartialAddError], tuple[str, list[str]]]:
        return type(self), (str(self), self.added)


class ClusterError(ColBERTError):
    """The machines of a Ray cluster do not fit together, or cannot do what was asked."""


class ClusterUnreachableError(ClusterError, ConnectionError):
    """No Ray cluster, or no storage, answers at this address."""


class ShardUnavailableError(ClusterError, TimeoutError):
    """Every replica of a shard is down, or did not answer in time.

    Attributes:
        shards: which ones, by number.
    """

    def __init__(self, message: str, shards: list[int]) -> None:
        super().__init__(message)
        self.shards = shards

    def __reduce__(self) -> tuple[type[ShardUnavailableError], tuple[str, list[int]]]:
        return type(self), (str(self), self.shards)


class ServiceError(ColBERTError):
    """An HTTP service cannot do what a client asked for. What goes wrong with its index has the error of the index."""


class ServiceUnreachableError(ServiceError, ConnectionError):
    """No service answers at this address, or the connection to it broke."""


class ServiceTimeoutError(ServiceError, TimeoutError):
    """A service did not answer in the time that the client gave it; it may still be at work."""


class ServiceBusyError(ServiceError, TimeoutError):
    """A service has more to do than it takes, and still had when it was asked again."""


class ServiceDeniedError(ServiceError, PermissionError):
    """A service wants a token, or the one it was given may not do this."""


class MissingExtraError(ColBERTError, ImportError):
    """An optional dependency is needed for this and is not installed."""


class FilterWarning(UserWarning):
    """A filter asks for a field that no passage has, or compares one with a type that none of its values has.

    It is said once for each field and type, as long as an index is open.
    """
