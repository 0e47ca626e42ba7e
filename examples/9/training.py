"""Make believe to train, and write what TensorBoard shows. Knows nothing of AzureML."""

from __future__ import annotations

import argparse
import math
from pathlib import Path

from tensorboardX import SummaryWriter


def main() -> None:
    """Read the command line and write one loss for each epoch."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--epochs", type=int, default=20, help="how many there are (default: 20)")
    args = parser.parse_args()

    loss = 1.0
    folder = Path("outputs") / "tensorboard"
    with SummaryWriter(str(folder)) as writer:
        for epoch in range(args.epochs):
            loss = math.exp(-epoch / 5)
            writer.add_scalar("loss", loss, epoch)
    print(f"{args.epochs} epochs, loss {loss:.4f}")


if __name__ == "__main__":
    main()
