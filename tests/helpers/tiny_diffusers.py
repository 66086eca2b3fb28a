"""Tiny pipelines of diffusers with random weights, of the classes of the published ones."""

import json
from pathlib import Path
from typing import Any

import torch
from diffusers import DDPMPipeline, DDPMScheduler, UNet2DConditionModel, UNet2DModel
from torch import nn

SIDE, WIDTH = 32, 32  # pixels; numbers for each token of a text
PROMPTS = ("an oil painting of a snowy mountain village", "a man wearing a hat")

BLOCKS: dict[str, Any] = {"sample_size": SIDE, "block_out_channels": (32, 64), "layers_per_block": 1}
OF_TEXT = BLOCKS | {
    "down_block_types": ("ResnetDownsampleBlock2D", "SimpleCrossAttnDownBlock2D"),
    "mid_block_type": "UNetMidBlock2DSimpleCrossAttn",
    "up_block_types": ("SimpleCrossAttnUpBlock2D", "ResnetUpsampleBlock2D"),
    "out_channels": 6,
    "cross_attention_dim": WIDTH,
    "encoder_hid_dim": WIDTH,
    "encoder_hid_dim_type": "text_proj",
    "attention_head_dim": 8,
    "addition_embed_type": "text",
    "addition_embed_type_num_heads": 2,
    "cross_attention_norm": "group_norm",
    "resnet_time_scale_shift": "scale_shift",
    "act_fn": "gelu",
}
LEFT_OUT = ("tokenizer", "text_encoder", "safety_checker", "feature_extractor", "watermarker")


def shaken(unet: nn.Module, seed: int = 0) -> nn.Module:
    """Move all weights, so that normalizations and biases, too, are those of no fresh network."""
    g = torch.Generator().manual_seed(seed)
    for parameter in unet.parameters():
        parameter.data += 0.005 * torch.randn(parameter.shape, generator=g)
    return unet.eval()


def unconditional(folder: Path, *, levels: int = 20, scheduler: type = DDPMScheduler, **settings: Any) -> Path:
    """Save a DDPM of color images."""
    torch.manual_seed(0)
    blocks = {"down_block_types": ("DownBlock2D", "AttnDownBlock2D"), "up_block_types": ("AttnUpBlock2D", "UpBlock2D")}
    unet = shaken(UNet2DModel(in_channels=3, out_channels=3, **blocks, **BLOCKS))
    DDPMPipeline(unet, scheduler(num_train_timesteps=levels, **settings)).save_pretrained(folder)
    return folder


def stage_scheduler(levels: int) -> DDPMScheduler:
    """The scheduler of DeepFloyd IF, but for the number of its levels."""
    published = {"beta_schedule": "squaredcos_cap_v2", "variance_type": "learned_range", "prediction_type": "epsilon"}
    limits = {"thresholding": True, "dynamic_thresholding_ratio": 0.95, "sample_max_value": 1.5}
    return DDPMScheduler(num_train_timesteps=levels, **published, **limits)


def stage_1(folder: Path, *, levels: int = 1000, fresh: bool = False) -> Path:
    """Save a first stage of DeepFloyd IF, without its encoder. fresh: with the weights of a network never trained."""
    torch.manual_seed(0)
    unet = UNet2DConditionModel(in_channels=3, **OF_TEXT)
    return saved(folder, "IFPipeline", unet if fresh else shaken(unet), stage_scheduler(levels))


def stage_2(folder: Path, *, levels: int = 1000) -> Path:
    """Save a second stage, which makes images of 64 pixels a side."""
    torch.manual_seed(1)
    unet = UNet2DConditionModel(in_channels=6, **OF_TEXT | {"class_embed_type": "timestep", "sample_size": 2 * SIDE})
    noising = DDPMScheduler(beta_schedule="squaredcos_cap_v2")
    return saved(folder, "IFSuperResolutionPipeline", shaken(unet, 1), stage_scheduler(levels), noising)


def saved(folder: Path, name: str, unet: Any, scheduler: Any, noising: Any = None) -> Path:
    """Write the folder as diffusers does, without the parts that are optional."""
    parts = {"unet": unet, "scheduler": scheduler} | ({"image_noising_scheduler": noising} if noising else {})
    for part, component in parts.items():
        component.save_pretrained(folder / part)
    index = {part: ["diffusers", type(component).__name__] for part, component in parts.items()}
    index |= {"_class_name": name, **{part: [None, None] for part in LEFT_OUT}}
    (folder / "model_index.json").write_text(json.dumps(index))
    return folder


def embeddings(length: int = 77) -> dict[str, torch.Tensor]:
    """Return random embeddings of the prompts and of the empty text."""
    g = torch.Generator().manual_seed(5)
    return {text: torch.randn(length, WIDTH, generator=g) for text in (*PROMPTS, "")}


def encoder(folder: Path) -> Path:
    """Put a tiny T5 and its tokenizer beside a pipeline."""
    from transformers import T5Config, T5EncoderModel, T5Tokenizer

    torch.manual_seed(2)
    words = sorted({f"▁{word}" for prompt in PROMPTS for word in prompt.split()})
    special = ["<pad>", "</s>", "<unk>", "▁", *words, *map(chr, range(97, 123))]
    tokenizer = T5Tokenizer(vocab=[(piece, -float(i)) for i, piece in enumerate(special)], extra_ids=0)
    small = {"d_model": WIDTH, "d_kv": 8, "d_ff": 64, "num_layers": 2, "num_heads": 4}
    T5EncoderModel(T5Config(vocab_size=len(special), **small)).save_pretrained(folder / "text_encoder")
    tokenizer.save_pretrained(folder / "tokenizer")
    return folder
