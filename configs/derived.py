"""Pipelines made of others: the student of a trained one, and the smoke test of any."""

from dataclasses import replace
from typing import Any

from flowferry.configs.components import SamplerConfig
from flowferry.configs.presets import PIPELINES, student_of
from flowferry.configs.schema import Config


def student_config(config: Config, teacher: str) -> Config:
    """Return the student of the trained pipeline of `config`, which is called `teacher`, by its name or folder."""
    name = f"{config.name}-fast"
    row = PIPELINES.get(name)
    summary = row.summary if row else f"{config.name} at one evaluation of the network an image"
    return replace(config, name=name, summary=summary, **student_of(teacher, config.solver.source_noise))


def stand_in(component: SamplerConfig) -> Any:
    """Return synthetic data in place of a data set, or of a folder that was not named; other components unchanged."""
    return component if getattr(component, "root", "") else component.stand_in or component


def smoke_test(config: Config) -> Config:
    """Return the pipeline cut to about a minute on 2 CPU cores: synthetic data, and a budget of time, not of epochs."""
    return replace(
        config,
        source=stand_in(config.source),
        target=stand_in(config.target),
        solver=replace(config.solver, num_steps=min(config.solver.num_steps, 50)),
        teacher=replace(config.teacher, pairs=2048) if config.has_teacher else config.teacher,
        train=replace(config.train, minutes=1.0, batch_size=32, ema=0.99, show_epochs=0, checkpoint_epochs=0),
    )
