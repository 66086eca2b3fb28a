"""`python killed.py WHERE N ARGS…` is `python launch.py ARGS…`, killed when WHERE is reached for the Nth time.

WHERE is module:function or module:class.method. The kill is SIGKILL: nothing can be tidied up. In the environment,
KILLED_RANK is the process that is killed, and KILLED_ONCE a file that shows that it has been.
"""

import importlib
import os
import signal
import sys
from pathlib import Path

from flowferry import launch


def killed_at(where: str, number: int, signum: int = signal.SIGKILL, once: Path | None = None) -> None:
    """From now on this process sends itself a signal when it reaches `where` for the `number`-th time."""
    module, _, name = where.partition(":")
    *outer, last = name.split(".")
    owner = importlib.import_module(module)
    for part in outer:
        owner = getattr(owner, part)
    real, calls = getattr(owner, last), []

    def call(*args: object, **options: object) -> object:
        calls.append(last)
        if len(calls) == number:
            if once is not None:
                once.touch()
            os.kill(os.getpid(), signum)
        return real(*args, **options)

    setattr(owner, last, call)


def main() -> int:
    where, number, *argv = sys.argv[1:]
    once = Path(os.environ["KILLED_ONCE"])
    if os.environ["RANK"] == os.environ["KILLED_RANK"] and not once.exists():
        killed_at(where, int(number), once=once)
    return launch.main(argv)


if __name__ == "__main__":
    sys.exit(main())
