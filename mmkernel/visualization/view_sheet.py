"""A page of views, made in milliseconds and without a figure, so that every run can have one."""

from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from PIL import Image, ImageDraw
from torch import Tensor

GAP, TITLE, SMALLEST = 4, 14, 64  # pixels


def column_names(names: Sequence[str]) -> list[str]:
    """Of each view, numbered where several have one name. Where all have one it tells nothing: they are 'view 1', 'view 2'."""
    names = ['view'] * len(names) if len(set(names)) == 1 < len(names) else names
    count = Counter(names)
    return [f'{name} {names[:k].count(name) + 1}' if count[name] > 1 else name for k, name in enumerate(names)]


def view_sheet(path: str | Path, views: Sequence[Tensor], names: Sequence[str]) -> None:
    """A column for each view, (B, C, H, W) uint8 on the host, under its name; a row for each image.

    Other than 3 channels: the first. Small images are enlarged by a whole number, so that their pixels stay what they are.
    """
    scales = [max(1, -(-SMALLEST // max(view.shape[2:]))) for view in views]
    widths = [view.shape[3] * scale for view, scale in zip(views, scales, strict=True)]
    height = max(view.shape[2] * scale for view, scale in zip(views, scales, strict=True)) + GAP
    page = Image.new('RGB', (sum(widths) + GAP * (len(views) + 1), TITLE + height * len(views[0])), 'white')
    pen, left = ImageDraw.Draw(page), GAP
    for view, name, scale, width in zip(views, column_names(names), scales, widths, strict=True):
        pen.text((left, 1), name, fill='black')
        for row, image in enumerate(view):
            rgb = image if len(image) == 3 else image[:1].expand(3, -1, -1)
            cell = Image.fromarray(rgb.permute(1, 2, 0).contiguous().numpy())
            cell = cell.resize((width, scale * cell.height), Image.Resampling.NEAREST)
            page.paste(cell, (left, TITLE + row * height))
        left += width + GAP
    page.save(path)
