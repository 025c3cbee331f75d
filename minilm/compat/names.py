"""The table: where each of PyTorch's modules finds its names in minilm, and what is called or given otherwise.

A name that minilm has too is found by itself (`Place.parts`). Only differences stand here, by name, with the code that
makes one of the other in `adapters.py`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import ModuleType
from typing import Any

import numpy as np

import minilm as ml
from minilm import creation, dtypes, nn, ops, optim, random
from minilm.compat import adapters
from minilm.data import collate, dataset, sampler
from minilm.nn import functional, init
from minilm.ops import derived, joining
from minilm.optim import clip, lr_scheduler

# What `minilm` itself exports and PyTorch has not, or has as something else.
OURS = frozenset(
    ("MinilmError", "bool_", "data", "evaluation", "generation", "kernels", "models", "ops", "testing", "text", "train",
     "nn", "optim", "autograd", "random", "device", "Item", "RandomBatchSampler", "undrawn",
     *ml._LAZY_FROM)
)  # fmt: skip
# Operations whose registered form takes its arguments in another order than PyTorch's function of that name, and those
# that PyTorch has as methods alone.
INNER = frozenset(
    ("cat", "stack", "einsum", "gather", "scatter", "scatter_add", "index_add", "index_select", "index_fill",
     "multinomial", "expand", "expand_as", "gelu", "leaky_relu", "repeat", "reshape_as", "silu", "view", "view_as")
)  # fmt: skip


@dataclass(frozen=True)
class Place:
    """Where the names of one module are found.

    Attributes:
        doc: the module's docstring.
        parts: the parts of minilm that are searched, in this order.
        differences: names that are called or given otherwise.
        operations: whether the operations that are methods of Tensor count too.
    """

    doc: str
    parts: tuple[ModuleType, ...] = ()
    differences: Mapping[str, Any] = field(default_factory=dict)
    operations: bool = False

    def find(self, name: str) -> Any:
        """The value of a name. Errors: LookupError."""
        if name in self.differences:
            return self.differences[name]
        for part in self.parts:
            if name in exported(part):
                return getattr(part, name)
        if self.operations and name in OPERATIONS:
            return ops.get(name).apply
        raise LookupError(name)

    def names(self) -> set[str]:
        """Every name that is there."""
        own = {name for part in self.parts for name in exported(part)}
        return own | set(self.differences) | (set(OPERATIONS) if self.operations else set())


def exported(part: ModuleType) -> set[str]:
    """The public names of a part of minilm that PyTorch could have too."""
    known = getattr(part, "__all__", None)
    if known is None:  # what the module itself defines
        known = [n for n, v in vars(part).items() if getattr(v, "__module__", "") == part.__name__]
    return {n for n in known if not n.startswith("_")} - OURS


OPERATIONS = frozenset(op.name for op in ops.all() if op.methods) - INNER

DTYPES = {
    "float": dtypes.float32,
    "double": dtypes.float64,
    "half": dtypes.float16,
    "short": dtypes.int16,
    "int": dtypes.int32,
    "long": dtypes.int64,
    "bool": dtypes.bool_,
    "dtype": np.dtype,
    "bfloat16": adapters.AbsentType("bfloat16"),
    "finfo": np.finfo,
    "iinfo": np.iinfo,
}
TENSORS = {
    "Tensor": adapters.typed_tensor(None),
    "FloatTensor": adapters.typed_tensor(dtypes.float32),
    "DoubleTensor": adapters.typed_tensor(dtypes.float64),
    "LongTensor": adapters.typed_tensor(dtypes.int64),
    "IntTensor": adapters.typed_tensor(dtypes.int32),
    "BoolTensor": adapters.typed_tensor(dtypes.bool_),
    "ByteTensor": adapters.typed_tensor(dtypes.uint8),
}
AMP = {"autocast": adapters.Autocast, "GradScaler": adapters.GradScaler}

RANDOM = {n: getattr(random, n) for n in ("manual_seed", "seed", "initial_seed", "get_rng_state", "set_rng_state")}

TORCH: dict[str, Any] = {
    **DTYPES,
    **TENSORS,
    **{n: getattr(np, n) for n in ("inf", "nan", "pi", "e")},
    **{n: adapters.sized(getattr(ml, n)) for n in ("zeros", "ones", "empty", "rand", "randn")},
    "device": ml.device,
    "Size": tuple,
    "Generator": adapters.Generator,
    "default_generator": random.default_generator,
    **RANDOM,
    "normal": adapters.normal,
    "is_tensor": adapters.is_tensor,
    "is_floating_point": ml.Tensor.is_floating_point,
    "numel": ml.Tensor.numel,
    "concat": ml.cat,
    "concatenate": ml.cat,
    "clip": ml.clamp,
    "hstack": joining.hstack,
    "vstack": joining.vstack,
    "meshgrid": joining.meshgrid,
    "unique": derived.unique,
    "bincount": derived.bincount,
    "index_fill": derived.index_fill,
    "tril_indices": creation.tril_indices,
    "triu_indices": creation.triu_indices,
    "true_divide": ml.div,
    "divide": ml.div,
    "multiply": ml.mul,
    "subtract": ml.sub,
    "negative": ml.neg,
    "swapdims": derived.swapaxes,
    "save": adapters.save,
    "load": adapters.load,
    "compile": adapters.compile,
    "autocast": adapters.Autocast,
    "set_printoptions": adapters.nothing,
    "use_deterministic_algorithms": adapters.nothing,
    "__version__": f"0+minilm.{ml.__version__}",
}

NN: dict[str, Any] = {"DataParallel": adapters.absent("torch.nn.DataParallel", "minilm computes in one process")}
OPTIM = {
    name: adapters.without(getattr(optim, name)) for name in ("SGD", "Adam", "AdamW", "RMSprop", "Adagrad", "Adadelta")
}
DATA: dict[str, Any] = {
    "DataLoader": adapters.DataLoader,
    "random_split": adapters.random_split,
    "Sampler": adapters.Sampler,
    "RandomSampler": adapters.RandomSampler,
    "SubsetRandomSampler": adapters.SubsetRandomSampler,
}
ONE_PROCESS = "minilm computes in one process"
CUDA = {
    "is_available": adapters.false,
    "device_count": adapters.zero,
    "is_bf16_supported": adapters.false,
    **dict.fromkeys(("manual_seed", "manual_seed_all", "empty_cache", "synchronize"), adapters.nothing),
}

MODULES: dict[str, Place] = {
    "torch": Place("minilm under PyTorch's names.", (ml,), TORCH, operations=True),
    "torch.nn": Place("minilm.nn", (nn,), NN),
    "torch.nn.functional": Place("minilm.nn.functional", (functional,)),
    "torch.nn.init": Place("minilm.nn.init", (init,)),
    "torch.nn.modules": Place("minilm.nn", (nn,)),
    "torch.nn.parameter": Place("Parameters.", (), {"Parameter": nn.Parameter}),
    "torch.nn.parallel": Place(
        "Nothing: minilm computes in one process.",
        (),
        {"DistributedDataParallel": adapters.absent("torch.nn.parallel.DistributedDataParallel", ONE_PROCESS)},
    ),
    "torch.nn.utils": Place("Clipping of gradients.", (clip,), {"clip_grad_norm": clip.clip_grad_norm_}),
    "torch.nn.utils.rnn": Place("Batches of sequences.", (nn.utils.rnn,)),
    "torch.optim": Place("minilm.optim", (), {**OPTIM, "Optimizer": optim.Optimizer}),
    "torch.optim.lr_scheduler": Place(
        "minilm.optim.lr_scheduler", (lr_scheduler,), {"_LRScheduler": lr_scheduler.LRScheduler}
    ),
    "torch.utils": Place("Data."),
    "torch.utils.data": Place("minilm.data", (dataset, sampler, collate), DATA),
    "torch.utils.data.dataset": Place("minilm.data.dataset", (dataset,), {"random_split": adapters.random_split}),
    "torch.utils.data.dataloader": Place("minilm.data.loader", (), {"DataLoader": adapters.DataLoader}),
    "torch.autograd": Place("minilm.autograd", (ml.autograd,), {"Variable": adapters.variable}),
    "torch.cuda": Place("No GPU of PyTorch's: is_available() is False.", (), CUDA),
    "torch.accelerator": Place("No GPU.", (), {"is_available": adapters.false, "device_count": adapters.zero}),
    "torch.cuda.amp": Place("Full precision.", (), AMP),
    "torch.amp": Place("Full precision.", (), AMP),
    "torch.random": Place("minilm.random", (), RANDOM),
    "torch.backends": Place("Switches that change nothing here."),
    "torch.backends.cudnn": Place("Switches that change nothing here.", (), {"enabled": False, "benchmark": False}),
    "torch.backends.cuda": Place("Switches that change nothing here."),
    "torch.backends.cuda.matmul": Place("Switches that change nothing here.", (), {"allow_tf32": False}),
    "torch.backends.mps": Place("No GPU.", (), {"is_available": adapters.false, "is_built": adapters.false}),
    "torch.mps": Place("No GPU.", (), {"manual_seed": adapters.nothing, "empty_cache": adapters.nothing}),
    "torch.distributed": Place(
        "Nothing: minilm computes in one process.",
        (),
        {
            "is_available": adapters.false,
            "is_initialized": adapters.false,
            **{
                n: adapters.absent(f"torch.distributed.{n}", ONE_PROCESS)
                for n in ("init_process_group", "destroy_process_group", "get_rank", "get_world_size", "barrier")
            },
        },
    ),
}
