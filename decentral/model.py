"""A torch model as one flat vector, its training loop and its evaluation.

Flat order: tensors follow each other in state-dict order (``shapes``); inside a tensor the order is
*memory* order, which is torch's own except for convolution weights (four axes), stored as O, H, W, I.
It is the same on every node of every run, so averaging and fragments never see it; ``state_dict``
translates.
"""

# torch takes a second to import, and configuration is checked without it.

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from math import prod
from typing import TYPE_CHECKING, TypeAlias

import numpy as np

from decentral.arrays import AnyArray, FloatArray, IntArray, aligned
from decentral.errors import ConfigError
from decentral.tasks.base import Poll, Sgd, Shapes, size_of

if TYPE_CHECKING:
    import torch

Factory: TypeAlias = "Callable[[], torch.nn.Module]"
Loss: TypeAlias = "Callable[[torch.Tensor, torch.Tensor], torch.Tensor]"
Prepare: TypeAlias = "Callable[[torch.Tensor], torch.Tensor]"

_GATHER_BYTES = 1 << 20
_CONVOLUTION_AXES = 4


class FlatModel:
    """A torch module whose parameters and gradients are views of two flat float32 buffers.

    One fused operation updates all parameters, another clears all gradients, and the flat model that
    algorithms average is the live module itself: nothing is packed or unpacked. Convolution weights are
    views with channels_last strides, which the vectorised kernels read without a copy.

    Args:
        module_factory: makes the module; drawn values are discarded, ``x`` starts at zero.
        shapes: what the task promised about the module.

    Attributes:
        x: the parameters, shape (d,).
        gradient: their gradients, shape (d,), summed over backward passes until ``clear``.
        module: the live module.

    Raises:
        ConfigError: the module has buffers (batch statistics cannot be averaged like parameters), frozen or
            non-float32 parameters, or other parameters than ``shapes``.
    """

    def __init__(self, module_factory: Factory, shapes: Shapes) -> None:
        import torch

        self.shapes = shapes
        self.x: FloatArray = aligned(size_of(shapes))
        self.gradient: FloatArray = aligned(size_of(shapes))
        with torch.random.fork_rng(devices=[]):
            self.module = module_factory()
        _agree(self.module, shapes)
        self._x = torch.from_numpy(self.x)
        self._gradient = torch.from_numpy(self.gradient)
        self._velocity: torch.Tensor | None = None
        views = zip(_views(self._x, shapes), _views(self._gradient, shapes), strict=True)
        for parameter, (value, gradient) in zip(self.module.parameters(), views, strict=True):
            parameter.data = value
            parameter.grad = gradient

    def load(self, x: FloatArray) -> None:
        """Copy flat model ``x``, shape (d,), into this one."""
        np.copyto(self.x, x)

    def clear(self) -> None:
        """Set all gradients to zero."""
        self._gradient.zero_()

    def update(self, sgd: Sgd) -> None:
        """One step of stochastic gradient descent along ``gradient``, as ``torch.optim.SGD`` defines it.

        The momentum buffer starts at zero and lives as long as this model; ``gradient`` is overwritten
        where there is weight decay.
        """
        step = self._gradient
        if sgd.weight_decay:
            step.add_(self._x, alpha=sgd.weight_decay)
        if sgd.momentum:
            if self._velocity is None:
                self._velocity = step.new_zeros(step.shape)
            step = self._velocity.mul_(sgd.momentum).add_(step)
        self._x.sub_(step, alpha=sgd.lr)

    def momentum(self) -> dict[str, AnyArray]:
        """A copy of the momentum buffer, shape (d,); empty before the first step with momentum."""
        return {} if self._velocity is None else {"velocity": self._velocity.numpy().copy()}

    def set_momentum(self, state: Mapping[str, AnyArray]) -> None:
        """Take on what ``momentum`` gave."""
        self._velocity = None
        if state:
            self._velocity = self._x.new_zeros(self._x.shape)
            np.copyto(self._velocity.numpy(), state["velocity"])

    def state_dict(self) -> dict[str, torch.Tensor]:
        """Copies of all parameters in torch's shapes, memory layout and order."""
        named = zip(self.shapes, _views(self._x, self.shapes), strict=True)
        return {name: value.detach().contiguous().clone() for (name, _), value in named}

    def from_state_dict(self, state: Mapping[str, torch.Tensor]) -> None:
        """Set ``x`` from tensors named and shaped as ``state_dict`` gives them.

        Raises:
            ConfigError: names or shapes differ; ``x`` is unchanged.
        """
        found = {name: tuple(value.shape) for name, value in state.items()}
        if found != dict(self.shapes):
            raise ConfigError(f"state_dict with {found}: expected {dict(self.shapes)}; use the same model")
        for (name, _), value in zip(self.shapes, _views(self._x, self.shapes), strict=True):
            value.copy_(state[name])


def draw(module_factory: Factory, shapes: Shapes, seed: int) -> FloatArray:
    """A flat model, shape (d,), with torch's own initialisation drawn from ``seed``.

    torch's global generator is left as it was.
    """
    import torch

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        drawn = module_factory()
    model = FlatModel(module_factory, shapes)
    model.from_state_dict(drawn.state_dict())
    return model.x


class TorchLearner:
    """Trains a ``FlatModel`` on one node's rows; a ``decentral.tasks.base.Learner``.

    Args:
        model: trained in place; belongs to this learner.
        inputs: all training inputs, shape (N, ...), any type that ``prepare`` understands.
        targets: all training targets, shape (N, ...).
        shard: this node's rows of ``inputs`` and ``targets``.
        sgd: step size, mini-batch size and regularisation.
        loss: mean loss of a batch from the module's output and the targets.
        prepare: turns raw rows into what the module takes (type, scale, layout).
    """

    def __init__(
        self,
        *,
        model: FlatModel,
        inputs: AnyArray,
        targets: AnyArray,
        shard: IntArray,
        sgd: Sgd,
        loss: Loss,
        prepare: Prepare,
    ) -> None:
        self._model = model
        self._inputs, self._targets, self._shard = inputs, targets, shard
        self._sgd, self._loss, self._prepare = sgd, loss, prepare

    @property
    def x(self) -> FloatArray:
        """The live flat model, shape (d,)."""
        return self._model.x

    def state(self) -> dict[str, AnyArray]:
        """The momentum buffer, if there is one."""
        return self._model.momentum()

    def restore(self, state: Mapping[str, AnyArray]) -> None:
        """Take on a momentum buffer."""
        self._model.set_momentum(state)

    def train(self, steps: int, rng: np.random.Generator, poll: Poll | None = None) -> float:
        """Run ``steps`` SGD steps in place and return the mean of their batches' losses."""
        import torch

        model, module, sgd = self._model, self._model.module, self._sgd
        prepare, loss_of, clear, update = self._prepare, self._loss, model.clear, model.update
        losses = []
        for inputs, targets in self._batches(steps, rng):
            loss = loss_of(module(prepare(inputs)), targets)
            clear()
            loss.backward()  # type: ignore[no-untyped-call]
            update(sgd)
            losses.append(loss.detach())
            if poll is not None:
                poll()
        return torch.stack(losses).mean(dtype=torch.float64).item()

    def _batches(self, steps: int, rng: np.random.Generator) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
        """The batches of one call, gathered from the mapped data about a megabyte at a time."""
        import torch

        rows, sizes = batch_rows(self._shard, self._sgd.batch, steps, rng)
        row_bytes = self._inputs.nbytes // len(self._inputs)
        together = max(1, _GATHER_BYTES // (row_bytes * self._sgd.batch))
        start = 0
        for first in range(0, steps, together):
            some = sizes[first : first + together]
            chosen = rows[start : start + sum(some)]
            start += len(chosen)
            inputs = torch.from_numpy(self._inputs[chosen]).split(some)  # type: ignore[no-untyped-call]
            targets = torch.from_numpy(self._targets[chosen]).split(some)  # type: ignore[no-untyped-call]
            yield from zip(inputs, targets, strict=True)


def batch_rows(
    shard: IntArray, batch: int, steps: int, rng: np.random.Generator
) -> tuple[IntArray, list[int]]:
    """Rows of ``steps`` mini-batches one after the other, and the size of each batch.

    Every epoch is a fresh permutation of ``shard``, so no row comes twice in an epoch; its last batch is
    short where ``batch`` does not divide the shard (algorithms.md 1.4).
    """
    per_epoch = -(-len(shard) // batch)
    epochs = -(-steps // per_epoch)
    sizes = ([batch] * (per_epoch - 1) + [len(shard) - batch * (per_epoch - 1)]) * epochs
    rows = np.concatenate([rng.permutation(shard) for _ in range(epochs)])
    return rows[: sum(sizes[:steps])], sizes[:steps]


def evaluate(
    *,
    model: FlatModel,
    inputs: AnyArray,
    targets: AnyArray,
    rows: IntArray,
    loss: Loss,
    prepare: Prepare,
    batch: int,
) -> dict[str, float]:
    """Mean ``loss`` and share of right classes (``acc``) over ``rows``, every row weighing the same.

    Args:
        model: evaluated as it is; not changed.
        inputs: shape (N, ...).
        targets: classes, shape (N,).
        rows: which of the N rows.
        loss: mean loss of a batch.
        prepare: as in ``TorchLearner``.
        batch: rows per forward pass; more cost memory, fewer time.
    """
    import torch

    loss_sum, right = 0.0, 0
    with torch.inference_mode():
        for start in range(0, len(rows), batch):
            chosen = rows[start : start + batch]
            target = torch.from_numpy(targets[chosen])
            output = model.module(prepare(torch.from_numpy(inputs[chosen])))
            loss_sum += loss(output, target).item() * len(chosen)
            right += int((output.argmax(dim=1) == target).sum())
    return {"loss": loss_sum / len(rows), "acc": right / len(rows)}


def _views(flat: torch.Tensor, shapes: Shapes) -> Iterator[torch.Tensor]:
    start = 0
    for _, shape in shapes:
        piece = flat[start : start + prod(shape)]
        start += prod(shape)
        if len(shape) == _CONVOLUTION_AXES:
            outputs, inputs, height, width = shape
            yield piece.view(outputs, height, width, inputs).permute(0, 3, 1, 2)
        else:
            yield piece.view(shape)


def _agree(module: torch.nn.Module, shapes: Shapes) -> None:
    import torch

    kind = type(module).__name__
    if buffers := [name for name, _ in module.named_buffers()]:
        raise ConfigError(
            f"{kind} has buffers {buffers}: only parameters are averaged; use GroupNorm or the like"
        )
    for name, parameter in module.named_parameters():
        if parameter.dtype != torch.float32 or not parameter.requires_grad:
            raise ConfigError(f"{kind}.{name}: expected a trainable float32 parameter; convert or remove it")
    found = tuple((name, tuple(parameter.shape)) for name, parameter in module.named_parameters())
    if found != shapes:
        raise ConfigError(
            f"{kind} has parameters {found}: the task's shapes() says {shapes}; make them agree"
        )
