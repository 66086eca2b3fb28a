"""The report kind `denoising-study`: what noise does to an image, and what a trained network makes of it."""

import shlex
from collections.abc import Callable
from dataclasses import fields
from pathlib import Path

import torch

from flowferry.configs.options import ReportOptions
from flowferry.pipelines import editing, editing_study
from flowferry.pipelines.hardware import describe_machine
from flowferry.pipelines.pipeline import Pipeline
from flowferry.pipelines.report_studies import component_summary, table
from flowferry.pipelines.storage.files import prepare_folder, write_text
from flowferry.pipelines.study_subject import Subject
from flowferry.pipelines.visualization import restoration
from flowferry.pipelines.visualization.grids import caption
from flowferry.pipelines.visualization.restoration import PUBLISHED_LEVELS, Errors

SHOWN = (0.25, 0.5, 0.75)  # noise levels, as shares of T
MEASURED = (0.05, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9)
BEGIN = 10  # the state of the strided list that the chain is shown from
EVERY = 5  # of its states that are shown
SEEDS = range(5)

FORWARD = {  # by path: the forward process in its paper's symbols
    "ddpm": "x_s = √ᾱ_s·x + √(1 − ᾱ_s)·ε, that is q(x_s | x) = N(√ᾱ_s·x, (1 − ᾱ_s)·I), with ε ~ N(0, I)",
    "linear": "x_t = t·x + (1 − t)·ε with ε ~ N(0, I) and t = 1 − s/T",
    "cosine": "x_t = sin(πt/2)·x + cos(πt/2)·ε with ε ~ N(0, I) and t = 1 − s/T",
}


def write(folder: Path, options: ReportOptions) -> Path:
    """Write the study of the pipeline in `folder`, index.md with its pictures, and return the folder of the report."""
    subject = Subject.load(folder, options)
    prepare_folder(subject.out, "--output")
    errors = restoration.errors_by_level(subject.pipeline, subject.test, MEASURED, subject.sigma)
    told = [heading(subject, errors, options), forward(subject), blurred(subject), one_step(subject)]
    told += [chain(subject, errors), sampled(subject), *(section(subject) for section in editing_study.SECTIONS)]
    write_text(subject.out / "index.md", "\n\n".join(told) + "\n")
    return subject.out


def heading(subject: Subject, errors: list[Errors], options: ReportOptions) -> str:
    """Say what is studied, and whether the network denoises at all."""
    config = subject.pipeline.config
    parameters = sum(p.numel() for p in subject.pipeline.model.parameters())
    facts = {
        "pipeline": f"{config.name}: {config.summary}",
        "network": f"{component_summary(config.model)}, {parameters:,} parameters, predicts the {config.prediction}",
        "path": f"{config.path}, {levels_in_words(subject.pipeline)}",
        "chain": restoration.strided(subject.pipeline).sampling,
        "image": "given" if subject.label is None else f"a test image of {subject.named(subject.label)}",
        "this report's machine": describe_machine(),
    }
    lines = [f"# {config.name}: a denoising study", table(("", ""), facts.items()), verdict(errors)]
    lines += [f"The command that writes this report:\n\n```\n{command(options)}\n```", FIRST]
    return "\n\n".join(line for line in lines if line)


def command(options: ReportOptions) -> str:
    """Return the command that writes a report with these options, wherever the data lie."""
    asked = [(f.name, getattr(options, f.name), f.default) for f in fields(options) if f.name != "data_root"]
    words = ["python", "launch.py", "report"]
    for name, value, default in asked:
        if value != default:
            words += [f"--{name.replace('_', '-')}", *(map(str, value) if isinstance(value, tuple) else [str(value)])]
    return shlex.join(words)


FIRST = """\
x is the clean image, ε Gaussian noise, and x_s their mixture at noise level s of T: s = 0 is the image and s = T the
noise. Time in this project runs the other way, from the noise at t = 0 to the image at t = 1, so that t = 1 − s/T. The
formulas are in DDPM's symbols, where √ᾱ_s is the factor of the image and √(1 − ᾱ_s) that of the noise. They hold on any
other path, once x_s is divided by the root of the sum of the squares of its two factors. Errors are mean squared errors
where black is 0 and white is 1. All noise is keyed: the same command writes the same pictures."""


def verdict(errors: list[Errors]) -> str:
    """Say so where the network is no better than a blur at any level: it is random or hardly trained."""
    if any(e.one_step < e.best_blur for e in errors):
        return ""
    return (
        "**This network does not denoise.** At no level does one step of it come nearer to the clean image than a blur "
        "does. It is random, untrained or not meant for such images: what follows shows the method, not what a trained "
        "network can do."
    )


def levels_in_words(pipeline: Pipeline) -> str:
    """Return how many noise levels the pipeline's path has, in words."""
    levels = pipeline.path.levels
    return f"T = {levels} levels" if levels else f"any t in [0, 1]; levels are counted of T = {PUBLISHED_LEVELS:,}"


def level_name(pipeline: Pipeline, share: float) -> str:
    """Return a noise level as a column's title."""
    return f"s = {share * (pipeline.path.levels or PUBLISHED_LEVELS):.0f}"


# --- the sections -----------------------------------------------------------------------------------------


def forward(subject: Subject) -> str:
    """Show the forward process at some levels."""
    pipeline = subject.pipeline
    noisy = torch.cat([editing.noised(pipeline, subject.image, 1 - share).cpu() for share in SHOWN])
    columns = ["clean", *(level_name(pipeline, share) for share in SHOWN)]
    sheet = subject.show("forward", [("", torch.cat([subject.image, noisy]))], "forward process", columns=columns)
    rows = []
    for share in SHOWN:
        t = torch.tensor(1 - share)
        a, b = pipeline.path.alpha(t).item(), pipeline.path.beta(t).item()
        rows.append((level_name(pipeline, share), f"{1 - share:g}", f"{b:.3f}", f"{a:.3f}", f"{(b / a) ** 2:.3g}"))
    heading = ("level", "t", "factor of the image", "factor of the noise", "signal to noise, squared")
    return f"## 1. The forward process\n\n{sheet}\n\n{FORWARD[pipeline.config.path]}.\n\n{table(heading, rows)}"


def noisy_and(subject: Subject, estimate: Callable[[torch.Tensor, float], torch.Tensor]) -> list[torch.Tensor]:
    """Return the noisy images at the levels shown and what an estimate (noisy, t) makes of them, each [3, C, H, W]."""
    noisy = [editing.noised(subject.pipeline, subject.image, 1 - share) for share in SHOWN]
    made = [estimate(x, 1 - share) for x, share in zip(noisy, SHOWN, strict=True)]
    return [torch.cat(noisy), torch.cat(made)]


def blurred(subject: Subject) -> str:
    """Show what a blur makes of the noisy images."""
    noisy, made = noisy_and(subject, lambda x, t: restoration.blur(x, subject.sigma))
    columns = [level_name(subject.pipeline, share) for share in SHOWN]
    told = f"Gaussian blur, σ = {subject.sigma:g} pixels"
    sheet = subject.show("blur", [("noisy", noisy), ("blurred", made)], told, columns=columns)
    return f"## 2. Classical denoising\n\n{sheet}\n\n{BLUR}"


BLUR = """\
A Gaussian blur, with a kernel of 6σ + 1 pixels a side, replaces each pixel by a mean of its neighbors. The mean of n
independent noise values has an n-th of their variance, so the noise falls; but the same mean is taken over the edges of
the image, and what is finer than σ is lost with the noise. A larger σ loses more of both, a smaller one less of both:
no σ tells them apart, because a blur knows nothing of what images look like. Nor does it bring back the contrast that
the forward process took."""


def one_step(subject: Subject) -> str:
    """Show the one-step estimates of the noisy images."""
    noisy, made = noisy_and(subject, lambda x, t: restoration.one_step(subject.pipeline, x, t))
    columns = [level_name(subject.pipeline, share) for share in SHOWN]
    clean = subject.image.expand(len(SHOWN), -1, -1, -1)
    rows = [("noisy", noisy), ("one step", made), ("clean", clean)]
    sheet = subject.show("one-step", rows, "one-step denoising", columns=columns)
    return f"## 3. One-step denoising\n\n{sheet}\n\n{ONE_STEP}"


ONE_STEP = """\
The network is told the level and answers at once: from its prediction follow the noise ε̂ in x_s and the clean image,
x̂ = (x_s − √(1 − ᾱ_s)·ε̂)/√ᾱ_s. It was trained with squared errors, and what minimizes E‖x̂ − x‖² is the mean of all
images that x_s may have been made from, x̂ = E[x | x_s]. With little noise only one image comes into question, and x̂ is
sharp. With much noise many do, and x̂ is their mean: gray where they disagree. At s = T it is the mean of all training
images, whatever x_s looks like."""


def chain(subject: Subject, errors: list[Errors]) -> str:
    """Show every fifth state of the chain, its end beside one step and the blur, and the errors of all three."""
    pipeline = subject.pipeline
    grid = restoration.strided(pipeline).grid().tolist()
    begin = min(BEGIN, len(grid) - 2)
    t = grid[begin]
    noisy = editing.noised(pipeline, subject.image, t)
    states, times = restoration.chain(pipeline, noisy, t), grid[begin:]
    shown = [*range(0, len(states) - 1, EVERY), len(states) - 1]
    columns = [level_name(pipeline, 1 - times[k]) for k in shown]
    title = f"iterative denoising, every {EVERY}th state"
    way = subject.show("chain", [("", torch.cat([states[k] for k in shown]))], title, columns=columns)
    ends = [noisy, restoration.blur(noisy, subject.sigma), restoration.one_step(pipeline, noisy, t), states[-1]]
    images = torch.cat([subject.image, *(x.cpu() for x in ends)])
    columns = ["clean", "noisy", "blurred", "one step", "iterative"]
    ends_sheet = subject.show("ways", [("", images)], f"from {level_name(pipeline, 1 - t)}", columns=columns)
    count = len(subject.test)
    title = caption(pipeline.config, f"over {count} test image{'s' if count > 1 else ''}")
    curves = subject.save("errors", restoration.error_curves(errors, title, subject.sigma))
    told = CHAIN.format(begin=begin, level=level_name(pipeline, 1 - t), steps=len(states) - 1)
    rows = [(f"{e.share:g}", *(f"{x:.4f}" for x in e[1:]), f"{e.chain / e.one_step:.2f}") for e in errors]
    heading = ("s/T", "noisy", "blurred", "best blur", "one step", "iterative", "iterative ÷ one step")
    parts = ["## 4. Iterative denoising", way, told, ends_sheet, "## 5. Errors", curves, table(heading, rows), ERRORS]
    return "\n\n".join(parts)


CHAIN = """\
The chain goes down a strided list of levels; here it begins at entry {begin} of it, {level}, and takes {steps} steps.
A step from level s to s' goes only a little of the way to x̂ and puts less noise back than there was,
x_s' = √ᾱ_s'·β/(1 − ᾱ_s)·x̂ + √α·(1 − ᾱ_s')/(1 − ᾱ_s)·x_s + √β·z, with α = ᾱ_s/ᾱ_s', β = 1 − α and z ~ N(0, I) anew,
and then the network is asked again. What was undecided between several images becomes, step by step, one of them: each
state is a little less noisy, fewer images come into question for it, and their mean is sharper. So the end is not the
mean of the images that fit, but one of them."""

ERRORS = """\
One step errs least at every level, and yet the end of the chain is the better picture. Both are as they should be.
Whatever picture x' one answers, the error has two parts, E‖x' − x‖² = E‖x' − E[x | x_s]‖² + E‖E[x | x_s] − x‖². The
mean leaves only the second. One image drawn from those that fit is as far from their mean as the true one is, so that
both parts are equal: a perfect chain errs exactly twice as much as a perfect step. The squared error rewards hedging,
the eye does not. Of the blurs, "best" is the best of several σ, chosen with the clean images at hand and with
brightness and contrast fitted to them: more than any blur can do."""


def sampled(subject: Subject) -> str:
    """Show the chain from pure noise, without and with guidance."""
    steps = restoration.strided(subject.pipeline)
    w = steps.config.solver.guidance
    asked: list[tuple[int | None, float]] = [(None, 1)]
    if subject.classes:
        asked += [(subject.classes[0], v) for v in sorted({1.0, w})]
    rows = []
    for label, v in asked:
        draws = [steps.sample(1, subject.labels(label), guidance=v, seed=seed) for seed in SEEDS]
        told = subject.named(label) + (f", w = {v:g}" if label is not None else "")
        rows.append((told, torch.cat(draws)))
    columns = [f"seed {seed}" for seed in SEEDS]
    sheet = subject.show("samples", rows, "from pure noise", columns=columns)
    return f"## 6. Sampling\n\n{sheet}\n\n{SAMPLING}" + (f"\n\n{GUIDANCE}" if subject.classes else "")


SAMPLING = """\
Begun at pure noise, the same chain makes new images: at first every image comes into question, and the noise of the
steps decides between them."""

GUIDANCE = """\
Guidance moves away from what the network would say without a class: v = v_none + w·(v_class − v_none), and the same of
ε̂. At w = 1 it is the class as it is; more exaggerates what is typical of the class, at the expense of variety."""
