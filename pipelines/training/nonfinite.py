"""Handle steps whose loss or gradient is NaN or infinite: end the run, or skip them."""

import math

from flowferry.configs.recipe import TrainConfig

Metrics = dict[str, float]
"""Values by their TensorBoard tags."""


class NonFinite(RuntimeError):
    """The loss or the gradient is NaN or infinite; the weights were not touched."""


def check_finite(step: int, values: Metrics, train: TrainConfig, *, scales_loss: bool, skipped: int) -> Metrics:
    """Return the metrics to log: `values`, or of a skipped step those that are finite and the count of skipped steps.

    scales_loss: under fp16 an infinite gradient is how the loss scaler finds its scale; it skips the step by itself.
    skipped: the number of steps skipped before. Raises NonFinite where such a step ends the run.
    """
    loss, norm = values["train/loss"], values["train/grad_norm"]
    if math.isfinite(loss) and (math.isfinite(norm) or scales_loss):
        return values
    if train.on_nonfinite == "skip":
        return {tag: value for tag, value in values.items() if math.isfinite(value)} | {"train/skipped": skipped + 1}
    raise NonFinite(
        f"step {step}: loss {loss}, gradient norm {norm}; the weights were not touched. Try --train.on-nonfinite skip; "
        f"or, in another --output-dir, a lower --train.lr (got {train.lr}) or --train.clip-norm 1"
    )
