"""The machine that a process runs on: its devices, cores and memory, and its name."""

import ctypes
import os
import platform
import sys
from pathlib import Path

import torch

NETWORKS = 4  # batches at a time, at most: more threads would wait for Python


def best_device() -> torch.device:
    """Return a GPU if there is one, else the CPU."""
    return torch.accelerator.current_accelerator(check_available=True) or torch.device("cpu")


def use_cores(threads: int = 0) -> None:
    """Set the number of CPU threads of this process; 0: the machine's cores, divided among its processes.

    Without it, launchers that set OMP_NUM_THREADS to 1 would leave the other cores idle.
    """
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    torch.set_num_threads(threads or max(1, cores // int(os.environ.get("LOCAL_WORLD_SIZE", 1))))


def networks_at_once(device: torch.device, *, small: bool) -> tuple[int, int]:
    """Return how many batches to run through a network at a time, and by how many CPU threads each.

    small: whether the images are. On a CPU, threads that compute a batch each do not wait for one another at each
    layer, as those do that share a batch (docs/PERFORMANCE.md).
    """
    threads = torch.get_num_threads()
    networks = min(threads, NETWORKS) if small and device.type == "cpu" else 1
    return networks, threads // networks


def keep_freed_memory() -> None:
    """Make glibc keep freed memory, which it would otherwise return to the system and fault in again at each step.

    Measured: up to a quarter more images per second. Does nothing without glibc.
    """
    if sys.platform == "linux" and hasattr(libc := ctypes.CDLL(None), "mallopt"):
        m_trim_threshold, m_mmap_max = -1, -4  # <malloc.h>
        libc.mallopt(m_mmap_max, 0)
        libc.mallopt(m_trim_threshold, 2**31 - 1)


def has_bf16(device: torch.device) -> bool:
    """Return whether the device multiplies bfloat16 in hardware; emulated, it is slower than float32."""
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    able: dict[str, bool] = getattr(torch.cpu, "get_capabilities", dict)()  # not in the oldest torch that is accepted
    return device.type == "cpu" and bool(able.get("avx512_bf16") or able.get("amx_bf16"))


def run_precision(asked: str, device: torch.device) -> str:
    """Return "fp32", "bf16" or "fp16", in which to run a network that is not trained: as asked, or the faster."""
    return ("bf16" if has_bf16(device) else "fp32") if asked == "auto" else asked


def describe_machine() -> str:
    """Return the GPU's name, or the processor's with its number of cores."""
    if torch.cuda.is_available():
        return torch.cuda.get_device_name()
    path = Path("/proc/cpuinfo")  # only on Linux; elsewhere the architecture has to do
    lines = path.read_text().splitlines() if path.is_file() else []
    models = [line.split(":")[1].strip() for line in lines if line.startswith("model name")]
    return f"{models[0] if models else platform.machine()}, {os.cpu_count()} cores"
