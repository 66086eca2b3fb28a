"""How processes find one another where a launcher starts them again."""

import os
import time
from datetime import timedelta
from uuid import uuid4

from torch import distributed as dist

from configs.checks import UserError
from pipelines.machine import best_device


def rendezvous(timeout: timedelta | None = None) -> None:
    """Makes the process group, under `torchrun --max-restarts`; else Accelerate does it.

    There the store in which processes look up one another's addresses outlives them, and a process that is started
    again finds those of the dead (pytorch issue 135712). What the launcher tells of restarts is its own machine's
    count. So process 0 gives the group a new name, and tells it to each that asks with a name that it has just made up.
    """
    if int(os.environ.get("TORCHELASTIC_MAX_RESTARTS", 0)) == 0 or dist.is_initialized():
        return
    store, rank, size = next(dist.rendezvous("env://"))
    name = uuid4().hex
    if rank == 0:
        patience = timeout or store.timeout
        deadline = time.monotonic() + patience.total_seconds()
        while store.add(f"{name}/met", 0) < size - 1:
            for asking in (f"asking/{other}" for other in range(1, size)):
                if store.check([asking]):
                    store.set(store.get(asking).decode(), name)
            if time.monotonic() > deadline:
                met = 1 + store.add(f"{name}/met", 0)
                raise UserError(f"processes: found {met} of {size} after waiting for {patience}, accepted are all")
            time.sleep(0.05)
    else:
        store.set(f"asking/{rank}", name)
        name = store.get(name).decode()
        store.add(f"{name}/met", 1)
    backend = dist.get_default_backend_for_device(best_device())
    dist.init_process_group(backend, timeout=timeout, store=dist.PrefixStore(name, store), rank=rank, world_size=size)
