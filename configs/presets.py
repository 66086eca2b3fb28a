"""The named pipelines: rows to be compared by eye. A name here is a name on the command line."""

from dataclasses import replace
from typing import Any

from flowferry.configs.components import (
    AugmentConfig,
    Cifar10Config,
    FashionMnistConfig,
    GaussianConfig,
    ImageFolderConfig,
    MnistConfig,
    MoonsConfig,
    NoisyConfig,
    SvhnConfig,
)
from flowferry.configs.networks import (
    AttentionUNetConfig,
    CourseUNetConfig,
    MLPConfig,
    PatchUNetConfig,
    PracticalUNetConfig,
)
from flowferry.configs.recipe import SolverConfig, TeacherConfig, TrainConfig
from flowferry.configs.schema import Config
from flowferry.configs.training_recipes import (
    COLOR,
    COURSE,
    COURSE_DDPM,
    COURSE_DENOISER,
    FROM_IMAGES,
    PICTURES,
    PLANE,
    SLOW,
    SPEEDRUN,
    STUDENT,
)

# --- how several pipelines are sampled, and their networks ----------------------------------------------

FEW_STEPS = SolverConfig(name="ab2", num_steps=6, grid_power=2.0, source_noise=0.3)  # docs/SPEEDRUN.md
AWAY_FROM_NOISE = SolverConfig(name="ab2", num_steps=12, guidance=3.0)  # likewise
FOLDER_UNET = AttentionUNetConfig(
    widths=(32, 64, 128, 128), middle=128, attention=(False, False, True), time_scale=1000.0
)
COLOR_UNET = AttentionUNetConfig(widths=(64, 128, 256), middle=128, time_scale=1000.0)

# --- what several pipelines share -----------------------------------------------------------------------

Options = dict[str, Any]
GENERATION: Options = {"source": GaussianConfig(), "target": MnistConfig()}
TRANSLATION: Options = {"source": FashionMnistConfig(), "target": MnistConfig()}
FOLDERS: Options = {"source": ImageFolderConfig(), "target": ImageFolderConfig(), "shape": (3, 64, 64)}
FAST: Options = {"model": PatchUNetConfig(), "train": SPEEDRUN}
CHANGED = ImageFolderConfig(augment=AugmentConfig(mirrored=True, shifted=4, behind="mirror"))
BESIDE_SOURCE: Options = {
    "source": CHANGED,
    "target": CHANGED,
    "prediction": "target",
    "model": PatchUNetConfig(widths=(32, 64, 128, 256), blocks=(1, 1, 1, 1), sees_source=True),
    "train": PICTURES,
    "solver": SolverConfig(num_steps=8, grid_power=2.0, source_noise=0.3),
}
WITHOUT_PAIRS: Options = {  # chosen by measurement: docs/PAIRS.md
    "coupling": "content-ot",
    "coupling_batches": 64,
    "train": replace(PICTURES, adversary=0.05),
    "solver": replace(BESIDE_SOURCE["solver"], num_steps=2),
}
TRANSPORTED: Options = {"coupling": "ot", "coupling_batches": 8, "solver": FEW_STEPS, "train": FROM_IMAGES}
GARMENTS_TO_DIGITS = TRANSLATION | FAST | TRANSPORTED
LABELED: Options = {"coupling": "label-ot", "num_classes": 10, "infer_labels": True} | {
    "train": replace(FROM_IMAGES, source_noise=0.1),
    "solver": replace(FEW_STEPS, guidance=2.0, source_noise=0.05),
}
AUTOGUIDED = {"solver": replace(FEW_STEPS, guidance=2.0), "train": replace(FROM_IMAGES, weaker_share=0.1)}
AUTOGUIDED_FROM_NOISE = {"solver": AWAY_FROM_NOISE, "train": replace(SPEEDRUN, weaker_share=0.1)}
ASKED_DIGITS = GENERATION | FAST | {"num_classes": 10, "solver": SolverConfig(num_steps=25, guidance=1.5)}
MAP: Options = {"objective": "map", "model": PatchUNetConfig(two_times=True)} | {
    "train": replace(FROM_IMAGES, adversary=0.05),
    "solver": SolverConfig(name="map", num_steps=2, grid_power=2.0, source_noise=0.2),
}
DDPM: Options = {
    "path": "ddpm",
    "prediction": "source",
    "model": CourseUNetConfig(time="add"),
    "solver": SolverConfig(name="ancestral", num_steps=300),
    "train": COURSE_DDPM,
}
DENOISER: Options = {
    "objective": "one-step",
    "prediction": "target",
    "model": CourseUNetConfig(width=128, time="none"),
    "solver": SolverConfig(num_steps=1),
    "train": COURSE_DENOISER,
}
CFG: Options = {"num_classes": 10, "model": CourseUNetConfig(time="add"), "solver": SolverConfig(guidance=5.0)}
IN_COLOR: Options = {"shape": (3, 32, 32), "model": COLOR_UNET, "train": COLOR}
IN_PLANE: Options = {"source": GaussianConfig(), "shape": (2,), "model": MLPConfig(), "train": PLANE}


def student_of(teacher: str, noise: float = 0.0) -> Options:
    """Return the options of a pipeline that learns to give in one step, or in two, what another one does.

    teacher: its name or folder; noise: the standard deviation that it adds to its source.
    """
    return {
        "coupling": "teacher",
        "coupling_batches": 1,
        "teacher": TeacherConfig(pipeline=teacher),
        "objective": "flow",
        "solver": SolverConfig(num_steps=1, source_noise=noise),
        "train": replace(STUDENT, source_noise=noise),
    }


# --- the rows: name, summary, options, of which later ones override earlier ones ------------------------

ROWS: tuple[tuple[str, str, Options], ...] = (
    (
        "fashion2mnist",
        "garments become digits: image-to-image translation, in 30 minutes on 2 CPU cores",
        GARMENTS_TO_DIGITS | AUTOGUIDED,
    ),
    (
        "fashion2mnist-fast",
        "the same at one evaluation of the network an image: distilled in 15 minutes from fashion2mnist",
        GARMENTS_TO_DIGITS | student_of("fashion2mnist", FEW_STEPS.source_noise),
    ),
    (
        "fashion2mnist-map",
        "garments become digits in 1, 2, 4 or more steps of one network, in 30 minutes on 2 CPU cores",
        GARMENTS_TO_DIGITS | MAP,
    ),
    (
        "fashion2mnist-labels",
        "garment class k becomes digit k",
        GARMENTS_TO_DIGITS | LABELED | {"source": FashionMnistConfig(augment=AugmentConfig(mirrored=True))},
    ),
    (
        "fashion2mnist-published",
        "garments become digits, by the published recipe",
        TRANSLATION | {"model": PracticalUNetConfig(), "train": TrainConfig(epochs=100, batch_size=128, lr=1e-3)},
    ),
    (
        "noise2mnist",
        "noise becomes digits, in 30 minutes on 2 CPU cores",
        GENERATION | FAST | AUTOGUIDED_FROM_NOISE,
    ),
    (
        "noise2mnist-cfg",
        "noise becomes the digit you ask for: class-conditioned, with guidance, in 30 minutes",
        ASKED_DIGITS,
    ),
    (
        "noise2mnist-cfg-fast",
        "the same at one evaluation of the network an image, guidance included: distilled in 15 minutes",
        ASKED_DIGITS | student_of("noise2mnist-cfg"),
    ),
    (
        "noise2mnist-published",
        "noise becomes digits, by the published recipe",
        GENERATION | {"model": CourseUNetConfig(time="multiply"), "train": COURSE},
    ),
    (
        "noise2mnist-cfg-published",
        "noise becomes the digit you ask for, by the published recipe",
        GENERATION | CFG | {"train": COURSE},
    ),
    (
        "noise2mnist-cfg-constant",
        "the same at a constant learning rate, half as high, for longer",
        GENERATION | CFG | {"train": replace(COURSE, epochs=15, lr=5e-3, schedule="constant")},
    ),
    (
        "noise2mnist-wide",
        "noise becomes digits: twice the channels, five times as long",
        GENERATION | {"model": CourseUNetConfig(width=128, time="multiply"), "train": replace(COURSE, epochs=50)},
    ),
    (
        "noise2mnist-practical",
        "noise becomes digits with the small UNet; --path linear or cosine",
        GENERATION
        | {"model": PracticalUNetConfig(), "train": TrainConfig(epochs=20, batch_size=128, lr=1e-3, show_epochs=5)},
    ),
    (
        "ddpm-mnist",
        "noise becomes digits by denoising diffusion: 300 steps, each of which adds noise",
        GENERATION | DDPM,
    ),
    (
        "ddpm-mnist-cfg",
        "the same for the digit you ask for",
        GENERATION | DDPM | {"num_classes": 10, "solver": replace(DDPM["solver"], guidance=5.0)},
    ),
    (
        "denoise-mnist",
        "noisy digits become clean ones in one step",
        GENERATION | DENOISER | {"source": NoisyConfig(), "coupling": "given"},
    ),
    (
        "denoise-noise",
        "the same from pure noise: why one step does not make a digit",
        GENERATION | DENOISER,
    ),
    (
        "noise2fashion",
        "noise becomes garments, with an attention UNet",
        {"source": GaussianConfig(), "target": FashionMnistConfig(), "model": AttentionUNetConfig()}
        | {"solver": SolverConfig(num_steps=100), "train": TrainConfig(epochs=10, batch_size=256, lr=1e-3)},
    ),
    (
        "noise2cifar",
        "noise becomes small photographs in color",
        IN_COLOR | {"source": GaussianConfig(), "target": Cifar10Config()},
    ),
    (
        "noise2svhn",
        "noise becomes house numbers in color",
        IN_COLOR | {"source": GaussianConfig(), "target": SvhnConfig()},
    ),
    (
        "folders",
        "your own images with an older recipe that is slow on a CPU; see paired and unpaired",
        FOLDERS | {"model": FOLDER_UNET, "train": SLOW},
    ),
    (
        "paired",
        "your own pairs by name: --source.root A --target.root B; each result keeps to its own source",
        FOLDERS | BESIDE_SOURCE | {"coupling": "given", "model": replace(BESIDE_SOURCE["model"], adds_source=True)},
    ),
    (
        "unpaired",
        "your own two folders without pairs: --source.root A --target.root B; results keep what it shows",
        FOLDERS | BESIDE_SOURCE | WITHOUT_PAIRS,
    ),
    (
        "moons",
        "a Gaussian in the plane becomes two moons; --path linear or cosine",
        IN_PLANE | {"target": MoonsConfig()},
    ),
    (
        "gaussian2d",
        "a Gaussian in the plane moves to (1, 1): which path preserves the variance",
        IN_PLANE | {"target": GaussianConfig(mean=1.0)},
    ),
)
PIPELINES = {name: Config(name=name, summary=summary, **options) for name, summary, options in ROWS}
