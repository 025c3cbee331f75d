"""minilm: language models you can read all the way down.

    import minilm as ml

    x = ml.tensor([1.0, 2.0, 3.0], requires_grad=True)
    (x * x).sum().backward()
    x.grad                          # tensor([2., 4., 6.])

Tensors and operations are here, under PyTorch's names; layers in `ml.nn`, optimisers in `ml.optim`,
data in `ml.data` and `ml.text`, models in `ml.models`, the training loop in `ml.train`, measures in `ml.evaluation`.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from minilm import autograd, kernels, ops, random
from minilm.creation import (
    arange,
    as_tensor,
    empty,
    empty_like,
    eye,
    from_dlpack,
    from_numpy,
    full,
    full_like,
    linspace,
    ones,
    ones_like,
    tensor,
    zeros,
    zeros_like,
)
from minilm.device import Device as device  # noqa: N813 - PyTorch's name
from minilm.dtypes import (
    bool_,
    float16,
    float32,
    float64,
    get_default_dtype,
    int8,
    int16,
    int32,
    int64,
    set_default_dtype,
    uint8,
)
from minilm.errors import MinilmError
from minilm.kernels.precision import get_float32_matmul_precision, set_float32_matmul_precision
from minilm.kernels.threads import get_num_threads, set_num_threads
from minilm.modes import enable_grad, inference_mode, is_grad_enabled, no_grad, set_grad_enabled
from minilm.ops.activation import softplus
from minilm.ops.arrange import (
    broadcast_to,
    diagonal,
    flatten,
    flip,
    movedim,
    roll,
    squeeze,
    transpose,
    tril,
    triu,
    unsqueeze,
)
from minilm.ops.einsum import einsum
from minilm.ops.indexing import (
    gather,
    index_add,
    index_select,
    masked_select,
    nonzero,
    scatter,
    scatter_add,
    take_along_dim,
)
from minilm.ops.joining import cat, chunk, split, stack, unbind
from minilm.ops.matmul import bmm, dot, matmul, mm, mv, outer
from minilm.ops.ordering import argsort, sort, topk
from minilm.ops.pointwise import (
    add,
    cos,
    div,
    erf,
    exp,
    expm1,
    log,
    log1p,
    mul,
    neg,
    pow,  # noqa: A004
    remainder,
    rsqrt,
    sigmoid,
    sin,
    sqrt,
    square,
    sub,
    tanh,
)
from minilm.ops.random import bernoulli, multinomial
from minilm.ops.reduction import (
    all,  # noqa: A004
    amax,
    amin,
    any,  # noqa: A004
    argmax,
    argmin,
    cumsum,
    logsumexp,
    max,  # noqa: A004
    mean,
    min,  # noqa: A004
    norm,
    prod,
    std,
    sum,  # noqa: A004
    var,
)
from minilm.ops.selection import (
    abs,  # noqa: A004
    allclose,
    bitwise_and,
    bitwise_not,
    bitwise_or,
    bitwise_xor,
    ceil,
    clamp,
    eq,
    equal,
    floor,
    floor_divide,
    ge,
    gt,
    isfinite,
    isinf,
    isnan,
    le,
    logical_and,
    logical_not,
    logical_or,
    lt,
    masked_fill,
    maximum,
    minimum,
    ne,
    relu,
    round,  # noqa: A004
    sign,
    where,
)
from minilm.ops.shape import clone, permute, reshape
from minilm.ops.softmax import log_softmax, softmax
from minilm.random import Generator, initial_seed, manual_seed, rand, rand_like, randint, randn, randn_like, randperm
from minilm.serialization import load, save
from minilm.tensor import Tensor

if TYPE_CHECKING:
    from minilm import data, evaluation, generation, models, nn, optim, testing, text, train
    from minilm.models import (
        BertConfig,
        BertForMaskedLM,
        BertForNextSentencePrediction,
        BertForPreTraining,
        BertForQuestionAnswering,
        BertForSequenceClassification,
        BertForTokenClassification,
        BertModel,
        MarianConfig,
        MarianModel,
        MarianMTModel,
        T5Config,
        T5ForConditionalGeneration,
    )
    from minilm.text import BertTokenizer

__version__ = "0.1.0"

__all__ = [
    "BertConfig",
    "BertForMaskedLM",
    "BertForNextSentencePrediction",
    "BertForPreTraining",
    "BertForQuestionAnswering",
    "BertForSequenceClassification",
    "BertForTokenClassification",
    "BertModel",
    "BertTokenizer",
    "Generator",
    "MarianConfig",
    "MarianMTModel",
    "MarianModel",
    "MinilmError",
    "T5Config",
    "T5ForConditionalGeneration",
    "Tensor",
    "abs",
    "add",
    "all",
    "allclose",
    "amax",
    "amin",
    "any",
    "arange",
    "argmax",
    "argmin",
    "argsort",
    "as_tensor",
    "autograd",
    "bernoulli",
    "bitwise_and",
    "bitwise_not",
    "bitwise_or",
    "bitwise_xor",
    "bmm",
    "bool_",
    "broadcast_to",
    "cat",
    "ceil",
    "chunk",
    "clamp",
    "clone",
    "cos",
    "cumsum",
    "data",
    "device",
    "diagonal",
    "div",
    "dot",
    "einsum",
    "empty",
    "empty_like",
    "enable_grad",
    "eq",
    "equal",
    "erf",
    "evaluation",
    "exp",
    "expm1",
    "eye",
    "flatten",
    "flip",
    "float16",
    "float32",
    "float64",
    "floor",
    "floor_divide",
    "from_dlpack",
    "from_numpy",
    "full",
    "full_like",
    "gather",
    "ge",
    "generation",
    "get_default_dtype",
    "get_float32_matmul_precision",
    "get_num_threads",
    "gt",
    "index_add",
    "index_select",
    "inference_mode",
    "initial_seed",
    "int8",
    "int16",
    "int32",
    "int64",
    "is_grad_enabled",
    "isfinite",
    "isinf",
    "isnan",
    "kernels",
    "le",
    "linspace",
    "load",
    "log",
    "log1p",
    "log_softmax",
    "logical_and",
    "logical_not",
    "logical_or",
    "logsumexp",
    "lt",
    "manual_seed",
    "masked_fill",
    "masked_select",
    "matmul",
    "max",
    "maximum",
    "mean",
    "min",
    "minimum",
    "mm",
    "models",
    "movedim",
    "mul",
    "multinomial",
    "mv",
    "ne",
    "neg",
    "nn",
    "no_grad",
    "nonzero",
    "norm",
    "ones",
    "ones_like",
    "ops",
    "optim",
    "outer",
    "permute",
    "pow",
    "prod",
    "rand",
    "rand_like",
    "randint",
    "randn",
    "randn_like",
    "random",
    "randperm",
    "relu",
    "remainder",
    "reshape",
    "roll",
    "round",
    "rsqrt",
    "save",
    "scatter",
    "scatter_add",
    "set_default_dtype",
    "set_float32_matmul_precision",
    "set_grad_enabled",
    "set_num_threads",
    "sigmoid",
    "sign",
    "sin",
    "softmax",
    "softplus",
    "sort",
    "split",
    "sqrt",
    "square",
    "squeeze",
    "stack",
    "std",
    "sub",
    "sum",
    "take_along_dim",
    "tanh",
    "tensor",
    "testing",
    "text",
    "topk",
    "train",
    "transpose",
    "tril",
    "triu",
    "uint8",
    "unbind",
    "unsqueeze",
    "var",
    "where",
    "zeros",
    "zeros_like",
]


# Loaded when first used, so that `import minilm` stays quick.
_LAZY = ("data", "evaluation", "generation", "models", "nn", "optim", "testing", "text", "train")
# And names in such a module that are here too.
_LAZY_FROM = {
    "BertConfig": "minilm.models",
    "BertForMaskedLM": "minilm.models",
    "BertForNextSentencePrediction": "minilm.models",
    "BertForPreTraining": "minilm.models",
    "BertForQuestionAnswering": "minilm.models",
    "BertForSequenceClassification": "minilm.models",
    "BertForTokenClassification": "minilm.models",
    "BertModel": "minilm.models",
    "MarianConfig": "minilm.models",
    "MarianMTModel": "minilm.models",
    "MarianModel": "minilm.models",
    "T5Config": "minilm.models",
    "T5ForConditionalGeneration": "minilm.models",
    "BertTokenizer": "minilm.text",
}


def __getattr__(name: str) -> Any:
    if name in _LAZY:
        return importlib.import_module(f"minilm.{name}")
    if name in _LAZY_FROM:
        return getattr(importlib.import_module(_LAZY_FROM[name]), name)
    raise AttributeError(f"module 'minilm' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted([*globals(), *_LAZY, *_LAZY_FROM])
