"""The named pipelines: data, to be compared by eye. A name here is a name on the command line."""

from dataclasses import replace

from configs.schema import (
    Config,
    CourseUNetConfig,
    DrawnDigitsConfig,
    DrawnGarmentsConfig,
    FashionMnistConfig,
    GaussianConfig,
    MnistConfig,
    PracticalUNetConfig,
    SamplerConfig,
    SolverConfig,
    TrainConfig,
)

PIPELINES: dict[str, Config] = {
    config.name: config
    for config in (
        Config(
            name="fashion2mnist",
            summary="garments become digits: image-to-image translation",
            source=FashionMnistConfig(),
            target=MnistConfig(),
            model=PracticalUNetConfig(width=32),
            train=TrainConfig(epochs=100, batch_size=128, lr=1e-3),
        ),
        Config(
            name="noise2mnist",
            summary="noise becomes digits",
            source=GaussianConfig(),
            target=MnistConfig(),
            model=CourseUNetConfig(width=64, time="multiply"),
            train=TrainConfig(epochs=10, batch_size=64, lr=1e-2, schedule="exponential"),
        ),
        Config(
            name="noise2mnist-cfg",
            summary="noise becomes the digit you ask for: class-conditioned, with guidance",
            source=GaussianConfig(),
            target=MnistConfig(),
            model=CourseUNetConfig(width=64, time="add"),
            classes=10,
            solver=SolverConfig(guidance=5.0),
            train=TrainConfig(epochs=10, batch_size=64, lr=1e-2, schedule="exponential"),
        ),
    )
}

STAND_INS: dict[str, SamplerConfig] = {"mnist": DrawnDigitsConfig(), "fashion-mnist": DrawnGarmentsConfig()}


def quick(config: Config) -> Config:
    """The same pipeline for about a minute on 2 CPU cores: drawn stand-ins, and a budget of time, not of epochs."""
    return replace(
        config,
        source=STAND_INS.get(config.source.kind, config.source),
        target=STAND_INS.get(config.target.kind, config.target),
        train=replace(config.train, minutes=1.0, batch_size=32, ema=0.99, show_epochs=0, checkpoint_epochs=0),
    )
