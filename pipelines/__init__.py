"""`from pipelines import Pipeline`: a trained pipeline samples, translates and inverts."""

import sys
from importlib.util import find_spec
from pathlib import Path

HOME = Path(__file__).parents[1]

if (found := find_spec("datasets")) is None or Path(found.origin or "").parent != HOME / "datasets":
    if "datasets" in sys.modules:
        raise ImportError(
            f"flowferry's package datasets: found another library of that name loaded ({found and found.origin}); "
            "accepted is to import pipelines in a process that does not use it"
        )
    sys.path.insert(0, str(HOME))  # Hugging Face's library is installed too, and would be found first

from pipelines.pipeline import Pipeline  # noqa: E402

__all__ = ["Pipeline"]
