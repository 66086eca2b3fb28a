"""What a pipeline keeps: its configuration, its network and its label classifier; saved, shared and loaded."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from typing_extensions import Self

from flowferry.configs.networks import DiffusersConfig
from flowferry.configs.schema import Config
from flowferry.configs.validation import UserError
from flowferry.models import build_model, to_device
from flowferry.models.classifier import Classifier, extract
from flowferry.models.diffusers_unet import DiffusersUNet
from flowferry.pipelines.diffusers_pipeline import read_pipeline
from flowferry.pipelines.hardware import best_device, run_precision
from flowferry.pipelines.storage import hub, texts, weights
from flowferry.pipelines.storage.diffusers_folder import INDEX, is_diffusers
from flowferry.pipelines.storage.files import write_text

LABEL_CLASSIFIER, LABEL_CLASSIFIER_0_1 = "label_classifier.", "reader."  # prefixes of its tensors, now and in 0.1
WEAKER = "weaker."  # prefix of the tensors of the network that guidance leads away from


class Pretrained:
    """A configuration with its network and, where `config.infer_labels`, the classifier that infers labels.

    weaker: the network that guidance leads away from; None: there is none.
    """

    def __init__(
        self,
        config: Config,
        model: nn.Module | None = None,
        label_classifier: Classifier | None = None,
        weaker: nn.Module | None = None,
    ) -> None:
        self.config, self.weaker = config, None if weaker is None else weaker.eval()
        self.model = build_model(config) if model is None else model
        self.label_classifier = build_label_classifier(config) if label_classifier is None else label_classifier

    @property
    def device(self) -> torch.device:
        """The device of the network, to which samples are moved."""
        own: torch.device | None = getattr(self.model, "device", None)
        return own or next(self.model.parameters()).device

    def inferred_labels(self, samples: Tensor) -> Tensor | None:
        """Return the classes int64 [B] inferred from source samples [B, C, H, W]; None without a label classifier.

        The classifier sees them at the size that it was trained on.
        """
        if self.label_classifier is None:
            return None
        samples = samples.to(self.device)
        if samples.shape[1:] != self.config.shape:
            samples = F.adaptive_avg_pool2d(samples, self.config.shape[1:])  # type: ignore[arg-type]
        return extract(self.label_classifier, samples)[1].argmax(dim=1)

    @property
    def sampling(self) -> str:
        """How it is run, in a few words."""
        raise NotImplementedError

    def save_pretrained(self, folder: Path | str, *, step: int = 0) -> None:
        """Write `config.json` and `model.safetensors`, whose metadata describes it, into `folder`."""
        if isinstance(self.config.model, DiffusersConfig):
            raise UserError(f"{self.config.name}: got a pipeline of diffusers, expected one that was trained here")
        tensors = self.model.state_dict()
        if self.label_classifier is not None:
            tensors |= weights.to_half(self.label_classifier.state_dict(prefix=LABEL_CLASSIFIER))
        if self.weaker is not None:
            tensors |= weights.to_half(self.weaker.state_dict(prefix=WEAKER))
        weights.save(Path(folder), self.config, tensors, step=step)

    def push_to_hub(
        self,
        name: str,
        *,
        results: Mapping[str, float | str] | None = None,
        private: bool = False,
        token: str | None = None,
    ) -> str:
        """Upload weights, configuration and a model card with the `results` as "user/name" of the Hugging Face hub.

        token: None takes the one of `hf auth login`. Returns the address. Raises UserError where that fails.
        """
        with TemporaryDirectory() as folder:
            self.save_pretrained(folder)
            write_text(Path(folder, hub.CARD), hub.card(self.config, results or {}, name, self.sampling))
            return hub.push(Path(folder), name, private=private, token=token)

    @classmethod
    def from_pretrained(
        cls,
        name: Path | str,
        *,
        device: torch.device | str | None = None,
        precision: str = "fp32",
        revision: str | None = None,
        token: str | bool | None = None,
        cache_dir: Path | str | None = None,
        force_download: bool = False,
        local_files_only: bool = False,
    ) -> Self:
        """Return a trained pipeline, ready to use on `device` (None: a GPU if there is one).

        precision: in which the network computes, "fp32", "bf16", or "auto": bf16 where the device multiplies it.

        name: one from `launch.py list`, where a run of one's own takes precedence over the shipped weights; the folder
        of a run, of weights or of a pipeline of diffusers; or "user/name" of the Hugging Face hub, for which the other
        arguments are those of `huggingface_hub.snapshot_download`. Raises UserError where there are no weights, or
        where they do not fit the configuration beside them.
        """
        folder = hub.local_folder(
            name,
            revision=revision,
            token=token,
            cache_dir=cache_dir,
            force_download=force_download,
            local_files_only=local_files_only,
        )
        if is_diffusers(folder):
            return cls.from_diffusers(folder, device=device, precision=precision)
        return cls._from_weights(folder, torch.device(device or best_device()), precision)

    @classmethod
    def _from_weights(cls, folder: Path, device: torch.device, precision: str) -> Self:
        """Return the pipeline whose weights lie in a folder. Raises UserError as `from_pretrained` does."""
        config, tensors = weights.load(folder)
        of_weaker = take_prefixed(tensors, WEAKER)
        with torch.device("meta"):  # no memory is taken before the weights are known to fit
            model, label_classifier = build_model(config), build_label_classifier(config)
            weaker = build_model(config) if of_weaker else None
        pipeline = cls(config, model, label_classifier, weaker)
        if label_classifier is not None:
            of_classifier = take_prefixed(tensors, LABEL_CLASSIFIER) or take_prefixed(tensors, LABEL_CLASSIFIER_0_1)
            weights.load_strictly(label_classifier, of_classifier, what=f"{folder} (the label classifier's)")
            label_classifier.to(device, memory_format=torch.channels_last).eval()  # type: ignore[call-overload]
        networks = [(model, tensors, str(folder))]
        if weaker is not None:
            networks.append((weaker, of_weaker, f"{folder} (the weaker network's)"))
        for network, own, what in networks:
            weights.load_strictly(network, own, what=what)
            to_device(network, device, precision=run_precision(precision, device)).eval()
        return pipeline

    @classmethod
    def from_diffusers(
        cls,
        name: Path | str,
        *,
        device: torch.device | str | None = None,
        precision: str = "fp32",
        offload: bool = False,
        **hub_options: Any,
    ) -> Self:
        """Return a pretrained pipeline of diffusers, ready to use: a UNet on pixels with its DDPM or DDIM scheduler.

        name: its folder, or "user/name" of the hub, for which the further options are those of `from_pretrained`.
        precision: of its weights, too, "fp32", "bf16", "fp16" or "auto". offload: keep the weights in main memory and
        bring each layer to the device when it is needed. Raises UserError where that is no such pipeline, or
        flowferry[pretrained] is not installed.
        """
        folder = hub.local_folder(name, **hub_options)
        if not is_diffusers(folder):
            raise UserError(f"{folder}: got no {INDEX}, expected a pipeline of diffusers")
        device = torch.device(device or best_device())
        precision = run_precision(precision, device)
        return cls(*read_pipeline(folder, device=device, precision=precision, offload=offload))

    def with_prompts(self, prompts: Sequence[str], embeddings: Mapping[str, Tensor] | Path | str | None = None) -> Self:
        """Return this pipeline with the texts `prompts` as its classes, so that label k asks for prompts[k].

        embeddings: [L, D] by text, with that of "", or a file of them, which the verb `embed` writes; None has the
        encoder beside the pipeline make them. Raises UserError for a pipeline that takes no texts.
        """
        network, model = self.model, self.config.model
        if not (isinstance(network, DiffusersUNet) and isinstance(model, DiffusersConfig) and network.text_channels):
            raise UserError(f"{self.config.name} takes no texts: got {list(prompts)}, expected none")
        where = model.folder if embeddings is None or isinstance(embeddings, Mapping) else str(embeddings)
        if embeddings is None:
            folder = hub.with_text_encoder(Path(model.folder))
            embeddings = texts.encode(folder, prompts, device=self.device, dtype=network.dtype)
        known = embeddings if isinstance(embeddings, Mapping) else texts.read(Path(embeddings))
        asked = replace(self.config, num_classes=len(prompts), model=replace(model, prompts=tuple(prompts)))
        return type(self)(asked, network.with_texts(texts.of(prompts, known, where)), self.label_classifier)


def build_label_classifier(config: Config) -> Classifier | None:
    """Return a freshly initialized classifier of the source, for a pipeline that infers its labels; else None."""
    return Classifier(channels=config.shape[0], num_classes=config.num_classes) if config.infer_labels else None


def take_prefixed(tensors: dict[str, Tensor], prefix: str) -> dict[str, Tensor]:
    """Remove the tensors whose names begin with `prefix` and return them by the rest of their names."""
    return {name.removeprefix(prefix): tensors.pop(name) for name in list(tensors) if name.startswith(prefix)}
