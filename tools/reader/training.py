"""The loop that every stage of training shares: rate, steps, curve, and a state to resume from."""

from __future__ import annotations

import json
import os
import signal
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor, nn


class Stage(Protocol):
    """One stage of training: which parameters it trains and what a step costs."""

    def parameters(self) -> dict[str, nn.Parameter]:
        """The trained parameters by name."""
        ...

    def loss(self, step: int) -> tuple[Tensor, dict[str, float]]:
        """The loss of a step, which depends on the parameters and the step's number alone, and figures to log."""
        ...


@dataclass(frozen=True)
class Plan:
    """How long and how fast to train.

    Attributes:
        rate: Learning rate at its height.
        warm_steps: Steps over which the rate rises while the optimizer gathers its averages.
        minutes: Wall-clock minutes after which the run pauses.
        max_steps: Step at which the run pauses.
        anneal_steps: If not 0, the rate falls to zero over so many steps from the one at which that was first asked,
            and training ends.
        save_every_s: Seconds between two saves of the state.
        log_every: Steps between two lines of the curve.
    """

    rate: float
    warm_steps: int = 50
    minutes: float = 1e9
    max_steps: int = 10**9
    anneal_steps: int = 0
    save_every_s: float = 600.0
    log_every: int = 50


@dataclass
class State:
    """What a run can go on from, exactly.

    Attributes:
        step: Steps done.
        warm_from: Step at which the optimizer began with nothing.
        anneal_from: Step at which annealing began; -1 before.
        weights: Parameters by name.
        optimizer: The optimizer's state.
    """

    step: int = 0
    warm_from: int = 0
    anneal_from: int = -1
    weights: dict[str, Tensor] = field(default_factory=dict)
    optimizer: dict[str, Any] = field(default_factory=dict)


def load_state(file: Path) -> State:
    """Reads a state; tensors and plain values only, never other objects."""
    return State(**torch.load(file, weights_only=True))


def save_state(state: State, file: Path) -> None:
    """Writes a state in one move: a reader finds the old one or the new one."""
    file.parent.mkdir(parents=True, exist_ok=True)
    part = file.with_suffix(".part")
    torch.save(vars(state), part)
    os.replace(part, file)


def rate_at(plan: Plan, state: State) -> float:
    """Learning rate of a state's next step."""
    rate = plan.rate * min(1.0, (state.step - state.warm_from + 1) / plan.warm_steps)
    if state.anneal_from < 0:
        return rate
    return rate * max(0.0, 1 - (state.step - state.anneal_from) / plan.anneal_steps)


def packed(state: State) -> State:
    """A state of a third of the size, without the optimizer's: a run that goes on from it warms up first."""
    return State(state.step, state.step, state.anneal_from, state.weights)


def make_optimizer(parameters: dict[str, nn.Parameter]) -> torch.optim.Optimizer:
    """AdamW, with decay for matrices inside the layers only."""
    inner = [value for name, value in parameters.items() if value.dim() == 2 and _is_inner(name)]
    outer = [value for name, value in parameters.items() if not (value.dim() == 2 and _is_inner(name))]
    groups = [{"params": inner, "weight_decay": 0.02}, {"params": outer, "weight_decay": 0.0}]
    return torch.optim.AdamW(groups, betas=(0.9, 0.97), fused=True)


def _is_inner(name: str) -> bool:
    return ".blocks." in name or ".layers." in name


def train(stage: Stage, file: Path, plan: Plan) -> State:
    """Trains a stage from its state file, if there is one, until the plan ends; saves as it goes.

    Each line of the curve goes to standard output and, as JSON, to a file beside the state.
    """
    parameters = stage.parameters()
    optimizer = make_optimizer(parameters)
    state = load_state(file) if file.exists() else State()
    if state.weights:
        restore(parameters, state.weights)
    if state.optimizer:
        optimizer.load_state_dict(state.optimizer)
    if plan.anneal_steps and state.anneal_from < 0:
        state.anneal_from = state.step
    curve = _Curve(file.with_suffix(".jsonl"), plan.log_every)
    began = saved = time.monotonic()
    asked_to_stop: list[int] = []
    signal.signal(signal.SIGTERM, lambda number, _frame: asked_to_stop.append(number))
    while _goes_on(plan, state) and time.monotonic() - began < plan.minutes * 60 and not asked_to_stop:
        rate = rate_at(plan, state)
        loss, figures = stage.loss(state.step)
        loss.backward()  # type: ignore[no-untyped-call]
        norm = nn.utils.clip_grad_norm_(parameters.values(), 1.0)
        for group in optimizer.param_groups:
            group["lr"] = rate
        optimizer.step()
        optimizer.zero_grad()
        state.step += 1
        curve.add(state.step, {"loss": loss.item(), **figures, "norm": norm.item(), "rate": rate})
        if time.monotonic() - saved > plan.save_every_s:
            save_state(_taken(state, parameters, optimizer), file)
            saved = time.monotonic()
    state = _taken(state, parameters, optimizer)
    save_state(state, file)
    return state


def restore(parameters: dict[str, nn.Parameter], weights: dict[str, Tensor]) -> None:
    """Copies stored weights into parameters of the same names."""
    with torch.no_grad():
        for name, parameter in parameters.items():
            parameter.copy_(weights[name])


def _goes_on(plan: Plan, state: State) -> bool:
    annealed = state.anneal_from >= 0 and state.step >= state.anneal_from + plan.anneal_steps
    return state.step < plan.max_steps and not annealed


def _taken(state: State, parameters: dict[str, nn.Parameter], optimizer: torch.optim.Optimizer) -> State:
    weights = {name: parameter.detach() for name, parameter in parameters.items()}
    return State(state.step, state.warm_from, state.anneal_from, weights, optimizer.state_dict())


class _Curve:
    """Means of the figures over the last steps, a line at a time."""

    def __init__(self, file: Path, log_every: int) -> None:
        self._file, self._log_every = file, log_every
        self._rows: list[dict[str, float]] = []
        self._began = time.monotonic()

    def add(self, step: int, figures: dict[str, float]) -> None:
        self._rows.append(figures)
        if step % self._log_every:
            return
        means = {name: round(sum(row[name] for row in self._rows) / len(self._rows), 5) for name in figures}
        line = json.dumps({"step": step, "minutes": round((time.monotonic() - self._began) / 60, 1), **means})
        self._rows = []
        print(line, flush=True)
        self._file.parent.mkdir(parents=True, exist_ok=True)
        with self._file.open("a", encoding="utf-8") as curve:
            curve.write(line + "\n")
