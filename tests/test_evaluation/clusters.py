"""Labelled points around a centre for each class."""

import torch


def clusters(train=200, test=60, classes=4, noise=1.0, width=6, dtype=torch.float32):
    """Training points and labels, test points and labels; the classes take turns."""
    generator = torch.Generator().manual_seed(0)
    centres = torch.randn(classes, width, generator=generator, dtype=dtype)
    labels = torch.arange(train + test) % classes
    points = centres[labels] + noise * torch.randn(train + test, width, generator=generator, dtype=dtype)
    return points[:train], labels[:train], points[train:], labels[train:]
