"""``mmkernel train``: what tools/train.py does."""

from __future__ import annotations


def main(argv: list[str], prog: str) -> None:
    from mmkernel.engine import main as train  # timm, torchvision: seconds that help need not pay

    train(argv)
