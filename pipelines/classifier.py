"""A small classifier of a data set's images: its features are what measures compare, its classes what was asked."""

import hashlib
import json
import logging
from pathlib import Path
from typing import NamedTuple

import torch
import torch.nn.functional as F
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file
from torch import Tensor, nn
from tqdm import trange

from configs.checks import UserError
from configs.cli import FeaturesOptions
from configs.parts import (
    AugmentConfig,
    DrawnColoursConfig,
    DrawnDigitsConfig,
    DrawnGarmentsConfig,
    ImageFolderConfig,
    SamplerConfig,
)
from configs.places import FEATURES, RUNS, classifiers_of
from configs.schema import Config
from datasets import Sampler, build_sampler
from datasets.augment import augmented
from datasets.folders import listed
from datasets.keyed import generator, key
from pipelines.checkpoint import sha256
from pipelines.machine import best_device, has_bf16, use_cores
from pipelines.optimizers import muon
from pipelines.weights import load_strictly, save_tensors

log = logging.getLogger("flowferry")

BATCH, EPOCHS, RATE = 128, 14, 3e-3
WIDTHS = (64, 96)
SHIFTED = AugmentConfig(shifted=2)
CHANGED = AugmentConfig(mirrored=True, hidden=7, shifted=2)
MIRRORED_AS_GOOD = ("fashion-mnist", "cifar10", "drawn-garments", "drawn-colours")
AUGMENT = dict.fromkeys(MIRRORED_AS_GOOD, CHANGED)


def conv_norm(cin: int, cout: int, kernel: int = 3, *, stride: int = 1) -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(cin, cout, kernel, stride, kernel // 2, bias=False), nn.BatchNorm2d(cout))


class Residual(nn.Module):
    """x [B, C, H, W] -> the same shape"""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.first, self.second = conv_norm(channels, channels), conv_norm(channels, channels)

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(x + self.second(F.relu(self.first(x))))


class Classifier(nn.Module):
    """images [B, C, H, W] in [-1, 1], H and W at least 16 -> logits [B, classes]; 300,000 parameters."""

    def __init__(self, *, channels: int, classes: int) -> None:
        super().__init__()
        fine, coarse = WIDTHS
        self.body = nn.Sequential(
            conv_norm(channels, fine, 5, stride=2),
            nn.ReLU(),
            Residual(fine),
            conv_norm(fine, coarse, stride=2),
            nn.ReLU(),
            Residual(coarse),
            nn.AdaptiveAvgPool2d(1),
            nn.Flatten(),
        )
        self.head = nn.Linear(coarse, classes)

    def features(self, images: Tensor) -> Tensor:
        """[B, 96], what the logits are a linear function of."""
        return self.body(images)

    def forward(self, images: Tensor) -> Tensor:
        return self.head(self.features(images))


class TrainedClassifier(NamedTuple):
    """A trained classifier, its accuracy on the test images, and the SHA-256 of its file."""

    classifier: Classifier
    accuracy: float
    sha256: str


def train_classifier(
    train: Sampler, *, augment: AugmentConfig = SHIFTED, seed: int = 0, epochs: int = EPOCHS
) -> Classifier:
    """A classifier of the sampler's labelled images, by cross-entropy with smoothed labels on augmented images.

    The same data and seed give the same one on the same machine; torch's own generator is left as it was. Raises
    UserError for a sampler without labels or without an end.
    """
    if train.classes < 2 or train.size is None or len(train.shape) != 3:
        raise UserError(
            f"a classifier learns from labelled images of two classes or more: found {train.classes} classes of "
            f"{train.size or 'endless'} samples of shape {tuple(train.shape)}"
        )
    device = train.draw(1, seed=seed, step=0).samples.device
    with torch.random.fork_rng():
        torch.manual_seed(key(seed, "classifier"))
        model = Classifier(channels=train.shape[0], classes=train.classes)
    model.to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    batch = min(BATCH, train.size)
    steps = epochs * max(8, train.size // batch)  # tiny sets are passed over more often
    optimizers = muon(model, RATE)
    model.train()
    for step in trange(steps, desc="classifier", unit="step", dynamic_ncols=True, leave=False):
        images, labels = train.draw(batch, seed=key(seed, "classifier"), step=step)
        assert labels is not None, "it has classes"
        g = generator(device, seed, "augment", step)
        images = augmented(images, augment, g).contiguous(memory_format=torch.channels_last)
        with torch.autocast(device.type, torch.bfloat16, enabled=has_bf16(device)):
            logits = model(images)
        F.cross_entropy(logits, labels, label_smoothing=0.05).backward()
        for optimizer in optimizers:
            for group in optimizer.param_groups:
                group["lr"] = RATE * min(1.0, 10 * step / steps) * (1 - step / steps)
            optimizer.step()
            optimizer.zero_grad()
    return model.eval()


# --- judging ---------------------------------------------------------------------------------------------


@torch.no_grad()
def extract(classifier: Classifier, images: Tensor) -> tuple[Tensor, Tensor]:
    """Features [B, 96] and class probabilities [B, classes] of `images` [B, C, H, W] in [-1, 1], 500 at a time."""
    classifier.eval()
    features = torch.cat([classifier.features(part) for part in images.split(500)])
    return features, classifier.head(features).softmax(dim=1)


@torch.no_grad()
def accuracy(classifier: nn.Module, images: Tensor, labels: Tensor) -> float:
    """The share of `images` [B, C, H, W] that the classifier takes for their `labels`, int64 [B]."""
    classifier.eval()
    right = [
        (classifier(part).argmax(dim=1) == wanted).sum().item()
        for part, wanted in zip(images.split(500), labels.split(500), strict=True)
    ]
    return sum(right) / len(labels)


# --- kept in a file --------------------------------------------------------------------------------------


def run(options: FeaturesOptions, config: Config) -> int:
    """The verb `features`."""
    sampler: SamplerConfig = getattr(config, options.of)
    file = options.output or classifiers_of(RUNS / config.name) / file_name(sampler, config.shape)
    device = best_device()
    if device.type == "cpu":
        use_cores()
    right = make(sampler, config.shape, data_root=options.data_root, file=file, device=device)
    log.info("%s: right on %.2f %% of the test images", file, 100 * right)
    return 0


def file_name(config: SamplerConfig, shape: tuple[int, ...]) -> str:
    """One for each data set and size of image, whatever else a pipeline does with it."""
    mark = ""
    if isinstance(config, ImageFolderConfig):
        told = json.dumps([str(Path(config.root).resolve()), config.resize, config.background, shape, listed(config)])
        mark = "-" + hashlib.sha256(told.encode()).hexdigest()[:12]
    elif isinstance(config, DrawnDigitsConfig | DrawnGarmentsConfig | DrawnColoursConfig):
        mark = f"-{config.count}-{'x'.join(map(str, shape))}"
    return f"{config.kind}{mark}.safetensors"


def trained_classifier(
    config: SamplerConfig, shape: tuple[int, ...], *, classes: int, data_root: Path, folder: Path, device: torch.device
) -> TrainedClassifier:
    """The classifier of a data set: the one in `folder`, else the shipped one, else a new one, kept in `folder`.

    Raises UserError where the data has no labels, or where the file found is not a classifier of its `classes`.
    """
    name = file_name(config, shape)
    file = next((f / name for f in (folder, FEATURES) if (f / name).is_file()), None)
    if file is None:
        file = folder / name
        log.info("training a classifier of %s, once: %s", config.kind, file)
        right = make(config, shape, data_root=data_root, file=file, device=device)
        log.info("it is right on %.2f %% of the test images", 100 * right)
    trained = load(file, tuple(shape), device)
    if (known := trained.classifier.head.out_features) != classes:
        raise UserError(
            f"{file} tells {known} classes apart, {config.kind} has {classes}; remove it, and it is made anew"
        )
    return trained


def make(config: SamplerConfig, shape: tuple[int, ...], *, data_root: Path, file: Path, device: torch.device) -> float:
    """Trains a classifier of a data set and writes it to `file`; returns its accuracy on the test images."""
    train, test = (
        build_sampler(config, shape, data_root=data_root, split=split, device=device) for split in ("train", "test")
    )
    model = train_classifier(train, augment=AUGMENT.get(config.kind, SHIFTED))
    model.load_state_dict(halved(model.state_dict()))  # measured as it will be read back
    assert test.size is not None, "as the training split"
    images, labels = test.draw(test.size, seed=0, step=0)
    assert labels is not None, "as the training split"
    right = accuracy(model, images, labels)
    told = {"shape": json.dumps(train.shape), "classes": str(train.classes), "accuracy": repr(right)}
    save_tensors(file, halved(model.state_dict()), told)
    return right


def halved(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """In half precision, for half the file. BatchNorm's variances fit: they are far from 65,504 and from 6e-8."""
    return {name: tensor.half() if tensor.is_floating_point() else tensor for name, tensor in tensors.items()}


def load(file: Path, shape: tuple[int, ...], device: torch.device) -> TrainedClassifier:
    """The inverse of `make`. Raises UserError naming the file where it is broken or not of images of `shape`."""
    try:
        with safe_open(file, "pt") as opened:
            told = opened.metadata() or {}
        if json.loads(told["shape"]) != list(shape):
            raise ValueError(f"found images of shape {told['shape']}, accepted: {list(shape)}")
        model = Classifier(channels=shape[0], classes=int(told["classes"]))
        load_strictly(model, load_file(file), what=str(file))
        model.to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        return TrainedClassifier(model.eval(), float(told["accuracy"]), sha256(file))
    except (SafetensorError, KeyError, ValueError, UserError) as error:
        raise UserError(
            f"{file} is not a classifier of this version ({error}); remove it, and it is made anew"
        ) from error
