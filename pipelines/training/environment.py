"""What launchers say in environment variables: refused in one line where it is incomplete or not for us."""

import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager
from threading import Timer

from flowferry.configs.validation import UserError

PROCESS = ("RANK", "WORLD_SIZE", "LOCAL_RANK")  # which process this is, of how many
MEETING = ("MASTER_ADDR", "MASTER_PORT")  # where they meet
SHARDING = ("FSDP", "DEEPSPEED", "MEGATRON_LM", "PARALLELISM_CONFIG")
PRECISIONS = ("no", "fp16", "bf16")
ACCUMULATION = "ACCELERATE_GRADIENT_ACCUMULATION_STEPS"
PATIENCE = 10  # seconds, after which it is told for whom a process waits

log = logging.getLogger("flowferry")


@contextmanager
def launched() -> Iterator[None]:
    """Check the environment before the processes of a run meet, which is done in this context.

    Raises UserError for variables that say too little or what is not supported, and where starting fails. If the other
    processes do not come soon, logs for how many this one waits, and where.
    """
    check_processes()
    check_sharding()
    waiting = Timer(PATIENCE, log.warning, [describe_wait()])
    waiting.daemon = True
    if int(os.environ.get("WORLD_SIZE", 1)) > 1:
        waiting.start()
    try:
        yield
    except (ImportError, RuntimeError, ValueError) as error:  # RuntimeError: torch's, as where nobody answers
        told = str(error).strip().partition("\n")[0]
        raise UserError(f"the processes cannot start: {type(error).__name__}: {told}") from error
    finally:
        waiting.cancel()


def check_processes() -> None:
    """Raise UserError unless the variables of a process are complete and possible, or not there.

    A count of one without a local rank is taken for no launcher: some clusters set it for every job.
    """
    said = {name: os.environ[name] for name in (*PROCESS, *MEETING) if name in os.environ}
    if not said.keys() & {*PROCESS} or (said.get("WORLD_SIZE") == "1" and "LOCAL_RANK" not in said):
        return
    got = ", ".join(f"{name}={value}" for name, value in said.items())
    advice = "or none of them: unset what another job left, or start with torchrun or accelerate launch"
    if missing := [name for name in (*PROCESS, *MEETING) if name not in said]:
        raise UserError(f"environment variables: got {got}, expected {' and '.join(missing)} as well, {advice}")
    numbers = [said[name] for name in (*PROCESS, "MASTER_PORT")]
    if not all(number.isdecimal() for number in numbers) or not int(said["RANK"]) < int(said["WORLD_SIZE"]):
        raise UserError(f"environment variables: got {got}, expected numbers, RANK below WORLD_SIZE, {advice}")


def check_sharding() -> None:
    """Raise UserError if Accelerate is to divide the network among the processes."""
    for name in (f"ACCELERATE_USE_{kind}" for kind in SHARDING):
        if (value := os.environ.get(name, "false")).lower() == "true":
            raise UserError(f"{name}: got {value}, expected false, because every process holds the whole network")


def describe_wait() -> str:
    """Return for whom this process waits, and where."""
    rank, size, place = (os.environ.get(name, "") for name in ("RANK", "WORLD_SIZE", "MASTER_ADDR"))
    meeting = f"{place}:{os.environ.get('MASTER_PORT', '')}"
    return (
        f"process {rank} is waiting for all {size} processes at {meeting}, of which RANK, WORLD_SIZE and MASTER_ADDR "
        "speak; if there are none, unset them"
    )


def asked_precision() -> str | None:
    """Return the precision that `accelerate launch` was asked for, or None. Raises UserError for an unknown one."""
    name = "ACCELERATE_MIXED_PRECISION"
    if (asked := os.environ.get(name, "no").lower()) not in PRECISIONS:
        raise UserError(f"{name}: got {asked}, expected one of {', '.join(PRECISIONS)}")
    return None if asked == "no" else asked


def ignored_accumulation() -> str | None:
    """Return a line saying that Accelerate's own accumulation is ignored; None where none is asked for."""
    if (asked := os.environ.get(ACCUMULATION, "1")) == "1":
        return None
    return f"{ACCUMULATION}={asked} is ignored: --train.accumulate says in how many parts a batch is computed"
