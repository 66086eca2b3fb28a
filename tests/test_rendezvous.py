"""Processes that are started again find one another, or say so: pipelines/rendezvous.py."""

import os
import subprocess
import sys
from pathlib import Path

from torch.distributed import TCPStore

ROOT = Path(__file__).parents[1]
ALONE = """
from datetime import timedelta
from configs.checks import UserError
from pipelines.rendezvous import rendezvous
try:
    rendezvous(timedelta(seconds=1))
except UserError as error:
    print("TOLD", error)
"""


def test_process_0_does_not_wait_for_ever_for_one_that_is_gone() -> None:
    of_the_launcher = TCPStore("localhost", 0, is_master=True, wait_for_workers=False)
    env = {"RANK": "0", "WORLD_SIZE": "2", "MASTER_ADDR": "localhost", "MASTER_PORT": str(of_the_launcher.port)}
    env |= {"TORCHELASTIC_MAX_RESTARTS": "1", "TORCHELASTIC_USE_AGENT_STORE": "True", "PYTHONPATH": str(ROOT)}
    env |= {"TORCHELASTIC_RESTART_COUNT": "1"}
    command = [sys.executable, "-c", ALONE]
    done = subprocess.run(command, env={**os.environ, **env}, capture_output=True, text=True, timeout=120)
    assert "TOLD" in done.stdout and "processes: found 1 of 2" in done.stdout, done.stderr
