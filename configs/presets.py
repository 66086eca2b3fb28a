"""The named pipelines: data, to be compared by eye. A name here is a name on the command line."""

from dataclasses import replace

from configs.parts import (
    AttentionUNetConfig,
    AugmentConfig,
    Cifar10Config,
    CourseUNetConfig,
    DrawnColoursConfig,
    DrawnDigitsConfig,
    DrawnGarmentsConfig,
    FashionMnistConfig,
    GaussianConfig,
    ImageFolderConfig,
    MLPConfig,
    MnistConfig,
    MoonsConfig,
    NoisyConfig,
    PatchUNetConfig,
    PracticalUNetConfig,
    SamplerConfig,
    SvhnConfig,
)
from configs.schema import Config, SolverConfig, TrainConfig

DDPM = SolverConfig(name="ancestral", steps=300)
PLANE = TrainConfig(epochs=20, batch_size=256, lr=2e-3, schedule="cosine", lr_final=0.0, show_epochs=10)
COLOUR = TrainConfig(epochs=100, batch_size=128, lr=3e-4, warmup_steps=500, show_epochs=10)
NEAR_SOURCE = SolverConfig(steps=25, grid_power=2.0)
SPEEDRUN = TrainConfig(  # chosen by measurement: docs/SPEEDRUN.md
    epochs=100,
    minutes=30.0,
    batch_size=64,
    optimizer="muon",
    lr=3e-3,
    schedule="linear",
    lr_final=0.0,
    warmup_steps=100,
)
FROM_IMAGES = replace(SPEEDRUN, loss="pseudo-huber", time_power=2.0, source_noise=0.4)
COURSE = TrainConfig(epochs=10, batch_size=64, lr=1e-2, schedule="exponential", show_epochs=5)
COLOUR_UNET = AttentionUNetConfig(widths=(64, 128, 256), middle=128, time_scale=1000.0)

PIPELINES: dict[str, Config] = {
    config.name: config
    for config in (
        Config(
            name="fashion2mnist",
            summary="garments become digits: image-to-image translation, in 30 minutes on 2 CPU cores",
            source=FashionMnistConfig(),
            target=MnistConfig(),
            model=PatchUNetConfig(),
            coupling="ot",
            coupling_batches=8,
            solver=NEAR_SOURCE,
            train=FROM_IMAGES,
        ),
        Config(
            name="fashion2mnist-labels",
            summary="garment class k becomes digit k",
            source=FashionMnistConfig(augment=AugmentConfig(mirrored=True)),
            target=MnistConfig(),
            model=PatchUNetConfig(),
            classes=10,
            read_labels=True,
            coupling="label-ot",
            coupling_batches=8,
            solver=NEAR_SOURCE,
            train=FROM_IMAGES,
        ),
        Config(
            name="fashion2mnist-published",
            summary="garments become digits, by the published recipe",
            source=FashionMnistConfig(),
            target=MnistConfig(),
            model=PracticalUNetConfig(width=32),
            train=TrainConfig(epochs=100, batch_size=128, lr=1e-3),
        ),
        Config(
            name="noise2mnist",
            summary="noise becomes digits, in 30 minutes on 2 CPU cores",
            source=GaussianConfig(),
            target=MnistConfig(),
            model=PatchUNetConfig(),
            solver=SolverConfig(steps=25),
            train=SPEEDRUN,
        ),
        Config(
            name="noise2mnist-cfg",
            summary="noise becomes the digit you ask for: class-conditioned, with guidance, in 30 minutes",
            source=GaussianConfig(),
            target=MnistConfig(),
            model=PatchUNetConfig(),
            classes=10,
            solver=SolverConfig(steps=25, guidance=1.5),
            train=SPEEDRUN,
        ),
        Config(
            name="noise2mnist-published",
            summary="noise becomes digits, by the published recipe",
            source=GaussianConfig(),
            target=MnistConfig(),
            model=CourseUNetConfig(width=64, time="multiply"),
            train=COURSE,
        ),
        Config(
            name="noise2mnist-cfg-published",
            summary="noise becomes the digit you ask for, by the published recipe",
            source=GaussianConfig(),
            target=MnistConfig(),
            model=CourseUNetConfig(width=64, time="add"),
            classes=10,
            solver=SolverConfig(guidance=5.0),
            train=COURSE,
        ),
        Config(
            name="noise2mnist-cfg-constant",
            summary="the same at a constant learning rate, half as high, for longer",
            source=GaussianConfig(),
            target=MnistConfig(),
            model=CourseUNetConfig(width=64, time="add"),
            classes=10,
            solver=SolverConfig(guidance=5.0),
            train=replace(COURSE, epochs=15, lr=5e-3, schedule="constant"),
        ),
        Config(
            name="noise2mnist-wide",
            summary="noise becomes digits: twice the channels, five times as long",
            source=GaussianConfig(),
            target=MnistConfig(),
            model=CourseUNetConfig(width=128, time="multiply"),
            train=replace(COURSE, epochs=50),
        ),
        Config(
            name="noise2mnist-practical",
            summary="noise becomes digits with the small UNet; --path linear or cosine",
            source=GaussianConfig(),
            target=MnistConfig(),
            model=PracticalUNetConfig(width=32),
            train=TrainConfig(epochs=20, batch_size=128, lr=1e-3, show_epochs=5),
        ),
        Config(
            name="ddpm-mnist",
            summary="noise becomes digits by denoising diffusion: 300 steps, each adds noise anew",
            source=GaussianConfig(),
            target=MnistConfig(),
            model=CourseUNetConfig(width=64, time="add"),
            path="ddpm",
            prediction="source",
            solver=DDPM,
            train=TrainConfig(epochs=20, batch_size=128, lr=1e-3, schedule="exponential", show_epochs=5),
        ),
        Config(
            name="ddpm-mnist-cfg",
            summary="the same for the digit you ask for",
            source=GaussianConfig(),
            target=MnistConfig(),
            model=CourseUNetConfig(width=64, time="add"),
            classes=10,
            path="ddpm",
            prediction="source",
            solver=replace(DDPM, guidance=5.0),
            train=TrainConfig(epochs=20, batch_size=128, lr=1e-3, schedule="exponential", show_epochs=5),
        ),
        Config(
            name="denoise-mnist",
            summary="noisy digits become clean ones in one step",
            source=NoisyConfig(sigma=0.5),
            target=MnistConfig(),
            model=CourseUNetConfig(width=128, time="none"),
            path="one-step",
            prediction="target",
            coupling="given",
            solver=SolverConfig(steps=1),
            train=TrainConfig(epochs=5, batch_size=256, lr=1e-4, show_epochs=5),
        ),
        Config(
            name="denoise-noise",
            summary="the same from pure noise: why one step does not make a digit",
            source=GaussianConfig(),
            target=MnistConfig(),
            model=CourseUNetConfig(width=128, time="none"),
            path="one-step",
            prediction="target",
            solver=SolverConfig(steps=1),
            train=TrainConfig(epochs=5, batch_size=256, lr=1e-4, show_epochs=5),
        ),
        Config(
            name="noise2fashion",
            summary="noise becomes garments, with an attention UNet",
            source=GaussianConfig(),
            target=FashionMnistConfig(),
            model=AttentionUNetConfig(),
            solver=SolverConfig(steps=100),
            train=TrainConfig(epochs=10, batch_size=256, lr=1e-3),
        ),
        Config(
            name="noise2cifar",
            summary="noise becomes small photographs in colour",
            source=GaussianConfig(),
            target=Cifar10Config(),
            model=COLOUR_UNET,
            shape=(3, 32, 32),
            train=COLOUR,
        ),
        Config(
            name="noise2svhn",
            summary="noise becomes house numbers in colour",
            source=GaussianConfig(),
            target=SvhnConfig(),
            model=COLOUR_UNET,
            shape=(3, 32, 32),
            train=COLOUR,
        ),
        Config(
            name="folders",
            summary="your own images: --source.root A --target.root B, in pairs by name with --coupling given",
            source=ImageFolderConfig(),
            target=ImageFolderConfig(),
            model=AttentionUNetConfig(
                widths=(32, 64, 128, 128), middle=128, attention=(False, False, True), time_scale=1000.0
            ),
            shape=(3, 64, 64),
            train=TrainConfig(epochs=100, batch_size=64, lr=3e-4, warmup_steps=200, show_epochs=10),
        ),
        Config(
            name="moons",
            summary="a Gaussian in the plane becomes two moons; --path linear or cosine",
            source=GaussianConfig(),
            target=MoonsConfig(),
            model=MLPConfig(),
            shape=(2,),
            train=PLANE,
        ),
        Config(
            name="gaussian2d",
            summary="a Gaussian in the plane moves to (1, 1): which path preserves the variance",
            source=GaussianConfig(),
            target=GaussianConfig(mean=1.0),
            model=MLPConfig(),
            shape=(2,),
            train=PLANE,
        ),
    )
}

STAND_INS: dict[str, SamplerConfig] = {
    "mnist": DrawnDigitsConfig(),
    "fashion-mnist": DrawnGarmentsConfig(),
    "cifar10": DrawnColoursConfig(),
    "svhn": DrawnColoursConfig(),
    "image-folder": DrawnColoursConfig(),
}


def stand_in(sampler: SamplerConfig) -> SamplerConfig:
    """What needs no files: for data sets, and for a folder that was not named."""
    return sampler if getattr(sampler, "root", "") else STAND_INS.get(sampler.kind, sampler)


def quick(config: Config) -> Config:
    """The same pipeline for about a minute on 2 CPU cores: drawn stand-ins, and a budget of time, not of epochs."""
    return replace(
        config,
        source=stand_in(config.source),
        target=stand_in(config.target),
        solver=replace(config.solver, steps=min(config.solver.steps, 50)),
        train=replace(config.train, minutes=1.0, batch_size=32, ema=0.99, show_epochs=0, checkpoint_epochs=0),
    )
