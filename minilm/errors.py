"""Every exception that minilm raises on purpose, and when.

Each derives from the built-in class that a Python reader would expect, so that
`except ValueError` keeps working; each message carries the numbers.
"""

from __future__ import annotations


class MinilmError(Exception):
    """Base of all of them: `except MinilmError` catches what this library refuses."""


class ShapeError(MinilmError, ValueError):
    """Shapes do not fit: says which operation, the shapes, and the two numbers that differ."""


class DtypeError(MinilmError, TypeError):
    """An element type that the operation has no meaning for."""


class AutogradError(MinilmError, RuntimeError):
    """A gradient was asked for that cannot be given: no graph, a freed graph, an overwritten value."""


class AnomalyError(MinilmError, RuntimeError):
    """`detect_anomaly()` saw a NaN or an infinity being born; the message says where."""


class DeviceError(MinilmError, RuntimeError):
    """A device that is not here; the message says what is missing."""


class MissingTorchError(MinilmError, ImportError):
    """What was asked for compares with PyTorch, or makes its tensors, and it is not installed."""


class MissingExtraError(MinilmError, ImportError):
    """What was asked for needs an optional package that is not installed; the message says which extra brings it."""


class BackendError(MinilmError, RuntimeError):
    """A kernel backend that was asked for by name cannot serve; the message says why."""


class ModuleError(MinilmError, RuntimeError):
    """A module cannot take what it is given: a state that does not fit, a name that is taken."""


class ConfigError(MinilmError, ValueError):
    """A configuration with an unknown key or an impossible value."""


class DataError(MinilmError, ValueError):
    """A corpus, token file or tokenizer file that cannot be used; the message names the file."""


class CheckpointError(MinilmError, ValueError):
    """A checkpoint that is missing, truncated or does not fit the model; the message names the file."""


class DamagedError(CheckpointError):
    """A checkpoint whose contents are not those that were written."""


class LockedError(MinilmError, RuntimeError):
    """A folder that another process is using."""
