"""Draw the figures of the documentation: ``python docs/figures [NAME ...]``, into docs/images.

A figure is a module here with ``draw(path, quick)``. Nothing is downloaded, and the same machine
draws the same picture again.
"""

from __future__ import annotations

import argparse
import importlib
import sys
from pathlib import Path

import torch

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE.parents[1]))  # this clone, whatever is installed
NAMES = sorted(p.stem for p in HERE.glob("*.py") if p.stem not in ("__main__", "common"))


def main() -> None:
    """Draw all figures, or those that are named."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("names", nargs="*", metavar="NAME", help=", ".join(NAMES))
    parser.add_argument("--out", type=Path, default=HERE.parent / "images", help="folder")
    parser.add_argument("--quick", action="store_true", help="hardly train: a test of the code")
    options = parser.parse_args()
    unknown = set(options.names) - set(NAMES)
    if unknown:
        parser.error(f"There is no figure {', '.join(sorted(unknown))}. Known: {', '.join(NAMES)}")
    options.out.mkdir(parents=True, exist_ok=True)
    torch.set_num_threads(1)
    for name in options.names or NAMES:
        path = options.out / f"{name}.png"
        torch.manual_seed(0)
        importlib.import_module(name).draw(path, options.quick)
        print(f"{path}  {path.stat().st_size / 1000:.0f} kB")


if __name__ == "__main__":
    main()
