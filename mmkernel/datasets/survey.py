"""A look at the images of sources before training: sizes, channels, mean and std, what cannot be read, speed."""

import hashlib
import os
import signal
import time
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import numpy as np
from torch.utils.data import DataLoader, Dataset

from .draws import SUBSET, generator, smallest_keys
from .loader import build_dataloader
from .sources import Source

# CorruptImageError is a ValueError
UNREADABLE = (OSError, ValueError, TypeError, LookupError, RuntimeError, MemoryError)


def look(image: np.ndarray) -> tuple[tuple[int, ...], np.ndarray, np.ndarray, bytes]:
    """Shape, per channel the mean of x and of x^2 for x = grey level / 255, and 16 bytes that equal pixels have in common."""
    levels = np.arange(256) / 255
    counts = np.stack(
        [np.bincount(image[..., c].ravel(), minlength=256) for c in range(image.shape[2])]
    )  # exact, and quick
    mean, square = (counts @ levels**power / counts[0].sum() for power in (1, 2))
    digest = hashlib.blake2b(np.ascontiguousarray(image), digest_size=16, person=str(image.shape)[-16:].encode())
    return image.shape, mean, square, digest.digest()


class _Looks(Dataset):
    """k -> ``look`` of image ``rows[k]``, or the text of the error that reading it raises."""

    def __init__(self, source: Source, rows: np.ndarray) -> None:
        self.source, self.rows = source, rows

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, k: int) -> Any:
        try:
            return look(self.source.pixels(int(self.rows[k])))
        except UNREADABLE as error:
            return f'{error}' or type(error).__name__


class Survey:
    """What the images of a source are. 28 bytes an image are kept, and the name and error of each that is unreadable.

    limit: look at so many, drawn by ``seed``; None: at all. workers: processes beside this one that read.
    progress: wraps the batches, for a bar. Ctrl-C ends it early: ``stopped``, and what was seen until then stays.
    """

    def __init__(
        self,
        source: Source,
        limit: int | None = None,
        seed: int = 0,
        workers: int = 0,
        progress: Callable[[Iterable, int], Iterable] = lambda batches, total: batches,
    ) -> None:
        rows = np.arange(len(source))
        if limit is not None and limit < len(rows):
            rows = np.sort(smallest_keys(generator(seed, 0, purpose=SUBSET), rows, limit))
        self.source, self.images, self.stopped = source, len(source), False
        self.shapes, self.digests = np.zeros((len(rows), 3), np.int32), np.zeros((len(rows), 2), np.uint64)
        self.errors: dict[str, str] = {}
        self.sums: dict[int, np.ndarray] = {}  # of C channels: images, sums of means, sums of mean squares
        loader = DataLoader(
            _Looks(source, rows), 32, num_workers=min(workers, -(-len(rows) // 32)), collate_fn=list,
            worker_init_fn=_leave_interrupts,
        )  # fmt: skip
        seen, before, start = 0, 0, time.perf_counter()
        try:
            for batch in progress(loader, len(loader)):
                if seen and not before:  # from here on the speed is measured: workers have started
                    before, start = seen, time.perf_counter()
                for found in batch:
                    self._take(seen, int(rows[seen]), found)
                    seen += 1
        except KeyboardInterrupt:
            self.stopped = True
        self.rate = (seen - before) / max(time.perf_counter() - start, 1e-9)  # images per second
        self.rows, self.shapes, self.digests = rows[:seen], self.shapes[:seen], self.digests[:seen]

    def _take(self, k: int, row: int, found: Any) -> None:
        if isinstance(found, str):
            self.errors[self.source.name(row)] = found
            return
        self.shapes[k], mean, square, digest = found
        self.digests[k] = np.frombuffer(digest, np.uint64)
        sums = self.sums.setdefault(len(mean), np.zeros((3, len(mean))))
        sums += np.stack([np.ones(len(mean)), mean, square])

    def statistics(self, channels: int) -> tuple[list[float], list[float]]:
        """(mean, std) of each channel, every image with the same weight: mean_i E_i[x], sqrt(mean_i E_i[x^2] - mean^2)."""
        count, mean, square = self.sums[channels]
        std = np.sqrt(np.maximum(square / count - (mean / count) ** 2, 0))
        return (mean / count).round(4).tolist(), std.round(4).tolist()

    def facts(self) -> dict[str, Any]:
        """All of it as plain values."""
        shapes = self.shapes[self.shapes[:, 2] > 0]
        sides = {
            name: dict(min=int(side.min()), median=float(np.median(side)), max=int(side.max()))
            for name, side in zip(('height', 'width'), shapes[:, :2].T, strict=True) if len(side)
        }  # fmt: skip
        sizes, times = np.unique(shapes[:, :2], axis=0, return_counts=True)
        often = [dict(height=int(h), width=int(w), images=int(n)) for (h, w), n in zip(sizes, times, strict=True)]
        labels = np.asarray(self.source.labels)
        counts = np.bincount(labels[labels >= 0], minlength=len(self.source.classes))
        there = counts[counts > 0].tolist()
        found, skipped = endings(self.source)
        return dict(
            source=type(self.source).__name__, images=self.images, looked_at=len(self.rows), stopped=self.stopped,
            found=found, skipped=skipped, sides=sides, sizes=sorted(often, key=lambda size: -size['images'])[:5],
            channels={
                c: dict(zip(('images', 'mean', 'std'), (int(sums[0, 0]), *self.statistics(c)), strict=True))
                for c, sums in sorted(self.sums.items())
            },
            labels=dict(unlabelled=int((labels < 0).sum()), classes=len(counts), classes_with_images=len(there),
                        smallest=min(there, default=0), largest=max(there, default=0)),
            unreadable=self.errors, images_per_second=round(self.rate, 1),
        )  # fmt: skip


def endings(source: Source) -> tuple[dict[str, int], dict[str, int]]:
    """{ending: files} of the images of a source, and of the other files of a folder; empty where it has none."""
    names = source.file_names()
    return dict(_endings([] if names is None else names).most_common()), getattr(source, 'skipped', {})


def _endings(names: Iterable[str]) -> Counter[str]:
    return Counter(os.path.splitext(str(name))[1].lower() or 'no ending' for name in names)


def delivered(dataloader: Mapping[str, Any], seconds: float) -> dict[str, Any]:
    """Images per second that the loader of a config gives on this machine, views and all, after its first batch."""
    loader = build_dataloader(dataloader, 0)
    images, start, epoch = 0, None, 0
    found = dict(workers=loader.num_workers, batch_size=loader.batch_size, batches=len(loader))
    try:
        while len(loader) and (start is None or time.perf_counter() - start < seconds):
            getattr(loader.sampler, 'set_epoch', int)(epoch)
            for batch in loader:
                if start is None:  # the start of the workers is not counted
                    start = time.perf_counter()
                    continue
                images += len(batch['sample_index'])
                if time.perf_counter() - start > seconds:
                    break
            epoch += 1
    except UNREADABLE as error:  # that of a worker ends a traceback
        return dict(found, error=(f'{error}'.strip() or type(error).__name__).splitlines()[-1])
    finally:
        loader._iterator = None  # ends persistent workers now
    spent = time.perf_counter() - start if start else 0.0
    rate = round(images / spent, 1) if images else None
    return dict(found, images=images, seconds=round(spent, 2), images_per_second=rate)


def _leave_interrupts(_: int) -> None:
    """Ctrl-C is for the first process, which then ends its workers."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
