"""Classifiers of images, for features and labels: trained on a data set once, kept in a file, loaded again."""

import hashlib
import json
import logging
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

import torch
import torch.nn.functional as F
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file
from tqdm import trange

from flowferry.configs.components import AugmentConfig, ImageFolderConfig, SamplerConfig
from flowferry.configs.layouts import PLAIN
from flowferry.configs.locations import FEATURES, classifier_folder
from flowferry.configs.schema import Config
from flowferry.configs.validation import UserError
from flowferry.datasets.augmentation import augment
from flowferry.datasets.base import Sampler
from flowferry.datasets.builders import build_sampler
from flowferry.datasets.members import members_of, unique_names
from flowferry.datasets.rng import derive_seed, generator
from flowferry.models.classifier import Classifier, accuracy
from flowferry.pipelines.hardware import has_bf16
from flowferry.pipelines.optimizers import muon, set_rate
from flowferry.pipelines.pipeline import Pipeline
from flowferry.pipelines.storage.files import prepare_folder, sha256
from flowferry.pipelines.storage.weights import load_strictly, save_tensors, to_half

log = logging.getLogger("flowferry")

BATCH, EPOCHS, RATE = 128, 14, 3e-3
SHIFTED = AugmentConfig(shifted=2)  # with black behind, as digits and garments have it
MIRRORED = AugmentConfig(mirrored=True, cutout=7, shifted=2)


class TrainedClassifier(NamedTuple):
    """A classifier, the share of the test images that it classifies correctly, and the SHA-256 of its file."""

    classifier: Classifier
    accuracy: float
    sha256: str


# --- training -------------------------------------------------------------------------------------------


def train_classifier(
    train: Sampler, *, augmentation: AugmentConfig = SHIFTED, seed: int = 0, epochs: int = EPOCHS
) -> Classifier:
    """Train a classifier of the sampler's labeled images, and return it in evaluation mode.

    It minimizes the cross-entropy with smoothed labels on augmented images. The same data and seed give the same
    classifier on the same machine; torch's global generator is left as it was. Raises UserError for an endless sampler
    and for one without labeled images.
    """
    if train.num_classes < 2 or train.size is None or len(train.shape) != 3:
        raise UserError(
            f"classifier: got {train.num_classes} classes of {train.size or 'endless'} samples of shape "
            f"{tuple(train.shape)}, expected labeled images of two classes or more"
        )
    device = train.draw(1, seed=seed, step=0).samples.device
    with torch.random.fork_rng():
        torch.manual_seed(derive_seed(seed, "classifier"))
        model = Classifier(channels=train.shape[0], num_classes=train.num_classes)
    model.to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    batch = min(BATCH, train.size)
    steps = epochs * max(8, train.size // batch)  # more epochs for tiny data sets
    optimizers = muon(model, RATE)
    model.train()
    for step in trange(steps, desc="classifier", unit="step", dynamic_ncols=True, leave=False):
        images, labels = train.draw(batch, seed=derive_seed(seed, "classifier"), step=step)
        assert labels is not None, "it has classes"
        g = generator(device, seed, "augment", step)
        images = augment(images, augmentation, g).contiguous(memory_format=torch.channels_last)
        with torch.autocast(device.type, torch.bfloat16, enabled=has_bf16(device)):
            logits = model(images)
        F.cross_entropy(logits, labels, label_smoothing=0.05).backward()
        set_rate(optimizers, RATE * min(1.0, 10 * step / steps) * (1 - step / steps))
        for optimizer in optimizers:
            optimizer.step()
            optimizer.zero_grad()
    return model.eval()


# --- kept in a file -------------------------------------------------------------------------------------


def file_name(config: SamplerConfig, shape: tuple[int, ...]) -> str:
    """Return the name of a classifier's file: one for each data set and image size, whichever pipeline uses it."""
    mark = ""
    if isinstance(config, ImageFolderConfig):
        images = unique_names(members_of(config))
        told = [str(Path(config.root).resolve()), config.resize, config.background, shape, images]
        if config.classes != tuple(sorted(config.classes)):  # the labels that a classifier gives; else alphabetical
            told.append(config.classes)
        if config.range is not None:
            told.append(config.range)
        if config.layout != PLAIN:
            told.append(config.layout)
        if config.shorter_side:
            told.append(["shorter side", config.shorter_side])
        mark = "-" + hashlib.sha256(json.dumps(told).encode()).hexdigest()[:12]
    elif config.is_synthetic:
        mark = f"-{config.count}-{'x'.join(map(str, shape))}"  # type: ignore[union-attr]
    return f"{config.kind}{mark}.safetensors"


def trained_classifier(
    config: SamplerConfig,
    shape: tuple[int, ...],
    *,
    num_classes: int,
    data_root: Path,
    folder: Path,
    device: torch.device,
) -> TrainedClassifier:
    """Return the classifier of a data set: the one in `folder`, else the shipped one, else a new one kept in `folder`.

    Raises UserError where the data has no labels, or where the file is not a classifier of `num_classes`.
    """
    file = kept_file(config, shape, folder)
    if file is None:
        file = folder / file_name(config, shape)
        log.info("training a classifier of %s, once: %s", config.kind, file)
        share = train_and_save(config, shape, data_root=data_root, file=file, device=device)
        log.info("it classifies %.2f %% of the test images correctly", 100 * share)
    trained = load(file, tuple(shape), device)
    if (found := trained.classifier.head.out_features) != num_classes:
        raise UserError(
            f"{file}: got {found} classes, expected the {num_classes} of {config.kind}; delete it to retrain"
        )
    return trained


def kept_file(config: SamplerConfig, shape: tuple[int, ...], folder: Path) -> Path | None:
    """Return the file of a data set's classifier, in `folder` or shipped; None where it has not been trained."""
    name = file_name(config, shape)
    return next((place / name for place in (folder, FEATURES) if (place / name).is_file()), None)


def train_and_save(
    config: SamplerConfig, shape: tuple[int, ...], *, data_root: Path, file: Path, device: torch.device
) -> float:
    """Train a classifier of a data set, write it to `file`, and return its accuracy on the test images.

    Raises UserError before the training where the file cannot be written.
    """
    prepare_folder(file.parent, "the classifier's folder")
    train, test = (
        build_sampler(config, shape, data_root=data_root, split=split, device=device) for split in ("train", "test")
    )
    model = train_classifier(train, augmentation=MIRRORED if config.mirror_invariant else SHIFTED)
    model.load_state_dict(to_half(model.state_dict()))  # so that what is measured is what will be loaded
    assert test.size is not None, "as the training split"
    images, labels = test.draw(test.size, seed=0, step=0)
    assert labels is not None, "as the training split"
    share = accuracy(model, images, labels)
    told = {"shape": json.dumps(train.shape), "num_classes": str(train.num_classes), "accuracy": repr(share)}
    save_tensors(file, to_half(model.state_dict()), told, shared=True)
    return share


def load(file: Path, shape: tuple[int, ...], device: torch.device) -> TrainedClassifier:
    """Load what `train_and_save` wrote. Raises UserError naming a file that is broken or not for images of `shape`."""
    try:
        with safe_open(file, "pt") as opened:
            told = opened.metadata() or {}
        if json.loads(told["shape"]) != list(shape):
            raise ValueError(f"got images of shape {told['shape']}, expected {list(shape)}")
        num_classes = told.get("num_classes") or told["classes"]  # its name in version 0.1
        model = Classifier(channels=shape[0], num_classes=int(num_classes))
        load_strictly(model, load_file(file), what=str(file))
        model.to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        return TrainedClassifier(model.eval(), float(told["accuracy"]), sha256(file))
    except (SafetensorError, KeyError, ValueError, UserError) as error:
        raise UserError(f"{file} is not a classifier of this version ({error}); delete it to retrain") from error


# --- inferring labels -----------------------------------------------------------------------------------


def label_classifier_of(
    config: Config, folder: Path, *, resumed: bool, data_root: Path, device: torch.device
) -> Classifier:
    """Return the classifier that infers the labels of the run in `folder`.

    Where the run is `resumed`, it is the one kept with its weights, if they are whole; otherwise a classifier of its
    source, which is trained if there is none yet. Raises UserError as `trained_classifier` does.
    """
    if resumed:
        with suppress(UserError):  # its weights are missing or broken
            kept = Pipeline.from_pretrained(folder / "model", device=device).label_classifier
            assert kept is not None, "a run that infers labels goes on doing so"
            return kept
    trained = trained_classifier(
        config.source,
        config.shape,
        num_classes=config.num_classes,
        data_root=data_root,
        folder=classifier_folder(folder),
        device=device,
    )
    kind, share = config.source.kind, 100 * trained.accuracy
    log.info("labels are inferred by a classifier of %s, correct on %.2f %% of its test images", kind, share)
    return trained.classifier
