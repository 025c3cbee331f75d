"""Schedulers: they set an optimiser's learning rates after each step."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from minilm.errors import CheckpointError, ConfigError
from minilm.optim.optimizer import Optimizer
from minilm.optim.schedule import Schedule


class LRScheduler:
    """Base: `step()` after each `optimizer.step()` sets every group's lr to what `rate` says.

    A group's first lr is kept as its "initial_lr". Unlike some of PyTorch's, every rate is a function
    of the step alone, so a resumed run has the same rates to the bit.

    Args:
        last_epoch: the number of the last step; -1 to begin, otherwise the groups need "initial_lr".

    Errors: ConfigError where that is missing.
    """

    def __init__(self, optimizer: Optimizer, last_epoch: int = -1) -> None:
        self.optimizer = optimizer
        for number, group in enumerate(optimizer.param_groups):
            if last_epoch == -1:
                group.setdefault("initial_lr", group["lr"])
            elif "initial_lr" not in group:
                raise ConfigError(f"to go on from step {last_epoch}, group {number} needs an 'initial_lr'")
        self.base_lrs: list[float] = [group["initial_lr"] for group in optimizer.param_groups]
        self.last_epoch = last_epoch
        self.step()

    def rate(self, base_lr: float, group: int, step: int) -> float:
        """The learning rate of a group at a step."""
        raise NotImplementedError(f"{type(self).__name__} has no rate")

    def step(self) -> None:
        """Count one step and set the rates for the next."""
        self._go_to(self.last_epoch + 1)

    def get_last_lr(self) -> list[float]:
        """The rate of each group, as last set."""
        return list(self._last_lr)

    def _go_to(self, step: int) -> None:
        self.last_epoch = step
        self._last_lr = [self.rate(base, number, step) for number, base in enumerate(self.base_lrs)]
        for group, lr in zip(self.optimizer.param_groups, self._last_lr):
            group["lr"] = lr

    def state_dict(self) -> dict[str, Any]:
        """The step and the first rates; the schedule itself belongs to the program."""
        return {"last_epoch": self.last_epoch, "base_lrs": list(self.base_lrs)}

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        """Go to the step that `state_dict` gave and set the rates. Errors: CheckpointError."""
        if not isinstance(state_dict, Mapping) or not {"last_epoch", "base_lrs"} <= set(state_dict):
            raise CheckpointError("scheduler state: a dict with 'last_epoch' and 'base_lrs' was expected")
        base_lrs = list(state_dict["base_lrs"])
        if len(base_lrs) != len(self.base_lrs):
            raise CheckpointError(f"scheduler state: rates of {len(base_lrs)} groups, not of {len(self.base_lrs)}")
        self.base_lrs = base_lrs
        self._go_to(int(state_dict["last_epoch"]))


class LambdaLR(LRScheduler):
    """lr = initial_lr schedule(step): one schedule for all groups, or a list with one for each.

    scheduler = LambdaLR(optimizer, warmup_cosine(100, 2000, floor=0.1))
    """

    def __init__(self, optimizer: Optimizer, lr_lambda: Schedule | Sequence[Schedule], last_epoch: int = -1) -> None:
        groups = len(optimizer.param_groups)
        self.lr_lambdas: list[Schedule] = [lr_lambda] * groups if callable(lr_lambda) else list(lr_lambda)
        if len(self.lr_lambdas) != groups:
            raise ConfigError(f"LambdaLR: {len(self.lr_lambdas)} schedules for {groups} groups")
        super().__init__(optimizer, last_epoch)

    def rate(self, base_lr: float, group: int, step: int) -> float:
        """The learning rate of a group at a step."""
        return base_lr * self.lr_lambdas[group](step)


class ConstantLR(LRScheduler):
    """lr = factor initial_lr while step < total_iters, then initial_lr."""

    def __init__(
        self, optimizer: Optimizer, factor: float = 1.0 / 3, total_iters: int = 5, last_epoch: int = -1
    ) -> None:
        if not 0 <= factor <= 1:
            raise ConfigError(f"ConstantLR: factor must lie between 0 and 1, not {factor}")
        self.factor, self.total_iters = factor, total_iters
        super().__init__(optimizer, last_epoch)

    def rate(self, base_lr: float, group: int, step: int) -> float:
        """The learning rate of a group at a step."""
        return base_lr * (self.factor if step < self.total_iters else 1.0)


class LinearLR(LRScheduler):
    """lr = initial_lr times a straight line from start_factor at step 0 to end_factor at total_iters."""

    def __init__(
        self,
        optimizer: Optimizer,
        start_factor: float = 1.0 / 3,
        end_factor: float = 1.0,
        total_iters: int = 5,
        last_epoch: int = -1,
    ) -> None:
        if not 0 < start_factor <= 1 or not 0 <= end_factor <= 1 or not total_iters > 0:
            raise ConfigError(
                "LinearLR: factors from 0 to 1 (the first above 0) and steps above 0, not "
                f"{start_factor}, {end_factor} and {total_iters}"
            )
        self.start_factor, self.end_factor, self.total_iters = start_factor, end_factor, total_iters
        super().__init__(optimizer, last_epoch)

    def rate(self, base_lr: float, group: int, step: int) -> float:
        """The learning rate of a group at a step."""
        progress = min(step / self.total_iters, 1.0)
        return base_lr * (self.start_factor + (self.end_factor - self.start_factor) * progress)


class CosineAnnealingLR(LRScheduler):
    """lr = eta_min + (initial_lr - eta_min) (1 + cos(pi step / T_max)) / 2, and on along the wave.

    Source: Loshchilov & Hutter 2017, equation 5, without restarts.
    """

    def __init__(self, optimizer: Optimizer, T_max: int, eta_min: float = 0.0, last_epoch: int = -1) -> None:
        if not T_max > 0:
            raise ConfigError(f"CosineAnnealingLR: T_max must be above 0, not {T_max}")
        self.T_max, self.eta_min = T_max, eta_min
        super().__init__(optimizer, last_epoch)

    def rate(self, base_lr: float, group: int, step: int) -> float:
        """The learning rate of a group at a step."""
        return self.eta_min + (base_lr - self.eta_min) * (1 + math.cos(math.pi * step / self.T_max)) / 2


class StepLR(LRScheduler):
    """lr = initial_lr gamma^(step // step_size)."""

    def __init__(self, optimizer: Optimizer, step_size: int, gamma: float = 0.1, last_epoch: int = -1) -> None:
        if not step_size > 0:
            raise ConfigError(f"StepLR: step_size must be above 0, not {step_size}")
        self.step_size, self.gamma = step_size, gamma
        super().__init__(optimizer, last_epoch)

    def rate(self, base_lr: float, group: int, step: int) -> float:
        """The learning rate of a group at a step."""
        return base_lr * self.gamma ** (step // self.step_size)


class MultiStepLR(LRScheduler):
    """lr = initial_lr gamma^k, where k of the milestones are reached."""

    def __init__(
        self, optimizer: Optimizer, milestones: Sequence[int], gamma: float = 0.1, last_epoch: int = -1
    ) -> None:
        self.milestones, self.gamma = sorted(milestones), gamma
        super().__init__(optimizer, last_epoch)

    def rate(self, base_lr: float, group: int, step: int) -> float:
        """The learning rate of a group at a step."""
        return base_lr * self.gamma ** sum(step >= milestone for milestone in self.milestones)


class ExponentialLR(LRScheduler):
    """lr = initial_lr gamma^step."""

    def __init__(self, optimizer: Optimizer, gamma: float, last_epoch: int = -1) -> None:
        self.gamma = gamma
        super().__init__(optimizer, last_epoch)

    def rate(self, base_lr: float, group: int, step: int) -> float:
        """The learning rate of a group at a step."""
        return base_lr * self.gamma**step


class CosineAnnealingWarmRestarts(LRScheduler):
    """CosineAnnealingLR that begins anew after T_0 steps, and each time after T_mult times as many as before.

    Source: Loshchilov & Hutter 2017, equation 5.
    """

    def __init__(
        self, optimizer: Optimizer, T_0: int, T_mult: int = 1, eta_min: float = 0.0, last_epoch: int = -1
    ) -> None:
        if not T_0 > 0 or not T_mult >= 1:
            raise ConfigError(f"CosineAnnealingWarmRestarts: T_0 and T_mult must be at least 1, not {T_0} and {T_mult}")
        self.T_0, self.T_mult, self.eta_min = T_0, T_mult, eta_min
        super().__init__(optimizer, last_epoch)

    def rate(self, base_lr: float, group: int, step: int) -> float:
        """The learning rate of a group at a step."""
        length = self.T_0
        while step >= length:
            step, length = step - length, length * self.T_mult
        return self.eta_min + (base_lr - self.eta_min) * (1 + math.cos(math.pi * step / length)) / 2


class ReduceLROnPlateau:
    """lr = factor lr when `step(metrics)` has seen nothing better for more than `patience` steps.

    Args:
        mode: "min" where smaller metrics are better, "max" where larger ones are.
        threshold, threshold_mode: what counts as better: by this share ("rel") or by this much ("abs").
        cooldown: steps after a reduction in which none is counted.
        min_lr, eps: no lower than this, and not at all for a smaller change than that.
    """

    def __init__(
        self,
        optimizer: Optimizer,
        mode: str = "min",
        factor: float = 0.1,
        patience: int = 10,
        threshold: float = 1e-4,
        threshold_mode: str = "rel",
        cooldown: int = 0,
        min_lr: float = 0.0,
        eps: float = 1e-8,
    ) -> None:
        if mode not in ("min", "max") or threshold_mode not in ("rel", "abs") or not 0 <= factor < 1:
            raise ConfigError(
                "ReduceLROnPlateau: mode is 'min' or 'max', threshold_mode 'rel' or 'abs', factor below 1, not "
                f"{mode!r}, {threshold_mode!r} and {factor}"
            )
        self.optimizer, self.mode, self.factor, self.patience = optimizer, mode, factor, patience
        self.threshold, self.threshold_mode = threshold, threshold_mode
        self.cooldown, self.min_lr, self.eps = cooldown, min_lr, eps
        self.best = math.inf if mode == "min" else -math.inf
        self.num_bad_epochs = self.cooldown_counter = self.last_epoch = 0

    def step(self, metrics: Any) -> None:
        """Look at the metric of one more epoch, and lower the rates if there was nothing better for too long."""
        current, self.last_epoch = float(metrics), self.last_epoch + 1
        better = self._better(current)
        self.best, self.num_bad_epochs = (current, 0) if better else (self.best, self.num_bad_epochs + 1)
        if self.cooldown_counter > 0:
            self.cooldown_counter, self.num_bad_epochs = self.cooldown_counter - 1, 0
        if self.num_bad_epochs > self.patience:
            for group in self.optimizer.param_groups:
                lower = max(group["lr"] * self.factor, self.min_lr)
                if group["lr"] - lower > self.eps:
                    group["lr"] = lower
            self.cooldown_counter, self.num_bad_epochs = self.cooldown, 0

    def _better(self, current: float) -> bool:
        sign = 1 if self.mode == "max" else -1
        if self.threshold_mode == "abs":
            return sign * current > sign * self.best + self.threshold
        return sign * current > sign * self.best * (1 + sign * self.threshold)

    def get_last_lr(self) -> list[float]:
        """The rate of each group."""
        return [group["lr"] for group in self.optimizer.param_groups]

    def state_dict(self) -> dict[str, Any]:
        """What was seen so far."""
        return {name: getattr(self, name) for name in ("best", "num_bad_epochs", "cooldown_counter", "last_epoch")}

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        """Go on from what `state_dict` gave. Errors: CheckpointError."""
        own = self.state_dict()
        if not isinstance(state_dict, Mapping) or not set(own) <= set(state_dict):
            raise CheckpointError(f"scheduler state: a dict with {', '.join(own)} was expected")
        for name in own:
            setattr(self, name, state_dict[name])
