"""The verb `features`: train the classifier whose features `evaluate` compares on a data set."""

import logging
from pathlib import Path

from flowferry.configs.cli import named_config
from flowferry.configs.components import SamplerConfig
from flowferry.configs.locations import RUNS, classifier_folder, names_folder
from flowferry.configs.options import FeaturesOptions
from flowferry.pipelines.evaluation.classifier import file_name, train_and_save
from flowferry.pipelines.hardware import best_device, use_cores
from flowferry.pipelines.storage.files import prepare_folder

log = logging.getLogger("flowferry")


def run(options: FeaturesOptions) -> int:
    """Train the classifier, write its file and log its accuracy; return the exit code."""
    config = named_config(options.pipeline)
    component: SamplerConfig = getattr(config, options.of)
    output, name = options.output, file_name(component, config.shape)
    if output is None:
        file = classifier_folder(RUNS / config.name) / name
    else:
        file = Path(output, name) if names_folder(output) else Path(output)
    prepare_folder(file.parent, "--output")
    device = best_device()
    if device.type == "cpu":
        use_cores()
    share = train_and_save(component, config.shape, data_root=options.data_root, file=file, device=device)
    log.info("%s: correct on %.2f %% of the test images", file, 100 * share)
    return 0
