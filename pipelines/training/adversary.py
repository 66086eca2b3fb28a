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


class Adversary:
    """The critic of a run and its optimizer, whose rate is that of the network's.

    real: the target's samples.
    """

    def __init__(self, config: Config, accelerator: Accelerator, real: Sampler) -> None:
        self.config, self.accelerator, self.real = config, accelerator, real
        torch.manual_seed(derive_seed(config.seed, "critic"))
        self.critic = Critic(channels=config.shape[0]).to(accelerator.device)
        parameters = self.critic.parameters()
        self.optimizer = torch.optim.AdamW(
            parameters, lr=config.train.lr, betas=(0.5, 0.99), weight_decay=0.0, fused=True
        )
        self.model, self.prepared_optimizer = accelerator.prepare(self.critic, self.optimizer)

    def draw(self, number: int) -> Tensor:
        """Return the real samples of step `number`, for all processes together: as many as the batch."""
        seed = derive_seed(self.config.seed, "critic")
        return self.real.draw(self.config.train.batch_size, seed=seed, step=number).samples

    def teach(self, real: Tensor, results: Tensor, *, share: float) -> None:
        """Add to the critic's gradient that of its loss on as many of the real samples as results, × `share`.

        real: [B, C, H, W]; results: [n, C, H, W] with n ≤ B.
        """
        scores = self.model(torch.cat([real[: len(results)], results.detach()]))
        self.accelerator.backward(critic_loss(*scores.chunk(2)) * share)

    def loss(self, results: Tensor) -> Tensor:
        """Return what the network loses by the critic's scores of its results, weighted; the critic learns nothing."""
        self.critic.requires_grad_(False)
        with self.accelerator.autocast():
            scores = self.critic(results)
        self.critic.requires_grad_(True)
        return self.config.train.adversary * adversarial_loss(scores.float())
