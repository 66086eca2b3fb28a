"""What a network is told of the samples it works on, checked before it is built."""

from configs.checks import UserError


def image_channels(kind: str, shape: tuple[int, ...], *, multiple: int = 1, side: int | None = None) -> int:
    """C of `shape` (C, H, W), for a network whose H and W are `side`, or else multiples of `multiple`."""
    fits = len(shape) == 3 and all(length == side if side else length % multiple == 0 for length in shape[1:])
    if not fits:
        accepted = f"(C, {side}, {side})" if side else f"(C, H, W) with H and W multiples of {multiple}"
        raise UserError(f"{kind}: found samples of shape {shape}, accepted is {accepted}")
    return shape[0]


def refuse_classes(kind: str, classes: int) -> None:
    if classes:
        raise UserError(f"{kind} takes no classes: found {classes}, accepted 0 (or --model course-unet or patch-unet)")
