"""What a denoising study shows of edits: a trained network made to do what it was not trained for."""

from collections.abc import Callable, Iterator, Sequence

import torch
from torch import Tensor

from flowferry.pipelines import editing
from flowferry.pipelines.flow import edits
from flowferry.pipelines.report_studies import table
from flowferry.pipelines.study_subject import Subject
from flowferry.pipelines.visualization.denoising import squared_error
from flowferry.pipelines.visualization.restoration import in_blocks, strided

ENTRIES = (1, 3, 5, 7, 10, 20)  # of the strided list, at which SDEdit begins
MEASURED = 32  # images whose distance is measured
DRAWS = 5  # samples on a sheet
SHOWN, COMPARED = 8, (3, 5)  # images on the sheet of FlowEdit beside SDEdit, and the entries there
JUDGED = 20  # samples that a classifier is asked about
RESAMPLE = 5  # times that each step is taken with RePaint's jumps
VIEWS = ("rotate180", "flip", "skew", "negative")


def starts_of(subject: Subject) -> dict[int, float]:
    """Return the times of ENTRIES, as far as the strided list goes."""
    grid = strided(subject.pipeline).grid().tolist()
    return {entry: grid[entry] for entry in ENTRIES if entry < len(grid) - 1}


def result(states: Iterator[Tensor]) -> Tensor:
    """Return the images that an edit ends in, on the CPU."""
    return editing.result_of(states).cpu()


Edit = Callable[[Tensor, Sequence[int], float], Iterator[Tensor]]
"""edit(images [B, C, H, W], their numbers, time to start at) -> the states of the edit."""


def all_edited(subject: Subject, edit: Edit, images: Tensor, t: float) -> Tensor:
    """Return what an edit that starts at time t makes of images [N, C, H, W]."""
    return in_blocks(subject.pipeline, images, lambda x, rows: result(edit(x, rows, t)))


def share(read: Tensor) -> str:
    """Return in words which share of bool [N] is true."""
    return f"{read.float().mean():.0%}"


# --- one image, edited ------------------------------------------------------------------------------------


def sdedit(subject: Subject) -> str:
    """Show edits of the image and of the drawing, from strong to weak, and how far they go."""
    steps, starts = strided(subject.pipeline), starts_of(subject)
    asked: list[int | None] = [None, subject.changed] if subject.classes else [None]
    given = {"image": subject.image} | ({} if subject.drawing is None else {"drawing": subject.drawing})
    rows = []
    for name, image in given.items():
        for label in asked:
            row = [result(editing.sdedit(steps, image, subject.labels(label), start=t)) for t in starts.values()]
            rows.append((f"{name}, {subject.named(label)}", torch.cat([*row, image])))
    columns = [*(f"i = {entry}" for entry in starts), "given"]
    sheet = subject.show("sdedit", rows, "SDEdit", columns=columns)

    def edit(x: Tensor, rows: Sequence[int], t: float) -> Iterator[Tensor]:
        return editing.sdedit(steps, x, start=t, rows=rows)

    some, lines = subject.test[:MEASURED], []
    for entry, t in starts.items():
        made = all_edited(subject, edit, some, t)
        lines.append((str(entry), f"{t:.3f}", f"{squared_error(made, some):.4f}"))
    told = f"Mean squared distance from the given image, over {len(some)} test images and without a class:"
    return "\n\n".join(["## 7. SDEdit", sheet, SDEDIT, told, table(("i", "t", "distance"), lines)])


SDEDIT = """\
SDEdit (Meng et al. 2021) makes an image noisy on purpose and denoises it. The noise drowns what is fine and leaves what
is coarse; the chain then puts in details as the network knows them. i counts the entries of the strided list, from the
most noise on: at i = 1 hardly anything of the image is left, and the result is nearly a new sample; at i = 20 only
details change. So a drawing becomes an image such as the network was trained on, and where a class is asked, what was
drowned comes back as that class. To be faithful and to be realistic pull in opposite directions; i chooses between
them."""


def inpainting(subject: Subject) -> str:
    """Show the image with its right half made anew."""
    steps, image = strided(subject.pipeline), subject.image
    mask = torch.zeros(image.shape[-2:], dtype=torch.bool)
    mask[:, mask.shape[1] // 2 :] = True
    asked: list[tuple[int | None, int]] = [(None, 1), (None, RESAMPLE)]
    if subject.classes:
        asked += [(subject.label if subject.label is not None else subject.changed, RESAMPLE)]
    rows, moved = [], 0.0
    several = image.expand(DRAWS, *image.shape[1:])
    for label, resample in asked:
        made = result(editing.inpaint(steps, several, mask, subject.labels(label, DRAWS), resample=resample))
        moved = max(moved, (made - image)[..., ~mask].abs().max().item())
        told = subject.named(label) + (f", {resample} times" if resample > 1 else "")
        rows.append((told, torch.cat([image, image.masked_fill(mask, 0), made])))
    columns = ["image", "given", *(f"draw {k}" for k in range(DRAWS))]
    sheet = subject.show("inpainting", rows, "inpainting", columns=columns)
    told = f"The largest change of a known pixel on this sheet is {moved:g}."
    return f"## 8. Inpainting\n\n{sheet}\n\n{INPAINTING}\n\n{told}"


INPAINTING = f"""\
After every step of the chain the known pixels are put back, as noisy as they have to be at that level:
x_s ← m·x_s + (1 − m)·(√ᾱ_s·x + √(1 − ᾱ_s)·ε), where m is 1 in the part to be made. The network then makes that part
fit what it sees. It does not fit well at once, because the step that made it knew nothing of the known pixels' new
noise. RePaint (Lugmayr et al. 2022) therefore jumps back by a step and takes it again, here {RESAMPLE} times each."""


# --- one image that is two --------------------------------------------------------------------------------


def anagrams(subject: Subject) -> str:
    """Show images that are something else in another view, and count how often both readings are right."""
    pipeline, pair = strided(subject.pipeline), subject.pair
    count = JUDGED if subject.classifier else DRAWS
    x = pipeline.draw_source(count)
    rows, lines = [], []
    for name in VIEWS:
        labels = [subject.labels(label, count) for label in pair]
        made = result(editing.anagram(pipeline, x, labels, ["identity", name]))
        seen = edits.VIEWS[name].see(made)
        both = torch.stack([made, seen], dim=1)
        rows.append((name, both[:DRAWS].flatten(0, 1)))
        if subject.classifier:
            first, second = subject.reads_as(made, pair[0]), subject.reads_as(seen, pair[1])
            lines.append((name, *(share(read) for read in (first, second, first & second))))
    names = [subject.named(label) for label in pair]
    columns = ["as it is", "viewed"] * DRAWS
    sheet = subject.show("anagrams", rows, " and ".join(names), columns=columns)
    parts = ["## 9. Visual anagrams", sheet, ANAGRAMS]
    if lines:
        parts += [f"What a classifier reads, of {count} samples each:", table(("view", *names, "both"), lines)]
    return "\n\n".join(parts)


ANAGRAMS = """\
Two velocities are averaged at each step: that of the image towards one class, and that of the image in another view V
towards the other, turned back, v = ½·(v(x, first) + V⁻¹·v(V·x, second)). This works for every orthogonal V, which takes
Gaussian noise to Gaussian noise, so that the network is never shown what it does not know: rotation by 180°, upside
down, columns rolled up or down, the negative. How well it works depends on whether there is an image that is both: the
negative of a white digit on black is no digit, whatever one asks for."""


def hybrids(subject: Subject) -> str:
    """Show images of one class from afar and of another from nearby."""
    if len(subject.classes) < 2:
        return "## 10. Hybrid images\n\nNot shown: they need two classes, and both frequency bands of one are that one."
    pipeline, (far, near) = strided(subject.pipeline), subject.pair
    count = JUDGED if subject.classifier else DRAWS
    labels = [subject.labels(label, count) for label in (far, near)]
    made = result(editing.hybrid(pipeline, pipeline.draw_source(count), *labels))
    rows = [("nearby", made[:DRAWS]), ("from afar", edits.lowpass(made[:DRAWS]))]
    title = f"{subject.named(far)} from afar, {subject.named(near)} from nearby"
    parts = ["## 10. Hybrid images", subject.show("hybrids", rows, title), HYBRIDS]
    if subject.classifier:
        reads = share(subject.reads_as(edits.lowpass(made), far)), share(subject.reads_as(made, near))
        told = f"{reads[0]} as {subject.named(far)} from afar, and {reads[1]} as {subject.named(near)} from nearby."
        parts.append(f"Of {count} samples, a classifier reads {told}")
    return "\n\n".join(parts)


HYBRIDS = """\
The coarse part of the velocity is taken from one class and the fine part from another,
v = lowpass(v_far) + highpass(v_near), with the Gaussian of σ = 2 at 64 pixels a side and in proportion elsewhere. From
afar, or blurred, only the coarse part is left. With few pixels there is little room between coarse and fine, and an
image must be both: small pictures make poor hybrids."""


# --- from one class to another ----------------------------------------------------------------------------


def class_change(subject: Subject) -> str:
    """Compare FlowEdit with SDEdit, on test images that are to become another class."""
    if len(subject.classes) < 2:
        return "## 11. From one class to another\n\nNot shown: it needs two classes."
    new = subject.changed
    images, old = subject.others(new, MEASURED)
    sde, ode = strided(subject.pipeline), strided(subject.pipeline).using(solver="euler")

    def sd_edit(x: Tensor, rows: Sequence[int], t: float) -> Iterator[Tensor]:
        return editing.sdedit(sde, x, subject.labels(new, len(x)), start=t, rows=rows)

    def flow_edit(x: Tensor, rows: Sequence[int], t: float) -> Iterator[Tensor]:
        before = None if old is None else old[list(rows)]
        return editing.flow_edit(ode, x, before, subject.labels(new, len(x)), start=t, rows=rows)

    shown, lines = [("given", images[:SHOWN])], []
    for name, edit in {"SDEdit": sd_edit, "FlowEdit": flow_edit}.items():
        for entry, t in starts_of(subject).items():
            made = all_edited(subject, edit, images, t)
            line = [name, str(entry), f"{squared_error(made, images):.4f}"]
            lines.append(line + ([share(subject.reads_as(made, new))] if subject.classifier else []))
            if entry in COMPARED:
                shown.append((f"{name}, i = {entry}", made[:SHOWN]))
    sheet = subject.show("class-change", shown, f"to {subject.named(new)}")
    heading = ["edit", "i", "distance", *([f"read as {subject.named(new)}"] if subject.classifier else [])]
    told = f"Over {len(images)} test images of other classes, begun at entry i of the list:"
    return "\n\n".join(["## 11. From one class to another", sheet, CLASS_CHANGE, told, table(heading, lines)])


CLASS_CHANGE = """\
SDEdit forgets what the noise drowns, also what the classes have in common, such as slant and thickness. FlowEdit
(Kulikov et al. 2024) does not make the image itself noisy: from z = x on, it follows the difference of two velocities,
dz = (v(z + x_s − x, new) − v(x_s, old))·dt, with x_s made of x by new noise at each step. Where both classes agree, the
difference is nothing, and the image stays as it is. So at the same share of images that read as the new class, it is to
be nearer to the given ones than SDEdit."""


SECTIONS = (sdedit, inpainting, anagrams, hybrids, class_change)
