"""The states of all random generators, so that a training that starts again draws what it would have drawn.

They are kept as numbers, texts and tensors only: what PyTorch loads from files that it is told not to trust.
"""

from __future__ import annotations

import random
import sys
from typing import Any


def take() -> dict[str, Any]:
    """Return the states of Python's, PyTorch's and, where it is imported, numpy's generator."""
    import torch

    version, numbers, normal = random.getstate()
    state: dict[str, Any] = {
        "python": [version, list(numbers), normal],
        "torch": torch.get_rng_state(),
        "cuda": torch.cuda.get_rng_state_all() if torch.cuda.is_available() else [],
    }
    numpy = sys.modules.get("numpy")
    if numpy is not None:
        name, keys, position, has_normal, normal = numpy.random.get_state(legacy=True)
        state["numpy"] = [str(name), keys.tolist(), int(position), int(has_normal), float(normal)]
    return state


def restore(state: dict[str, Any]) -> None:
    """Set the generators. GPUs are left alone where there is another number of them."""
    import torch

    version, numbers, normal = state["python"]
    random.setstate((version, tuple(numbers), normal))
    torch.set_rng_state(state["torch"].cpu())
    if state["cuda"] and len(state["cuda"]) == torch.cuda.device_count():
        torch.cuda.set_rng_state_all([item.cpu() for item in state["cuda"]])
    if "numpy" in state:
        import numpy

        name, keys, *rest = state["numpy"]
        numpy.random.set_state((name, numpy.array(keys, dtype=numpy.uint32), *rest))
