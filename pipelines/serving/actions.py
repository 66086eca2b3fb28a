"""What a visitor can do with a pipeline: in what words, and which controls it needs."""

from typing import NamedTuple


class Action(NamedTuple):
    """Something that is done with a picture, or out of noise."""

    title: str
    told: str
    """What it does, in a sentence."""
    takes: frozenset[str] = frozenset()
    """The controls that it needs: fields of `Asked`."""
    labels: tuple[tuple[str, str | None], ...] = ()
    """For each class that can be asked for what it is the class of, and what no class means; None: it needs one."""
    variants: int = 1
    """How many results there are unless asked otherwise."""

    @property
    def needs_picture(self) -> bool:
        """Whether it starts from a picture."""
        return "picture" in self.takes


PICTURE = frozenset({"picture", "steps", "guidance", "restore_size"})
EDIT = PICTURE | {"seed", "variants"}
NEW = frozenset({"seed", "variants", "steps", "guidance"})
CLASS = "Class"

ACTIONS = {
    "translate": Action(
        "Translate",
        "Carries the picture from the source to the target.",
        EDIT,
        ((CLASS, "none"),),
    ),
    "back": Action(
        "Translate back",
        "Runs the other way: from the target to the source.",
        EDIT,
        ((CLASS, "none"),),
    ),
    "sample": Action(
        "New images",
        "Makes images out of noise. It needs no picture.",
        NEW,
        ((CLASS, "all in turn"),),
        variants=8,
    ),
    "sdedit": Action(
        "Redraw (SDEdit)",
        "Adds noise to the picture and goes on from there: the earlier it starts, the less of the picture is kept.",
        EDIT | {"start"},
        ((CLASS, "none"),),
    ),
    "inpaint": Action(
        "Fill in (inpaint)",
        "Makes anew what you paint over, and keeps every other pixel as it is.",
        EDIT | {"mask", "resample", "start"},
        ((CLASS, "none"),),
    ),
    "flowedit": Action(
        "Change the class (FlowEdit)",
        "Carries the picture from one class to another: the later it starts, the less else of it changes.",
        EDIT | {"start"},
        (("What it is", "left open"), ("What it becomes", None)),
    ),
    "denoise": Action(
        "Denoise once",
        "Adds noise to the picture, and shows what one evaluation of the network says that it was.",
        EDIT - {"steps"} | {"start"},
        ((CLASS, "none"),),
    ),
    "anagram": Action(
        "Anagram",
        "Makes an image that is something else when it is seen in another way.",
        NEW | {"view"},
        (("As it is", "none"), ("In the other view", "none")),
        variants=8,
    ),
    "hybrid": Action(
        "Hybrid",
        "Makes an image that is one thing from afar and another from nearby.",
        NEW | {"sigma"},
        (("From afar", None), ("From nearby", None)),
        variants=8,
    ),
}
"""All of them, in the order in which they are offered."""
