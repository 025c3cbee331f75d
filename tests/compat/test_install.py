"""The modules that stand in for PyTorch's: put in, taken out, and what they say about what is not there."""

from __future__ import annotations

import functools
import importlib
import sys
import types

import numpy as np
import pytest

import minilm as ml
from minilm.compat import MissingImportError, MissingNameError, torch_names
from minilm.compat.names import MODULES
from minilm.errors import ConfigError, DtypeError, MinilmError

# What minilm has beyond PyTorch, found under PyTorch's names too.
BEYOND = {
    "torch": {"softplus"},
    "torch.nn.functional": {
        *("add_layer_norm", "add_rms_norm", "linear_gelu", "linear_relu", "packed_self_attention", "self_attention"),
    },
    "torch.nn": {"SinusoidalPositions"},
    "torch.nn.modules": {"Parameter", "SinusoidalPositions", "functional", "init"},
    "torch.autograd": {"Node", "is_grad_enabled", "is_inference_mode_enabled"},
}


@pytest.fixture
def t():
    with torch_names() as module:
        yield module


# --- in and out -----------------------------------------------------------------------------------


def test_inside_torch_is_minilm_and_after_it_what_it_was(torch):
    before = {name: module for name, module in sys.modules.items() if name.partition(".")[0] == "torch"}
    with torch_names() as ours:
        import torch.nn.functional as F

        assert sys.modules["torch"] is ours is not torch
        assert F.gelu is ml.nn.functional.gelu
    after = {name: module for name, module in sys.modules.items() if name.partition(".")[0] == "torch"}
    assert after == before
    assert importlib.import_module("torch") is torch
    assert torch.ones(2).sum().item() == 2


def test_it_is_taken_out_after_an_error_and_without_any_torch_before(monkeypatch):
    for name in [name for name in sys.modules if name.partition(".")[0] == "torch"]:
        monkeypatch.delitem(sys.modules, name)
    finders = sys.meta_path[:]
    with pytest.raises(KeyError), torch_names() as ours:
        {}[ours.set_default_dtype(ours.float64)]
    assert "torch" not in sys.modules
    assert sys.meta_path == finders
    assert ml.get_default_dtype() == ml.float32


def test_blocks_may_stand_in_each_other():
    with torch_names() as outer:
        with torch_names() as inner:
            assert inner is not outer
            assert sys.modules["torch"] is inner
        assert sys.modules["torch"] is outer


def test_what_a_script_sets_on_a_module_ends_with_the_block():
    with torch_names() as ours:
        ours.backends.cudnn.benchmark = True
        ours.tensor = None
    with torch_names() as again:
        assert again.backends.cudnn.benchmark is False
        assert again.tensor is ml.tensor


# --- the names ------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", MODULES)
def test_no_name_is_invented(name, torch):
    """Whatever we offer under PyTorch's name, PyTorch has."""
    try:
        real = importlib.import_module(name)
    except ImportError:  # an object that has the manners of a module, such as torch.backends.cuda.matmul
        real = functools.reduce(getattr, name.split(".")[1:], torch)
    invented = {n for n in MODULES[name].names() if not hasattr(real, n)} - BEYOND.get(name, set())
    assert not invented


@pytest.mark.parametrize("name", MODULES)
def test_every_name_in_the_table_is_there(name, t):
    module = importlib.import_module(name)
    assert module.__doc__
    for attribute in dir(module):
        assert getattr(module, attribute, "nothing") != "nothing", attribute


@pytest.mark.parametrize("name", sorted(MODULES["torch"].names() - set(MODULES["torch"].differences)))
def test_a_name_of_torch_is_minilms_own(name, t):
    found = getattr(t, name)
    assert found is getattr(ml, name, found)
    assert not isinstance(found, types.ModuleType)


def test_a_missing_name_says_what_is_nearest(t):
    with pytest.raises(MissingNameError, match=r"^minilm has no torch\.Tenser \(nearest: torch\.Tensor\)$"):
        t.Tenser  # noqa: B018
    with pytest.raises(MissingNameError, match=r"^minilm has no torch\.nn\.Lineer \(nearest: torch\.nn\.Linear\)$"):
        t.nn.Lineer  # noqa: B018
    with pytest.raises(MissingNameError, match=r"^minilm has no torch\.qwxyz$"):
        t.qwxyz  # noqa: B018
    assert not hasattr(t, "fft")
    assert issubclass(MissingNameError, (AttributeError, MinilmError))


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("from torch.nn import LSTMM", "minilm has no torch.nn.LSTMM (nearest: torch.nn.LSTM)"),
        ("from torch import fft", "minilm has no torch.fft"),
        ("import torch.utils.dato", "minilm has no torch.utils.dato (nearest: torch.utils.data)"),
        ("import torch.qwxyz.nn", "minilm has no torch.qwxyz"),
    ],
)
def test_a_missing_import_says_so_too(line, said, t):
    with pytest.raises(MissingImportError) as caught:
        exec(line)
    assert str(caught.value) == said
    assert isinstance(caught.value, ImportError)


# --- what is called otherwise ---------------------------------------------------------------------


def test_tensor_is_asked_about_and_called(t):
    assert isinstance(t.zeros(2), t.Tensor)
    assert not isinstance(np.zeros(2), t.Tensor)
    assert isinstance(t.tensor([1]), t.LongTensor)
    assert not isinstance(t.tensor([1.0]), t.LongTensor)
    assert t.Tensor(2, 3).shape == (2, 3)
    assert t.Tensor([1, 2]).dtype == t.float32
    assert t.LongTensor([1, 2]).dtype == t.int64
    assert t.FloatTensor(4).shape == (4,)
    assert t.Tensor().shape == (0,)
    assert t.Tensor.add is ml.Tensor.add
    assert issubclass(ml.nn.Parameter, t.Tensor)


def test_sizes_and_places_of_memory_are_taken(t):
    assert t.zeros(size=(2, 3), pin_memory=True, device=None).shape == (2, 3)
    assert t.randn(2, 3, layout=None).shape == (2, 3)
    assert t.ones(2, device=t.device("cpu"), dtype=t.double).dtype == np.float64


def test_a_type_that_is_not_there_can_be_named_but_not_used(t):
    types = {"float32": t.float32, "bfloat16": t.bfloat16}
    assert types["float32"] == np.float32
    with pytest.raises(DtypeError, match="bfloat16"):
        t.zeros(2).to(t.bfloat16)


def test_infinities_come_without_a_warning_as_in_torch():
    with torch_names() as t:
        assert t.log(t.zeros(1)).item() == -np.inf
        assert t.isnan(t.zeros(1) / 0).all()
    with pytest.warns(RuntimeWarning):
        ml.log(ml.zeros(1))


def test_normal_numbers_have_the_means_and_deviations_given(t):
    t.manual_seed(1)
    x = t.normal(t.tensor([[0.0], [50.0]]), 2.0, (2, 4000))
    assert x.mean(1).tolist() == pytest.approx([0, 50], abs=0.15)
    assert x.std(1).tolist() == pytest.approx([2, 2], rel=0.05)
    assert t.normal(t.zeros(3), t.ones(2, 1)).shape == (2, 3)


def test_optimisers_take_what_changes_nothing_and_refuse_the_rest(t):
    w = t.zeros(3, requires_grad=True)
    optimizer = t.optim.AdamW([w], 0.1, fused=True, foreach=None, amsgrad=False)
    assert isinstance(optimizer, (ml.optim.AdamW, t.optim.Optimizer))
    assert type(optimizer).__name__ == "AdamW"
    assert optimizer.param_groups[0]["lr"] == 0.1
    with pytest.raises(ConfigError, match="AdamW: minilm has no amsgrad"):
        t.optim.AdamW([w], amsgrad=True)


def test_the_order_of_items_follows_the_seed(t):
    def order(seed, **options):
        t.manual_seed(seed)
        return [b.tolist() for b in t.utils.data.DataLoader(list(range(20)), 5, shuffle=True, **options)]

    assert order(1) == order(1, pin_memory=True, worker_init_fn=print, persistent_workers=False)
    assert order(1) != order(2)
    given = [order(seed, generator=t.Generator().manual_seed(7)) for seed in (1, 2)]
    assert given[0] == given[1]
    parts = t.utils.data.random_split(list(range(10)), [7, 3], generator=t.Generator().manual_seed(7))
    again = t.utils.data.random_split(list(range(10)), [0.7, 0.3], t.Generator().manual_seed(7))
    assert [list(p) for p in parts] == [list(p) for p in again]


def test_files_hold_states_and_nothing_that_must_be_pickled(t, tmp_path):
    model = t.nn.Linear(2, 3)
    t.save(model.state_dict(), tmp_path / "model.pt")
    model.load_state_dict(t.load(tmp_path / "model.pt", map_location="cpu", weights_only=True))
    with pytest.raises(ConfigError, match="no pickles"):
        t.save({"model": model.state_dict(), "epoch": 3}, tmp_path / "more.pt")
    assert not (tmp_path / "more.pt").exists()


def test_what_would_make_it_faster_leaves_everything_as_it_is(t):
    model = t.nn.Linear(2, 3)
    assert t.compile(model) is model
    assert t.compile(mode="max-autotune")(model) is model
    assert t.cuda.is_available() is False
    assert t.cuda.device_count() == 0
    t.cuda.manual_seed_all(3)
    scaler = t.cuda.amp.GradScaler(enabled=False)
    optimizer = t.optim.SGD(model.parameters(), lr=0.1)
    with t.autocast("cuda", dtype=t.bfloat16), t.amp.autocast(device_type="cpu"):
        loss = model(t.ones(1, 2)).sum()
    scaler.scale(loss).backward()
    scaler.unscale_(optimizer)
    before = model.bias.tolist()
    scaler.step(optimizer)
    scaler.update()
    assert model.bias.tolist() == pytest.approx([b - 0.1 for b in before])


def test_what_is_imported_but_rarely_used_says_why_it_is_not_there(t):
    from torch.nn.parallel import DistributedDataParallel

    assert not isinstance(t.nn.Linear(2, 3), DistributedDataParallel)
    with pytest.raises(MinilmError, match="one process"):
        DistributedDataParallel(t.nn.Linear(2, 3))


def test_a_sampler_of_ones_own_is_asked(t):
    class Backwards(t.utils.data.Sampler):
        def __init__(self, data):
            super().__init__(data)
            self.data = data

        def __iter__(self):
            return iter(range(len(self.data) - 1, -1, -1))

        def __len__(self):
            return len(self.data)

    data = [1, 2, 3]
    assert [b.tolist() for b in t.utils.data.DataLoader(data, batch_size=2, sampler=Backwards(data))] == [[3, 2], [1]]


def test_random_samplers_draw_all_or_with_replacement(t):
    data, made = list(range(10)), t.utils.data
    t.manual_seed(1)
    passes = [list(made.RandomSampler(data)) for _ in range(2)]
    assert [sorted(p) for p in passes] == [data, data]
    assert passes[0] != passes[1]
    many = made.RandomSampler(data, replacement=True, num_samples=3000, generator=t.Generator().manual_seed(1))
    drawn = list(many)
    assert len(drawn) == len(many) == 3000
    assert all(200 < drawn.count(n) < 400 for n in data)
    assert len(list(made.RandomSampler(data, num_samples=25))) == 25
    assert sorted(made.SubsetRandomSampler([4, 7, 9])) == [4, 7, 9]
    with pytest.raises(ConfigError, match="num_samples"):
        made.RandomSampler(data, num_samples=0)
