"""One training step on the device: draw, loss, backward, clip, refuse what is not finite, update, average."""

import copy
from contextlib import nullcontext
from typing import Any

import torch
from accelerate import Accelerator
from torch import Tensor, nn

from flowferry.configs.schema import Config
from flowferry.configs.validation import UserError
from flowferry.datasets.base import Sampler
from flowferry.datasets.rng import derive_seed
from flowferry.models import build_model, to_device
from flowferry.pipelines.optimizers import OPTIMIZERS, set_rate
from flowferry.pipelines.pipeline import Pipeline
from flowferry.pipelines.storage import checkpoint, weights
from flowferry.pipelines.training.adversary import Adversary, Comparison
from flowferry.pipelines.training.batches import Pairs, draw_pairs
from flowferry.pipelines.training.distributed import synchronize_batchnorm


class TrainStep:
    """The network, its average and its optimizers, and the step that trains them. Knows neither folders nor clocks.

    raw_model is the network that is trained, ema_model the moving average of its weights (None without one), model
    the network as Accelerate runs it, eval_pipeline what is evaluated and exported: the average where there is one.
    start: a network like it, whose weights it starts from; None: random ones. real:
    what an adversary compares results with; None: the target. Raises UserError if the configuration and the network do
    not fit together.
    """

    def __init__(
        self,
        config: Config,
        accelerator: Accelerator,
        source: Sampler,
        target: Sampler,
        *,
        start: nn.Module | None = None,
        real: Sampler | None = None,
    ) -> None:
        self.config, self.accelerator, self.source, self.target = config, accelerator, source, target
        torch.manual_seed(derive_seed(config.seed, "weights"))
        self.raw_model = to_device(build_model(config), accelerator.device, train=True)
        if start is not None:
            self.raw_model.load_state_dict(start.state_dict())
        if config.train.sync_batchnorm:
            synchronize_batchnorm(self.raw_model, config.model.kind)
        self.ema_model = copy.deepcopy(self.raw_model).eval() if config.train.ema else None
        self.optimizers = OPTIMIZERS[config.train.optimizer](self.raw_model, config.train.lr)
        self.model, *self.prepared_optimizers = accelerator.prepare(self.raw_model, *self.optimizers)
        self.adversary = Adversary(config, accelerator, real or target) if config.train.adversary else None
        if self.adversary is not None:
            self.optimizers.append(self.adversary.optimizer)
            self.prepared_optimizers.append(self.adversary.prepared_optimizer)
        self.pipeline = Pipeline(config, self.model)
        self.eval_pipeline = Pipeline(config, self.raw_model if self.ema_model is None else self.ema_model)
        self._check_results()
        self._halted = torch.zeros((), dtype=torch.bool, device=accelerator.device)

    def _check_results(self) -> None:
        """Raise UserError where an adversary would be shown no result of some part of the batch."""
        train, every = self.config.train, self.pipeline.objective.judged_every
        of_part = train.batch_size // (self.accelerator.num_processes * train.accumulate)
        if train.adversary and of_part < every:
            got = f"{train.batch_size}, of which {of_part} go through the network at a time"
            raise UserError(f"--train.batch-size: got {got}, expected {every} at a time for the adversary of a map")

    @property
    def scales_loss(self) -> bool:
        """Whether a scaler multiplies the loss, as fp16 needs. It skips steps that are not finite by itself."""
        return self.accelerator.scaler is not None

    def global_batch(self, number: int) -> Pairs:
        """Return the pairs of step `number` (from 0), of all processes together."""
        config = self.config
        return draw_pairs(config, self.source, self.target, config.train.batch_size, seed=config.seed, step=number)

    def take(self, number: int, *, lr: float) -> Tensor:
        """Take step `number` (from 0), but change nothing if the loss or the gradient is not finite on any process.

        Returns [2], the loss and the gradient's norm, still on the device: nothing here waits for it.
        """
        set_rate(self.optimizers, lr)
        rank, size = self.accelerator.process_index, self.accelerator.num_processes
        mine = self.global_batch(number).shard(rank, size)
        torch.manual_seed(derive_seed(self.config.seed, "network", number, rank))
        statistics = [buffer.clone() for buffer in self.raw_model.buffers()]
        loss = self._backward(mine, None if self.adversary is None else self.adversary.draw(number))
        norm = self._clip_gradients()
        loss = self.accelerator.reduce(loss, "mean")
        refused = self._refuse(~(loss + norm).isfinite(), statistics)
        self._update_weights()
        self._average(number, refused)
        return torch.stack([loss, norm])

    def _backward(self, mine: Pairs, real: Tensor | None) -> Tensor:
        """Accumulate the gradients of this process's pairs, part by part; return their loss.

        real: target samples for the adversary, of all processes together.
        """
        parts, rank = self.config.train.accumulate, self.accelerator.process_index
        loss = torch.zeros((), device=self.accelerator.device)
        for index in range(parts):
            last = index == parts - 1
            with nullcontext() if last else self.accelerator.no_sync(self.model):
                compared = None
                if self.adversary is not None and real is not None:
                    compared = Comparison(self.adversary, real, rank * parts + index)
                judge, average = None if compared is None else compared.judge, self._ask_average
                part = self.pipeline.loss(*mine.shard(index, parts), judge=judge, average=average) / parts
                self.accelerator.backward(part)
                if compared is not None:
                    compared.teach()
            loss += part.detach()
        return loss

    @torch.no_grad()
    def _ask_average(self, *asked: Any) -> Tensor:
        """Return what the averaged network answers; the network itself without an average."""
        with self.accelerator.autocast():
            answer: Tensor = self.eval_pipeline.model(*asked)
        return answer.float()

    def _clip_gradients(self) -> Tensor:
        """Return the norm of the whole gradient as it was, and clip it to `clip_norm`."""
        self.accelerator.unscale_gradients()
        gradients = [p.grad for p in self.raw_model.parameters() if p.grad is not None]
        norm = torch.nn.utils.get_total_norm(gradients)
        if (limit := self.config.train.clip_norm) is not None:
            torch.nn.utils.clip_grads_with_norm_(self.raw_model.parameters(), limit, norm)
        return norm

    def _refuse(self, refused: Tensor, statistics: list[Tensor]) -> Tensor:
        """Tell the optimizers whether to skip this step, and restore BatchNorm's statistics if so.

        refused: bool, on the device. Returns it; where a step that is not finite ends the run, the steps after it are
        refused too, because the host learns of it later.
        """
        if not self.scales_loss:  # else the scaler tells the optimizers
            if self.config.train.on_nonfinite == "stop":
                refused = self._halted = refused | self._halted
            for optimizer in self.optimizers:
                optimizer.found_inf = refused.float()  # type: ignore[attr-defined]
        for buffer, old in zip(self.raw_model.buffers(), statistics, strict=True):
            buffer.copy_(torch.where(refused, old, buffer))
        return refused

    def _update_weights(self) -> None:
        """Take a step of every optimizer, and remove the gradients."""
        if (scaler := self.accelerator.scaler) is None:
            for optimizer in self.prepared_optimizers:
                optimizer.step()
        else:  # a prepared optimizer's step ends with the scaler's update, after which the next one is unscaled again
            for optimizer in self.optimizers:
                scaler.step(optimizer)
            scaler.update()
        for optimizer in self.prepared_optimizers:
            optimizer.zero_grad()

    def _average(self, number: int, refused: Tensor) -> None:
        """Update the average of the weights, unless the step was refused and the run goes on."""
        train = self.config.train
        if self.ema_model is not None and train.ema:
            goes_on = train.on_nonfinite == "skip" or self.scales_loss
            unless = refused if goes_on else None
            update_average(self.ema_model, self.raw_model, train.ema, updates=number, unless=unless)

    def keep_weaker(self) -> nn.Module:
        """Keep the network that is evaluated, as it is now, for guidance to lead away from, and return it.

        Its numbers are rounded to half precision, in which it is saved.
        """
        self.eval_pipeline.weaker = weaker = copy.deepcopy(self.eval_pipeline.model).eval()
        weaker.load_state_dict(weights.to_half(weaker.state_dict()))
        return weaker

    def describe(self) -> str:
        """Return the data and the network in a few words."""
        config = self.config
        parameters = sum(p.numel() for p in self.raw_model.parameters())
        sizes = " → ".join(
            f"{component.kind}" + (f" ({sampler.size:,})" if sampler.size else "")
            for component, sampler in ((config.source, self.source), (config.target, self.target))
        )
        return f"{sizes}; {config.model.kind}, {parameters:,} parameters"

    # --- saving and resuming -------------------------------------------------------------------------

    def tensors(self) -> dict[str, dict[str, Tensor]]:
        """Return all tensors that resuming needs, in groups by name."""
        groups = {f"optimizer{i}": checkpoint.optimizer_tensors(o) for i, o in enumerate(self.optimizers)}
        groups["model"] = self.raw_model.state_dict()
        if self.adversary is not None:
            groups["critic"] = self.adversary.critic.state_dict()
        if self.ema_model is not None:
            groups["ema"] = self.ema_model.state_dict()
        if self.eval_pipeline.weaker is not None:
            groups["weaker"] = self.eval_pipeline.weaker.state_dict()
        return groups

    def state(self) -> dict[str, Any]:
        """Return what else resuming needs, as JSON can hold it."""
        return {} if self.accelerator.scaler is None else {"scaler": self.accelerator.scaler.state_dict()}

    def load(self, tensors: dict[str, dict[str, Tensor]], state: dict[str, Any], *, what: str) -> None:
        """Restore what `tensors` and `state` returned. Raises UserError naming `what` where they do not fit."""
        weights.load_strictly(self.raw_model, tensors["model"], what=what)
        if self.ema_model is not None:
            weights.load_strictly(self.ema_model, tensors["ema"], what=what)
        if "weaker" in tensors:
            weights.load_strictly(self.keep_weaker(), tensors["weaker"], what=what)
        if self.adversary is not None:
            weights.load_strictly(self.adversary.critic, tensors["critic"], what=what)
        for i, optimizer in enumerate(self.optimizers):
            checkpoint.load_optimizer(optimizer, tensors[f"optimizer{i}"])
        if self.accelerator.scaler is not None and "scaler" in state:  # none where the precision was another
            self.accelerator.scaler.load_state_dict(state["scaler"])


@torch.no_grad()
def update_average(
    average: nn.Module, model: nn.Module, decay: float, *, updates: int, unless: Tensor | None = None
) -> None:
    """Set average ← d·average + (1 − d)·model, for the parameters and buffers of two modules that are alike.

    The first update copies; after n `updates` d = min(decay, (1 + n)/(10 + n)), so that the first steps do not linger
    in the average. Counters, such as BatchNorm's number of batches, are copied. unless: a bool on the device; where it
    is true, the average stays as it was. (torch's own AveragedModel keeps n on the device, and the host would wait to
    read it.)
    """
    d = min(decay, (1 + updates) / (10 + updates)) if updates else 0.0
    ours, theirs = ([*module.parameters(), *module.buffers()] for module in (average, model))
    pairs = list(zip(ours, theirs, strict=True))
    before = [] if unless is None else [own.clone() for own in ours]
    averaged = [pair for pair in pairs if pair[0].is_floating_point()]
    torch._foreach_lerp_([own for own, _ in averaged], [other for _, other in averaged], 1 - d)
    for counter, value in pairs:
        if not counter.is_floating_point():
            counter.copy_(value)
    if unless is not None:
        for own, old in zip(ours, before, strict=True):
            own.copy_(torch.where(unless, old, own))
