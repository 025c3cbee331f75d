"""The few things that PyTorch's programs call or give otherwise than minilm has them.

Each takes PyTorch's arguments and hands on to minilm; what changes nothing here (to wait for a GPU, to lock memory) is
dropped, and what would change the numbers is refused.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, Generic, TypeVar

import numpy as np

import minilm as ml
from minilm import data, random, serialization
from minilm.data.dataset import random_split as _random_split
from minilm.errors import ConfigError, MinilmError
from minilm.tensor import Tensor

T_co = TypeVar("T_co", covariant=True)


# --- tensors --------------------------------------------------------------------------------------


class _TensorKind(type):
    """The class of `torch.Tensor`, `torch.LongTensor` ...: to ask about tensors, and to make one by a call."""

    dtype: Any = None

    def __call__(cls, *given: Any, device: Any = None) -> Tensor:
        """`torch.Tensor(2, 3)` is uninitialised memory of that shape; `torch.Tensor([1, 2])` holds these numbers."""
        dtype = cls.dtype or ml.get_default_dtype()
        if all(isinstance(n, (int, np.integer)) for n in given):
            return ml.empty(given or (0,), dtype=dtype, device=device)
        (values,) = given
        return ml.tensor(values, dtype=dtype, device=device)

    def __instancecheck__(cls, value: Any) -> bool:
        return isinstance(value, Tensor) and (cls.dtype is None or value.dtype == cls.dtype)

    def __subclasscheck__(cls, kind: type) -> bool:
        return issubclass(kind, Tensor)

    def __getattr__(cls, name: str) -> Any:
        return getattr(Tensor, name)


def typed_tensor(dtype: Any) -> type:
    """What PyTorch's `Tensor` (dtype None), `FloatTensor`, `LongTensor` ... are."""
    name = "Tensor" if dtype is None else f"Tensor of {dtype}"
    return _TensorKind(name, (), {"dtype": dtype, "__doc__": "See _TensorKind."})


class AbsentType:
    """An element type that minilm has not: it can be named, and whoever uses it gets a DtypeError."""

    def __init__(self, name: str) -> None:
        self.name = name

    def __repr__(self) -> str:
        return self.name


def is_tensor(value: Any) -> bool:
    """Whether it is a tensor."""
    return isinstance(value, Tensor)


def sized(function: Callable[..., Tensor]) -> Callable[..., Tensor]:
    """`function(2, 3)` that takes `size=(2, 3)` too, and what only says where memory lies."""

    def made(*size: Any, **options: Any) -> Tensor:
        if "size" in options:
            size = (*size, options.pop("size"))
        for name in ("layout", "pin_memory", "memory_format"):
            options.pop(name, None)
        return function(*size, **options)

    made.__name__, made.__doc__ = function.__name__, function.__doc__
    return made


def normal(mean: Any, std: Any = 1.0, size: Any = None, generator: Any = None) -> Tensor:
    """Normal numbers with these means and deviations: tensors that broadcast, or numbers and a size."""
    if size is None:
        size = np.broadcast_shapes(*(getattr(value, "shape", ()) for value in (mean, std)))
    return ml.randn(size, generator=generator) * std + mean


def variable(value: Tensor, requires_grad: bool = False) -> Tensor:
    """A tensor: since PyTorch 0.4 there is no difference."""
    return value.requires_grad_() if requires_grad else value


class Generator(ml.Generator):
    """A source of random numbers: `torch.Generator().manual_seed(seed)`."""

    def __init__(self, device: Any = "cpu") -> None:
        ml.device(device)
        super().__init__()


# --- files ----------------------------------------------------------------------------------------


def save(value: Any, f: Any) -> None:
    """Write a state_dict as safetensors. Errors: ConfigError for anything else, since minilm pickles nothing."""
    if not isinstance(value, Mapping) or not all(isinstance(t, (Tensor, np.ndarray)) for t in value.values()):
        raise ConfigError(
            "torch.save: minilm writes a dict of tensors, such as model.state_dict(), and nothing else: no pickles"
        )
    serialization.save(value, f)


def load(f: Any, map_location: Any = None, weights_only: bool = True) -> dict[str, Tensor]:
    """Read what `save` wrote. Errors: CheckpointError for other files, PyTorch's own among them."""
    return serialization.load(f)


# --- what makes PyTorch faster, or needs a GPU ------------------------------------------------------


def nothing(*_: Any, **__: Any) -> None:
    """Do nothing: a switch of PyTorch's that has no counterpart, and no effect on any number."""


def false() -> bool:
    """No."""
    return False


def zero() -> int:
    """None at all."""
    return 0


def compile(model: Any = None, **_: Any) -> Any:  # noqa: A001 - PyTorch's name
    """The model (or function) unchanged; also as a decorator, with or without arguments."""
    return model if model is not None else lambda function: function


class Autocast(contextlib.ContextDecorator):
    """Inside everything is computed as outside: on a CPU of minilm's there is no lower precision to go to."""

    def __init__(self, *_: Any, **__: Any) -> None:
        """Takes PyTorch's arguments: device_type, dtype, enabled, cache_enabled."""

    def __enter__(self) -> Autocast:
        return self

    def __exit__(self, *_: object) -> None:
        """Nothing is to be put back."""


class GradScaler:
    """PyTorch's scaler of losses as it is without a GPU: switched off, so that everything passes through."""

    def __init__(self, *_: Any, **__: Any) -> None:
        """Takes PyTorch's arguments."""

    def scale(self, loss: Any) -> Any:
        """The loss itself."""
        return loss

    def unscale_(self, optimizer: Any) -> None:
        """Gradients were not scaled."""

    def step(self, optimizer: Any) -> Any:
        """The optimiser's step."""
        return optimizer.step()

    def update(self) -> None:
        """There is no scale."""

    def is_enabled(self) -> bool:
        """No."""
        return False


def absent(name: str, why: str) -> type:
    """A class that can be imported and named, and says when it is called that minilm has it not, and why."""

    def refuse(*_: Any, **__: Any) -> Any:
        raise MinilmError(f"minilm has no {name}: {why}")

    return type(name.rpartition(".")[2], (), {"__new__": refuse, "__doc__": f"minilm has no {name}: {why}."})


# --- optimisers -----------------------------------------------------------------------------------

FASTER = ("fused", "foreach")  # the same numbers, sooner
UNKNOWN = ("amsgrad", "maximize", "centered", "capturable", "differentiable", "decoupled_weight_decay")


def without(kind: type) -> type:
    """An optimiser that takes the options which PyTorch's has beside minilm's, as long as they change nothing."""

    def start(self: Any, params: Iterable[Any], *settings: Any, **options: Any) -> None:
        for name in FASTER:
            options.pop(name, None)
        asked = [name for name in UNKNOWN if options.pop(name, False)]
        if asked:
            raise ConfigError(f"{kind.__name__}: minilm has no {', '.join(asked)}")
        kind.__init__(self, params, *settings, **options)  # type: ignore[misc]

    return type(kind.__name__, (kind,), {"__init__": start, "__doc__": kind.__doc__, "__module__": kind.__module__})


# --- data -----------------------------------------------------------------------------------------


class Sampler(Generic[T_co]):
    """Base of samplers: a subclass says in which order items come (`__iter__`) and how many (`__len__`)."""

    def __init__(self, data_source: Any = None) -> None:
        """PyTorch's argument is for subclasses alone."""

    def __iter__(self) -> Iterator[T_co]:
        raise NotImplementedError(f"{type(self).__name__} has no __iter__")


class DataLoader(data.DataLoader):
    """minilm's DataLoader with PyTorch's arguments. Workers are threads, so nothing is said to or about processes."""

    def __init__(
        self,
        dataset: Any,
        batch_size: int = 1,
        shuffle: bool | None = None,
        sampler: Any = None,
        batch_sampler: Any = None,
        num_workers: int = 0,
        collate_fn: Any = None,
        pin_memory: bool = False,
        drop_last: bool = False,
        timeout: float = 0,
        worker_init_fn: Any = None,
        multiprocessing_context: Any = None,
        generator: Any = None,
        *,
        prefetch_factor: int | None = None,
        persistent_workers: bool = False,
        pin_memory_device: str = "",
        in_order: bool = True,
    ) -> None:
        super().__init__(
            dataset,
            batch_size,
            bool(shuffle),
            sampler,
            batch_sampler,
            num_workers,
            collate_fn,
            drop_last,
            seed=_drawn_seed(generator) if shuffle else 0,
            prefetch_factor=prefetch_factor or 2,
        )
        self.batch_size, self.drop_last = batch_size, drop_last


def random_split(dataset: Any, lengths: Sequence[Any], generator: Any = None) -> list[Any]:
    """Deal a dataset's items at random into parts; another seed of the generator deals otherwise."""
    return list(_random_split(dataset, lengths, seed=_drawn_seed(generator)))


def _drawn_seed(generator: Any) -> int:
    """A seed drawn from the generator, so that `torch.manual_seed` decides the order of items."""
    high, low = (generator or random.default_generator).bits(2)
    return int(high) << 32 | int(low)
