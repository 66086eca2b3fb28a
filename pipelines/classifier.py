"""A small classifier of a data set's images, to judge whether what was generated is what was asked."""

import json
import logging
from pathlib import Path

import torch
import torch.nn.functional as F
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file
from torch import Tensor, nn
from tqdm import trange

from configs.schema import SamplerConfig, UserError
from datasets import Sampler, build_sampler
from datasets.keyed import generator, key
from pipelines.weights import load_strictly, save_tensors

log = logging.getLogger("flowferry")

BATCH = 128
REACH = 2  # pixels that training images are shifted by, at most


def conv(cin: int, cout: int, *, stride: int = 1) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(cin, cout, 3, stride, padding=1, bias=False), nn.BatchNorm2d(cout), nn.ReLU(inplace=True)
    )


class Classifier(nn.Sequential):
    """images [B, C, H, W] in [-1, 1], H and W at least 16 -> logits [B, classes]; below 250,000 parameters."""

    def __init__(self, *, channels: int, classes: int) -> None:
        super().__init__(
            conv(channels, 24, stride=2),
            conv(24, 48),
            conv(48, 64, stride=2),
            conv(64, 96),
            conv(96, 96, stride=2),
            nn.AdaptiveAvgPool2d(1),
            nn.Flatten(),
            nn.Linear(96, classes),
        )


def train_classifier(train: Sampler, *, seed: int = 0, epochs: int = 3) -> Classifier:
    """A classifier of the sampler's labelled images, by cross-entropy on shifted images with a one-cycle rate.

    The same data and seed give the same one on the same machine; torch's own generator is left as it was. Raises
    UserError for a sampler without labels or without an end.
    """
    if not train.classes or train.size is None or len(train.shape) != 3:
        raise UserError("a classifier learns from labelled images: found a sampler of another kind")
    first = train.draw(1, seed=seed, step=0).samples
    with torch.random.fork_rng():
        torch.manual_seed(key(seed, "classifier"))
        model = Classifier(channels=train.shape[0], classes=train.classes)
    model.to(first.device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    batch = min(BATCH, train.size)
    steps = epochs * max(8, train.size // batch)  # tiny sets are passed over more often
    optimizer = torch.optim.AdamW(model.parameters(), weight_decay=0.05)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, max_lr=1e-2, total_steps=steps)
    model.train()
    for step in trange(steps, desc="classifier", unit="step", dynamic_ncols=True, leave=False):
        images, labels = train.draw(batch, seed=key(seed, "classifier"), step=step)
        assert labels is not None, "it has classes"
        loss = F.cross_entropy(model(shifted(images, seed, step)), labels)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
    return model.eval()


def shifted(images: Tensor, seed: int, step: int) -> Tensor:
    """All images of a batch moved by the same few pixels, black behind: a new shift each step."""
    g = generator("cpu", seed, "shift", step)
    down, right = torch.randint(0, 2 * REACH + 1, (2,), generator=g).tolist()
    padded = F.pad(images, [REACH] * 4, value=-1.0)
    height, width = images.shape[2:]
    return padded[:, :, down : down + height, right : right + width].contiguous(memory_format=torch.channels_last)


@torch.no_grad()
def accuracy(classifier: Classifier, images: Tensor, labels: Tensor) -> float:
    """The share of `images` [B, C, H, W] that the classifier takes for their `labels`, int64 [B]."""
    classifier.eval()
    right = [
        (classifier(part).argmax(dim=1) == wanted).sum().item()
        for part, wanted in zip(images.split(1000), labels.split(1000), strict=True)
    ]
    return sum(right) / len(labels)


def trained_classifier(
    config: SamplerConfig, shape: tuple[int, ...], *, data_root: Path, folder: Path, device: torch.device
) -> tuple[Classifier, float]:
    """(classifier, its accuracy on the test images) of a data set: the one in `folder`, or a new one, kept there.

    Raises UserError where the data has no labels, or the file in `folder` is not such a classifier's.
    """
    file = folder / f"{config.kind}{getattr(config, 'count', '')}.safetensors"
    if file.is_file():
        model, right = load(file, tuple(shape))
        return model.to(device).eval(), right
    log.info("training a classifier of %s, once: %s", config.kind, file)
    train, test = (
        build_sampler(config, shape, data_root=data_root, split=split, device=device) for split in ("train", "test")
    )
    model = train_classifier(train)
    assert test.size is not None, "as the training split"
    images, labels = test.draw(test.size, seed=0, step=0)
    assert labels is not None, "as the training split"
    right = accuracy(model, images, labels)
    save(model, file, shape=train.shape, classes=train.classes, right=right)
    log.info("it is right on %.2f %% of the test images", 100 * right)
    return model, right


def save(model: Classifier, file: Path, *, shape: tuple[int, ...], classes: int, right: float) -> None:
    told = {"shape": json.dumps(shape), "classes": str(classes), "accuracy": repr(right)}
    save_tensors(file, model.state_dict(), told)


def load(file: Path, shape: tuple[int, ...]) -> tuple[Classifier, float]:
    """The inverse of `save`. Raises UserError naming the file where it is broken or not of images of `shape`."""
    try:
        with safe_open(file, "pt") as opened:
            told = opened.metadata() or {}
        if json.loads(told["shape"]) != list(shape):
            raise ValueError(f"found images of shape {told['shape']}, accepted: {list(shape)}")
        model = Classifier(channels=shape[0], classes=int(told["classes"]))
        load_strictly(model, load_file(file), what=str(file))
        # The layout that it was trained in, so that loaded and trained give the same logits to the bit.
        model.to(memory_format=torch.channels_last)
        return model, float(told["accuracy"])
    except (SafetensorError, KeyError, ValueError) as error:
        raise UserError(
            f"{file} is not a classifier of this version ({error}); remove it, and it is made anew"
        ) from error
