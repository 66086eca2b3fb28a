"""Encoders of images without labels, for features: trained on a data set once, kept in a file, loaded again."""

import json
import logging
from pathlib import Path
from typing import NamedTuple

import torch
import torch.nn.functional as F
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file
from torch import Tensor
from tqdm import trange

from flowferry.configs.components import SamplerConfig
from flowferry.configs.validation import UserError
from flowferry.datasets.base import Sampler
from flowferry.datasets.rng import derive_seed, generator
from flowferry.datasets.wrappers import Augmented
from flowferry.models.encoder import Encoder
from flowferry.pipelines.evaluation.classifier import file_name
from flowferry.pipelines.hardware import has_bf16
from flowferry.pipelines.optimizers import muon, set_rate
from flowferry.pipelines.storage.files import prepare_folder, sha256
from flowferry.pipelines.storage.weights import load_strictly, save_tensors, to_half

log = logging.getLogger("flowferry")

BATCH, EPOCHS, MAX_STEPS, RATE = 32, 20, 300, 3e-3
TEMPERATURE = 0.2
MAX_SIDE = 64  # of a view, in pixels
ZOOM, TINT = 0.35, 0.2  # how much smaller a view may be than its image, and how much its colors may change
SIGMAS, NOISE = (0.5, 1.7), (0.1, 0.4)  # standard deviations of the blur, in pixels, and of the noise of damaged views


class TrainedEncoder(NamedTuple):
    """An encoder, and the SHA-256 of its file."""

    encoder: Encoder
    sha256: str


# --- training -------------------------------------------------------------------------------------------


def train_encoder(train: Sampler, *, seed: int = 0) -> Encoder:
    """Train an encoder of the sampler's images, and return it in evaluation mode. Labels are not used.

    It tells each image from the others by two views of it (SimCLR, Chen et al. 2020, eq. 1), which makes its features
    indifferent to small shifts, and tells whole views from blurred and noisy ones, which makes them sensitive to such
    damage. The same data and seed give the same encoder on the same machine; torch's global generator is left as it
    was.
    """
    assert train.size is not None and len(train.shape) == 3, "a folder of images"
    device = train.draw(1, seed=seed, step=0).samples.device
    with torch.random.fork_rng():
        torch.manual_seed(derive_seed(seed, "encoder"))
        model = Encoder(channels=train.shape[0])
    model.to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    batch = min(BATCH, max(2, train.size))
    steps = min(MAX_STEPS, EPOCHS * -(-train.size // batch))
    optimizers = muon(model, RATE)
    model.train()
    for step in trange(steps, desc="encoder", unit="step", dynamic_ncols=True, leave=False):
        images = train.draw(batch, seed=derive_seed(seed, "encoder"), step=step).samples
        encoder_loss(model, images, generator(device, seed, "views", step)).backward()
        set_rate(optimizers, RATE * min(1.0, 10 * step / steps) * (1 - step / steps))
        for optimizer in optimizers:
            optimizer.step()
            optimizer.zero_grad()
    return model.eval()


def encoder_loss(model: Encoder, images: Tensor, g: torch.Generator) -> Tensor:
    """Return the loss of images [B, C, H, W]: contrastive on two views, and half of that of their damage on a third."""
    count = len(images)
    whole = torch.cat([view(images, g), view(images, g)])
    damaged, kind = damage(view(images, g), g)
    views = torch.cat([whole, damaged]).contiguous(memory_format=torch.channels_last)
    with torch.autocast(views.device.type, torch.bfloat16, enabled=has_bf16(views.device)):
        features = model.features(views)
    features = features.float()
    embedding = F.normalize(model.embedding(features[: 2 * count]), dim=1)
    likeness = (embedding @ embedding.T / TEMPERATURE).fill_diagonal_(-torch.inf)
    partner = torch.arange(2 * count, device=views.device).roll(count)
    kinds = torch.cat([torch.zeros(2 * count, dtype=torch.long, device=views.device), kind])
    return F.cross_entropy(likeness, partner) + 0.5 * F.cross_entropy(model.damage(features), kinds)


def view(images: Tensor, g: torch.Generator) -> Tensor:
    """Return a random part of each image [B, C, H, W], MAX_SIDE large at most, perhaps mirrored, in other colors.

    Fine detail is seen as it is: a part of a large image is not scaled down.
    """

    def uniform(*shape: int) -> Tensor:
        return torch.rand(*shape, generator=g, device=images.device)

    count, channels = images.shape[:2]
    sides = [min(MAX_SIDE, side) for side in images.shape[2:]]
    whole = torch.tensor([sides[1] / images.shape[3], sides[0] / images.shape[2]], device=images.device)  # x, then y
    size = (1 - ZOOM * uniform(count, 1)) * whole
    transform = torch.zeros(count, 2, 3, device=images.device)
    transform[:, 0, 0] = size[:, 0] * (1 - 2 * (uniform(count) < 0.5).float())
    transform[:, 1, 1] = size[:, 1]
    transform[:, :, 2] = (2 * uniform(count, 2) - 1) * (1 - size)
    grid = F.affine_grid(transform, [count, channels, *sides], align_corners=False)
    parts = F.grid_sample(images, grid, padding_mode="border", align_corners=False)
    gain, shift = (TINT * (2 * uniform(count, channels if of_each else 1, 1, 1) - 1) for of_each in (True, False))
    return parts * (1 + gain) + shift


def damage(images: Tensor, g: torch.Generator) -> tuple[Tensor, Tensor]:
    """Return the images [B, C, H, W], the first half blurred and the rest noisy; and which it is, 1 or 2, int64 [B]."""
    from torchvision.transforms.functional import gaussian_blur  # to import it takes longer than torch

    half = len(images) // 2
    strength = float(torch.rand((), generator=g, device=images.device))
    sigma, std = (low + strength * (high - low) for low, high in (SIGMAS, NOISE))
    blurred = gaussian_blur(images[:half], [2 * round(3 * sigma) + 1] * 2, [sigma] * 2)
    noise = torch.randn(images[half:].shape, generator=g, device=images.device)
    kind = 1 + (torch.arange(len(images), device=images.device) >= half).long()
    return torch.cat([blurred, images[half:] + std * noise]), kind


# --- kept in a file -------------------------------------------------------------------------------------


def trained_encoder(config: SamplerConfig, train: Sampler, *, folder: Path) -> TrainedEncoder:
    """Return the encoder of a data set: the one in `folder`, else a new one that is trained on `train` and kept there.

    Augmentation is taken off `train`. Raises UserError where the file is not an encoder of such images, or cannot be
    written.
    """
    file = folder / f"encoder-{file_name(config, train.shape)}"
    device = train.draw(1, seed=0, step=0).samples.device
    if not file.is_file():
        prepare_folder(folder, "the encoder's folder")
        log.info("training an encoder of the images of %s without labels, once: %s", config.kind, file)
        model = train_encoder(train.plain if isinstance(train, Augmented) else train)
        save_tensors(file, to_half(model.state_dict()), {"shape": json.dumps(train.shape)}, shared=True)
    return load(file, tuple(train.shape), device)


def load(file: Path, shape: tuple[int, ...], device: torch.device) -> TrainedEncoder:
    """Load what `trained_encoder` wrote. Raises UserError naming a file that is broken or not for images of `shape`."""
    try:
        with safe_open(file, "pt") as opened:
            told = json.loads((opened.metadata() or {})["shape"])
        if told != list(shape):
            raise ValueError(f"got images of shape {told}, expected {list(shape)}")
        model = Encoder(channels=shape[0])
        load_strictly(model, load_file(file), what=str(file))
    except (SafetensorError, KeyError, ValueError, UserError) as error:
        raise UserError(f"{file} is not an encoder of this version ({error}); delete it to retrain") from error
    model.to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    return TrainedEncoder(model.eval(), sha256(file))
