"""Labels and their numbers: those of the training data, and no others."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from minilm.errors import DataError

SHOWN = 20  # labels in an error's line


class LabelMap:
    """The labels 0 .. K - 1 by name. Errors: DataError for none, or for one that is there twice."""

    def __init__(self, names: Iterable[str]) -> None:
        self.names = tuple(names)
        self._ids = {name: i for i, name in enumerate(self.names)}
        if not self.names:
            raise DataError("LabelMap: there are no labels")
        if len(self._ids) != len(self.names):
            raise DataError(f"LabelMap: a label is there twice in {', '.join(self.names)}")

    @classmethod
    def of(cls, labels: Iterable[str]) -> LabelMap:
        """All labels that occur, sorted: as numbers where all are whole numbers, else by code points."""
        found = set(labels)
        numbers = all(map(_whole, found))
        return cls(sorted(found, key=lambda label: (int(label) if numbers else 0, label)))

    @classmethod
    def from_config(cls, id2label: Mapping[Any, str]) -> LabelMap:
        """From the "id2label" of a config.json. Errors: DataError unless its numbers are 0, 1, 2, ..."""
        try:
            by_id = {int(i): name for i, name in id2label.items()}
        except ValueError:
            by_id = {}
        if sorted(by_id) != list(range(len(by_id))) or not by_id:
            raise DataError(f"id2label does not number its labels 0, 1, 2, ...: {', '.join(map(str, id2label))}")
        return cls(by_id[i] for i in range(len(by_id)))

    @property
    def id2label(self) -> dict[int, str]:
        """Each number's label, as config.json has it."""
        return dict(enumerate(self.names))

    @property
    def label2id(self) -> dict[str, int]:
        """Each label's number."""
        return dict(self._ids)

    def id(self, label: str, where: str) -> int:
        """The number of a label. Errors: DataError for another label than those of training, beginning with `where`."""
        try:
            return self._ids[label]
        except KeyError:
            more = f" and {len(self) - SHOWN} more" if len(self) > SHOWN else ""
            known = ", ".join(self.names[:SHOWN]) + more
            raise DataError(f"{where}: the label {label!r} is none of training's: {known}") from None

    def __len__(self) -> int:
        return len(self.names)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, LabelMap) and self.names == other.names

    def __hash__(self) -> int:
        return hash(self.names)

    def __repr__(self) -> str:
        return f"LabelMap({', '.join(self.names[:SHOWN])}{', ...' if len(self) > SHOWN else ''})"


def class_weights(ids: Sequence[int] | NDArray[np.integer[Any]], labels: LabelMap) -> NDArray[np.float32]:
    """Weights (K,) for the loss that count each class alike: N / (K * its number of examples), mean 1 over examples.

    Labels below 0 (-100: no label here) are not counted. Errors: DataError for a class without an example.

    Source: King & Zeng 2001; scikit-learn's class_weight="balanced".
    """
    array = np.asarray(ids).reshape(-1)
    counts = np.bincount(array[array >= 0], minlength=len(labels))
    for name, count in zip(labels.names, counts):
        if not count:
            raise DataError(f"class_weights: no example has the label {name!r}, so it has no weight")
    return (counts.sum() / (len(labels) * counts)).astype(np.float32)


def _whole(label: str) -> bool:
    return label.isascii() and label.removeprefix("-").isdigit()
