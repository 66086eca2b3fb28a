"""An adversary: a critic that learns to tell results from real samples while the network learns to pass for real.

Where x_t leaves several results open, a distance alone teaches their middle, which is a blur. The critic sees that no
real sample is one (Goodfellow et al. 2014; beside a distance, Isola et al. 2017; for few steps, Sauer et al. 2023).
"""

import torch
from accelerate import Accelerator
from torch import Tensor

from flowferry.configs.schema import Config
from flowferry.datasets.base import Sampler
from flowferry.datasets.rng import derive_seed
from flowferry.models.critic import Critic
from flowferry.pipelines.flow.losses import adversarial_loss, critic_loss
from flowferry.pipelines.flow.objectives import OBJECTIVES


class Adversary:
    """The critic of a run and its optimizer, whose rate is that of the network's.

    real: the target's samples.
    """

    def __init__(self, config: Config, accelerator: Accelerator, real: Sampler) -> None:
        self.config, self.accelerator, self.real = config, accelerator, real
        self.judged_every = OBJECTIVES[config.objective].judged_every
        torch.manual_seed(derive_seed(config.seed, "critic"))
        self.critic = Critic(channels=config.shape[0]).to(accelerator.device)
        parameters = self.critic.parameters()
        self.optimizer = torch.optim.AdamW(
            parameters, lr=config.train.lr, betas=(0.5, 0.99), weight_decay=0.0, fused=True
        )
        self.model, self.prepared_optimizer = accelerator.prepare(self.critic, self.optimizer)

    def draw(self, number: int) -> Tensor:
        """Return the real samples of step `number`, for all processes together: as many as have results to judge."""
        count, seed = self.config.train.batch_size // self.judged_every, derive_seed(self.config.seed, "critic")
        return self.real.draw(count, seed=seed, step=number).samples

    def teach(self, real: Tensor, results: Tensor, *, share: float) -> None:
        """Add to the critic's gradient that of its loss on n real samples and n results [n, C, H, W], × `share`."""
        scores = self.model(torch.cat([real, results.detach()]))
        self.accelerator.backward(critic_loss(*scores.chunk(2)) * share)

    def loss(self, results: Tensor) -> Tensor:
        """Return what the network loses by the critic's scores of its results, weighted; the critic learns nothing."""
        self.critic.requires_grad_(False)
        with self.accelerator.autocast():
            scores = self.critic(results)
        self.critic.requires_grad_(True)
        return self.config.train.adversary * adversarial_loss(scores.float())


class Comparison:
    """What the critic compares in one part of a batch: the part's results that are judged with as many real samples.

    real: those of the whole batch, as `Adversary.draw` returns them; index: the part's number, among the parts of all
    processes. Each place of the batch has its own real sample, in however many parts it is computed.
    """

    def __init__(self, adversary: Adversary, real: Tensor, index: int) -> None:
        train, every = adversary.config.train, adversary.judged_every
        processes = adversary.accelerator.num_processes
        size = train.batch_size // (processes * train.accumulate)
        start, stop = index * size, (index + 1) * size
        self.adversary, self.results = adversary, real[:0]
        self.places = slice(-(start + 1) % every, None, every)
        self.real = real[start // every : stop // every]
        self.share = len(self.real) * processes / len(real)  # the gradient is the mean over processes

    def judge(self, seen: Tensor) -> Tensor:
        """Return what the network loses by those of its results [B, …] that are judged, each of which weighs 1/B."""
        judged = seen[self.places]
        self.results = judged.detach()
        return self.adversary.loss(judged) * (len(judged) / len(seen))

    def teach(self) -> None:
        """Add to the critic's gradient this part's share of it."""
        self.adversary.teach(self.real, self.results, share=self.share)
