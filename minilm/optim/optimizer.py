"""Optimizer: what all of them share, groups of parameters with their settings, and their state."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import numpy as np

from minilm.autograd import enable_grad, no_grad
from minilm.errors import CheckpointError, ConfigError, DtypeError, ShapeError
from minilm.ops.inplace import check_writable
from minilm.tensor import Tensor

Group = dict[str, Any]


class Optimizer:
    """Base of all optimisers.

    Args:
        params: the parameters, or dicts {"params": parameters, "lr": ..., ...} where groups of them
            have settings of their own. What a group does not set is set by `defaults`.
        defaults: the settings by name.

    A subclass says how its settings are checked (`check_group`), what it remembers of a parameter
    (`initial_state`) and how it changes one (`update`).

    Attributes:
        param_groups: the groups, dicts that may be changed between steps (`group["lr"] = ...`).
        state: for each parameter that was changed at least once, a dict of what is remembered.

    Errors: ConfigError for no parameters, a parameter in two groups, an impossible setting.
    """

    def __init__(self, params: Iterable[Any], defaults: dict[str, Any]) -> None:
        if isinstance(params, Tensor):
            raise TypeError("an optimiser takes a list of parameters, not one tensor")
        listed = list(params)
        if not listed:
            raise ConfigError("an optimiser needs at least one parameter, and the list is empty")
        self.defaults = defaults
        self.check_group(defaults)
        self.param_groups: list[Group] = []
        self.state: dict[Tensor, dict[str, Any]] = {}
        for group in listed if isinstance(listed[0], Mapping) else [{"params": listed}]:
            self.add_param_group(group)

    # --- what a subclass says ---------------------------------------------------------------------

    def check_group(self, group: Mapping[str, Any]) -> None:
        """Raise ConfigError if a setting of the group is impossible."""

    def initial_state(self, parameter: Tensor, group: Group) -> dict[str, Any]:
        """What is remembered of a parameter before its first step: Tensors of its shape, numbers, or None.

        None stands for a Tensor that is made later.
        """
        return {}

    def update(self, parameter: Tensor, gradient: Any, state: dict[str, Any], group: Group) -> None:
        """Write the parameter's new value over its array, and what is remembered over `state`."""
        raise NotImplementedError(f"{type(self).__name__} has no update")

    def update_all(self, due: list[tuple[Tensor, Any, dict[str, Any]]], group: Group) -> None:
        """Update the parameters of a group that have gradients: triples of parameter, gradient (an array) and state.

        One after the other by `update`, unless a subclass has one pass over all of them instead, as AdamW does.
        """
        for parameter, gradient, state in due:
            self.update(parameter, gradient, state, group)

    # --- what users call --------------------------------------------------------------------------

    def add_param_group(self, param_group: Mapping[str, Any]) -> None:
        """Add a dict {"params": parameters, ...settings}. Errors: see the class; nothing is added then."""
        if not isinstance(param_group, Mapping) or "params" not in param_group:
            raise ConfigError(f"a parameter group is a dict with the key 'params', not {param_group!r}")
        given = param_group["params"]
        params = [given] if isinstance(given, Tensor) else list(given)
        known = {id(p) for group in self.param_groups for p in group["params"]}
        for position, parameter in enumerate(params):
            _check_parameter(parameter, position)
            if id(parameter) in known:
                raise ConfigError(f"parameter {position} of shape {parameter.shape} is in the optimiser already")
            known.add(id(parameter))
        group = {"params": params, **{k: v for k, v in param_group.items() if k != "params"}}
        for name, value in self.defaults.items():
            group.setdefault(name, value)
        self.check_group(group)
        self.param_groups.append(group)

    def zero_grad(self, set_to_none: bool = True) -> None:
        """Drop the gradients of all parameters, or fill them with zeros where they are."""
        for group in self.param_groups:
            for parameter in group["params"]:
                if set_to_none or parameter.grad is None:
                    parameter.grad = None
                else:
                    parameter.grad.detach_().zero_()

    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """Change every parameter that has a gradient.

        Args:
            closure: computes the loss (and gradients) anew; its result is returned.

        Errors, before any parameter is changed: ConfigError for an impossible setting, ShapeError or
        DtypeError for a gradient unlike its parameter, AutogradError for read-only memory.
        """
        loss = None
        if closure is not None:
            with enable_grad():
                loss = closure()
        due = [([p for p in group["params"] if p.grad is not None], group) for group in self.param_groups]
        writer = f"{type(self).__name__}.step"
        with no_grad():
            for group in self.param_groups:
                self.check_group(group)
            for parameters, _ in due:
                for parameter in parameters:
                    check_writable(parameter, writer)
                    _check_gradient(parameter)
            for parameters, group in due:
                for parameter in parameters:
                    if parameter not in self.state:
                        self.state[parameter] = self.initial_state(parameter, group)
                self.update_all([(p, p.grad.array, self.state[p]) for p in parameters], group)
                for parameter in parameters:  # a graph that still needs the old value must find out
                    if parameter._version is not None:
                        parameter._version.bump(writer)
        return loss

    def state_dict(self) -> dict[str, Any]:
        """The settings and what is remembered, with parameters as numbers in the order of the groups.

        {"state": {0: {...}, ...}, "param_groups": [{"lr": ..., "params": [0, 1, ...]}, ...]}; the
        tensors in it are the optimiser's own.
        """
        number: dict[int, int] = {}
        groups = []
        for group in self.param_groups:
            for parameter in group["params"]:
                number[id(parameter)] = len(number)
            groups.append({**group, "params": [number[id(p)] for p in group["params"]]})
        state = {number[id(p)]: dict(state) for p, state in self.state.items()}
        return {"state": dict(sorted(state.items())), "param_groups": groups}

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        """Take settings and memory from what `state_dict` gave; tensors are copied.

        Errors: CheckpointError (or ConfigError for an impossible setting), and nothing is changed.
        """
        groups = _fitting_groups(self, state_dict)
        parameters = [p for group in self.param_groups for p in group["params"]]
        fresh: dict[Tensor, dict[str, Any]] = {}
        owners = [group for group in self.param_groups for _ in group["params"]]
        for key, state in state_dict["state"].items():
            position = int(key)
            if not 0 <= position < len(parameters):
                raise CheckpointError(f"optimiser state: there is no parameter {position} among {len(parameters)}")
            parameter = parameters[position]
            expected = self.initial_state(parameter, owners[position])
            fresh[parameter] = _fitting_state(position, parameter, expected, state)
        self.param_groups = groups
        self.state = fresh

    def __repr__(self) -> str:
        lines = []
        for number, group in enumerate(self.param_groups):
            elements = sum(p.numel() for p in group["params"])
            settings = ", ".join(f"{k}={v}" for k, v in group.items() if k != "params")
            lines.append(f"  group {number}: {len(group['params'])} tensors, {elements:,} numbers, {settings}")
        return "\n".join([f"{type(self).__name__}(", *lines, ")"])


# --- checks ---------------------------------------------------------------------------------------


def check_number(name: str, value: Any, low: float = 0.0, below: float = math.inf) -> None:
    """Raise ConfigError unless `value` is a finite number with low <= value < below."""
    number = isinstance(value, (int, float, np.integer, np.floating)) and not isinstance(value, bool)
    if not number or not low <= value < below:
        limit = "" if below == math.inf else f" and below {below}"
        raise ConfigError(f"{name} must be a finite number, at least {low}{limit}, not {value!r}")


def _check_parameter(parameter: Any, position: int) -> None:
    if not isinstance(parameter, Tensor):
        raise TypeError(f"parameter {position} is no tensor but {type(parameter).__name__}")
    if parameter.node is not None or not parameter.is_floating_point():
        what = "was computed by an operation" if parameter.node is not None else f"is of {parameter.dtype}"
        raise ConfigError(f"parameter {position} of shape {parameter.shape} {what}: only floating leaves can learn")


def _check_gradient(parameter: Tensor) -> None:
    gradient = parameter.grad
    assert gradient is not None
    if gradient.shape != parameter.shape:
        raise ShapeError(f"a parameter of shape {parameter.shape} has a gradient of shape {gradient.shape}")
    if gradient.dtype != parameter.dtype:
        raise DtypeError(f"a parameter of {parameter.dtype} has a gradient of {gradient.dtype}")


def _fitting_groups(optimizer: Optimizer, state_dict: Mapping[str, Any]) -> list[Group]:
    """The loaded settings joined with the optimiser's own parameters, once they are known to fit."""
    if not isinstance(state_dict, Mapping) or not {"state", "param_groups"} <= set(state_dict):
        raise CheckpointError("optimiser state: a dict with the keys 'state' and 'param_groups' was expected")
    given, own = state_dict["param_groups"], optimizer.param_groups
    sizes, own_sizes = [len(g["params"]) for g in given], [len(g["params"]) for g in own]
    if sizes != own_sizes:
        raise CheckpointError(f"optimiser state: groups of {sizes} parameters, but the optimiser has {own_sizes}")
    groups = []
    for number, (mine, loaded) in enumerate(zip(own, given)):
        missing = [name for name in optimizer.defaults if name not in loaded]
        if missing:
            raise CheckpointError(f"optimiser state: group {number} lacks {', '.join(missing)}")
        group = {**loaded, "params": mine["params"]}
        optimizer.check_group(group)
        groups.append(group)
    return groups


def _fitting_state(
    position: int, parameter: Tensor, expected: dict[str, Any], given: Mapping[str, Any]
) -> dict[str, Any]:
    """A parameter's loaded memory, copied and in the parameter's type, once it is known to fit."""
    if set(given) != set(expected):
        raise CheckpointError(
            f"optimiser state: parameter {position} has {sorted(given)}, {sorted(expected)} were expected"
        )
    result: dict[str, Any] = {}
    for name, blank in expected.items():
        value = given[name]
        if blank is None and value is None:
            result[name] = None
            continue
        if isinstance(blank, (int, float)):
            result[name] = type(blank)(value)
            continue
        array = value.array if isinstance(value, Tensor) else np.asarray(value)
        if array.shape != parameter.shape:
            raise CheckpointError(
                f"optimiser state: {name} of parameter {position} has shape {array.shape}, "
                f"the parameter {parameter.shape}"
            )
        result[name] = Tensor(parameter.device.receive(array.astype(parameter.dtype, copy=True)))
    return result
