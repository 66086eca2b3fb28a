"""The recipe of a run: how the network is trained, and how it is then run."""

from dataclasses import dataclass
from typing import Annotated, Literal, get_args

from flowferry.configs.validation import Positive, Range, UserError, Validated

OdeSolverName = Literal["euler", "midpoint", "heun", "rk4", "ab2"]
SolverName = Literal[OdeSolverName, "ddim", "ancestral", "map"]


@dataclass(frozen=True, kw_only=True)
class SolverConfig(Validated):
    """How the trained pipeline is run, unless asked otherwise."""

    name: SolverName = "euler"
    """The first five follow the velocity; ab2 is the only one of order 2 at one evaluation a step. ddim steps between
    the two ends that the velocity implies, which on the linear path is euler. ancestral (from noise only) also adds
    noise at each step, as DDPM does. map (only for that objective) takes the whole way, or any part of it, at one
    evaluation."""
    num_steps: Annotated[int, Range(1)] = 50
    """Solver steps from source to target."""
    grid_power: Annotated[float, Range(1)] = 1.0
    """p in the time grid t_k = (k/N)^p: 1 is uniform; more puts more of the steps near the source."""
    stride: Annotated[int | None, Range(1)] = None
    """Instead of that grid: step through every so many-th noise level, from 1 + (N−1)·stride down to 1 and then to the
    image, as published for stride 30 and N = 34 of 1,000 levels; a path without levels has as many as this takes."""
    source_noise: Annotated[float, Range(0)] = 0.0
    """Standard deviation of noise added to source images before translating them, as by `train.source-noise`."""
    variance: Literal["large", "small", "learned"] = "large"
    """Of the noise that ancestral adds: the larger or the smaller of DDPM's two, or as the network answers (some of
    diffusers)."""
    clip: Annotated[float | None, Positive] = None
    """At each step of ddim and ancestral, clip the image that the velocity implies to ± this; None: do not."""
    threshold: Annotated[float | None, Range(0, 1)] = None
    """Instead of clipping, divide each such image by the bound that this share of its values lies below, at least 1 and
    at most `clip`: dynamic thresholding, which strong guidance needs; None: do not."""
    guidance: Annotated[float, Range(0)] = 1.0
    """w in v = v_weak + w·(v − v_weak): 1 none. v_weak is the velocity of a weaker network, where one is kept with the
    weights (`train.weaker-share`), or else, if a class is asked for, the one without class: 0 is then unconditional."""

    @property
    def adds_noise(self) -> bool:
        """Whether it draws noise at each step: it then starts from unit Gaussian noise and cannot run in reverse."""
        return self.name == "ancestral"

    @property
    def is_reversible(self) -> bool:
        """Whether it also runs from target to source."""
        return self.name in get_args(OdeSolverName)


@dataclass(frozen=True, kw_only=True)
class TeacherConfig(Validated):
    """A trained pipeline whose results another one, its student, learns to give in fewer steps (distillation)."""

    pipeline: str = ""
    """Of the coupling teacher: a name from `list`, a folder with weights, or user/name on the Hugging Face hub."""
    solver: SolverName | None = None
    """How the teacher is run; None: as it says itself."""
    steps: Annotated[int | None, Range(1)] = None
    """Its solver steps; None: as it says itself."""
    guidance: Annotated[float | None, Range(0)] = None
    """Its w, which the student's one forward then contains; None: as it says itself."""
    pairs: Annotated[int, Range(1)] = 65536
    """Source samples that it translates, once: all that the student sees."""
    sha256: str = ""
    """The hash of its weights, which the run finds out itself."""


@dataclass(frozen=True, kw_only=True)
class TrainConfig(Validated):
    """How the network is trained."""

    epochs: Annotated[int, Range(1)] = 10
    """Passes over the target's training images."""
    max_steps: Annotated[int | None, Range(1)] = None
    """Stop after this many optimizer steps, if that comes sooner."""
    minutes: Annotated[float | None, Positive] = None
    """Stop after this much time, evaluations and checkpoints included, if that comes sooner; the learning-rate schedule
    adapts to it."""
    epoch_size: Annotated[int, Range(1)] = 65536
    """Samples that count as one epoch where the target is an endless stream."""
    batch_size: Annotated[int, Range(1)] = 128
    """Global batch: all processes and all accumulated parts together."""
    accumulate: Annotated[int, Range(1)] = 1
    """Parts that each process's share of the batch is cut into, to fit in memory."""
    sync_batchnorm: bool = False
    """Normalize BatchNorm, where the network has it, over the batches of all processes; slower."""
    loss: Literal["squared", "pseudo-huber"] = "squared"
    """Distance between prediction and truth: the mean squared error, as published; or, for each sample, nearly its
    root, which is less sensitive to large errors."""
    adversary: Annotated[float, Range(0)] = 0.0
    """Weight, beside the loss, of a critic that learns to tell results from the target's images; 0: none. It sharpens
    what a network answers in one step or in few."""
    time_power: Annotated[float, Range(1)] = 1.0
    """p in the training times t = u^p with u uniform: more than 1 puts more of them near the source."""
    start_share: Annotated[float, Range(0, 1)] = 0.0
    """Share of the training times that are exactly 0, where each translation starts: they train its first step as plain
    regression."""
    source_noise: Annotated[float, Range(0)] = 0.0
    """Standard deviation of Gaussian noise added to source samples in training, by a teacher before it translates them;
    see `solver.source-noise`."""
    optimizer: Literal["adam", "muon"] = "adam"
    """muon: Muon for the weights of hidden layers, AdamW for the rest."""
    lr: Annotated[float, Positive] = 1e-3
    """Learning rate before the schedule."""
    schedule: Literal["constant", "exponential", "linear", "cosine"] = "constant"
    """Decay of the learning rate: none, by a constant factor each epoch, or step by step to `lr-final`."""
    lr_final: Annotated[float, Range(0, 1)] = 0.1
    """Factor on the learning rate at the end of training, for every schedule but constant."""
    warmup_steps: Annotated[int, Range(0)] = 0
    """Steps over which the learning rate first rises linearly from zero, whatever the schedule; in a short run, the
    first quarter at most."""
    clip_norm: Annotated[float | None, Positive] = None
    """Clip the norm of the whole gradient to this; None: do not clip."""
    on_nonfinite: Literal["stop", "skip"] = "stop"
    """When a loss or a gradient is NaN or infinite: end the run, or leave out the step, count it and go on."""
    ema: Annotated[float | None, Range(0, 1)] = 0.999
    """Decay of the exponential moving average of the weights, which is what is shown and exported; None: no average."""
    weaker_share: Annotated[float, Range(0, 1)] = 0.0
    """Keep the average as it is after this share of the training: the weaker network that guidance leads away from; 0:
    none is kept."""
    label_dropout: Annotated[float, Range(0, 1)] = 0.1
    """Probability that a sample's class is hidden from the network, and from its teacher (class-conditioned
    pipelines)."""
    precision: Literal["auto", "fp32", "bf16", "fp16"] = "auto"
    """Of forward and backward. auto: accelerate's own setting if it has one, else bf16 where the device multiplies it,
    such as GPUs and CPUs with AVX512_BF16 or AMX, and fp32 elsewhere."""
    threads: Annotated[int, Range(0)] = 0
    """CPU threads per process; 0: this machine's cores, divided among its processes."""
    checkpoint_epochs: Annotated[int, Range(0)] = 1
    """Save the resume state and the weights every this many epochs; 0: not by epoch. The end is always saved."""
    checkpoint_steps: Annotated[int, Range(0)] = 0
    """Save them every this many steps too; 0: not by step."""
    keep_checkpoints: Annotated[int, Range(2)] = 2
    """How many of the newest checkpoints to keep."""
    show_epochs: Annotated[int, Range(0)] = 1
    """Evaluate and draw the sheets every this many epochs, and after the first; 0: only at the end. Where `minutes` end
    the run: also once 5 % of them are over, and later only as long as this takes less than 5 % of the time."""
    min_steps_apart: Annotated[int, Range(1)] = 100
    """Where epochs are short: take at least this many steps between two checkpoints, or two evaluations, that are due
    by epoch."""
    eval_samples: Annotated[int, Range(0)] = 0
    """Test samples to translate at each evaluation, for their Fréchet distance; 0: none."""
    best: Literal["loss", "psnr", "ssim", "l1", "perceptual", "frechet"] | None = None
    """Also keep the weights with the best value of this measure of the test split, in best/; None: the last alone."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.optimizer == "muon" and self.precision == "fp16":  # fp16 would have to scale gradients Muon never sees
            raise UserError("precision: got fp16 with the optimizer muon, expected auto, fp32 or bf16")
