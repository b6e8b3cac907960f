"""The k nearest rows of a bank by cosine, exactly or from half-precision scores, in whatever memory there is."""

from __future__ import annotations

import importlib.util
import os

import torch
from torch import Tensor

from mmkernel.evaluation.inputs import as_pair, row_norms, unit_rows

BACKENDS = ('auto', 'torch', 'faiss')
PRECISIONS = dict(float32=None, bfloat16=torch.bfloat16)
_QUERIES, _BANK = 512, 65536  # scores held at a time where memory allows: 134 MB in float32


@torch.no_grad()
def nearest(
    queries: Tensor,
    bank: Tensor,
    k: int,
    device: str | torch.device | None = None,
    query_chunk: int | None = None,
    bank_chunk: int | None = None,
    backend: str = 'auto',
    precision: str = 'float32',
    rerank: int = 0,
) -> tuple[Tensor, Tensor]:
    """(cosine similarities, bank rows) of the k nearest, best first; both (n, k), on ``device``; k is at most the bank's rows.

    The bank is walked once, each chunk normalised and moved once, with a running list of the best k per query.

    Args:
        query_chunk, bank_chunk: scores held at a time; None: 512 x 65536, less where memory is short.
        backend: 'faiss' multiplies and selects in one pass (CPU, float32); 'auto' takes it where it is installed.
        precision: 'bfloat16' makes scores of 8 bits, several times faster where the hardware multiplies them.
        rerank: so many candidates per query of a bfloat16 search are compared again in float32; 0: none.

    Raises ValueError where the lists of neighbours, or the chunks asked for, do not fit into memory.
    """
    queries, bank = as_pair(queries, bank, ('queries', 'rows of the bank'))
    device = torch.device(device) if device is not None else bank.device
    half = _check(backend, precision, rerank, k, bank, device)
    listed = min(max(k, rerank), len(bank))
    query_chunk, bank_chunk = _chunks(len(queries), bank, listed, device, query_chunk, bank_chunk)
    unit = unit_rows(queries.to(device))  # (n, d)
    value = unit.new_full((len(queries), listed), -torch.inf)
    index = torch.zeros(len(queries), listed, dtype=torch.long, device=device)
    by_faiss = backend == 'faiss' or (backend == 'auto' and _faiss_can(unit, half))
    for start in range(0, len(bank), bank_chunk):
        chunk = unit_rows(bank[start : start + bank_chunk].to(device))  # (m, d)
        chunk = chunk if half is None else chunk.to(half)
        for rows in _slices(len(queries), len(queries) if by_faiss else query_chunk):
            score, found = (_search_faiss if by_faiss else _search)(unit[rows], chunk, min(listed, len(chunk)))
            if start == 0 and score.shape[1] == listed:
                value[rows], index[rows] = score, found
                continue
            best = torch.cat([value[rows], score], dim=1).topk(listed, dim=1)
            value[rows] = best.values
            index[rows] = torch.cat([index[rows], found + start], dim=1).gather(1, best.indices)
    return _compare_again(unit, bank, index, min(k, listed)) if rerank else (value, index)


def _search(queries: Tensor, chunk: Tensor, k: int) -> tuple[Tensor, Tensor]:
    score, found = (queries.to(chunk.dtype) @ chunk.T).topk(k, dim=1)
    return score.to(queries.dtype), found


def _search_faiss(queries: Tensor, chunk: Tensor, k: int) -> tuple[Tensor, Tensor]:
    import faiss

    threads = faiss.omp_get_max_threads()
    faiss.omp_set_num_threads(torch.get_num_threads())
    try:
        score, found = faiss.knn(queries.numpy(), chunk.numpy(), k, metric=faiss.METRIC_INNER_PRODUCT)
    finally:
        faiss.omp_set_num_threads(threads)
    return torch.from_numpy(score), torch.from_numpy(found)


def _compare_again(unit: Tensor, bank: Tensor, index: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """The k best of the listed rows by their float32 cosines."""
    values, indices = unit.new_empty(len(unit), k), index.new_empty(len(unit), k)
    length = row_norms(bank).to(unit.device)
    length = torch.where(length > 0, length, 1)
    for rows in _slices(len(unit), max(1, 2**22 // (index.shape[1] * unit.shape[1]))):
        candidates = bank[index[rows].to(bank.device)].to(unit.device)  # (b, listed, d)
        cosine = torch.bmm(candidates, unit[rows, :, None]).squeeze(2) / length[index[rows]]
        best = cosine.topk(k, dim=1)
        values[rows], indices[rows] = best.values, index[rows].gather(1, best.indices)
    return values, indices


def _slices(length: int, step: int) -> list[slice]:
    return [slice(i, i + step) for i in range(0, length, step)]


def _faiss_can(unit: Tensor, half: torch.dtype | None) -> bool:
    plain = unit.device.type == 'cpu' and unit.dtype == torch.float32 and half is None
    return plain and importlib.util.find_spec('faiss') is not None


def _check(backend: str, precision: str, rerank: int, k: int, bank: Tensor, device: torch.device) -> torch.dtype | None:
    """The dtype of half-precision scores, None for full ones."""
    if backend not in BACKENDS or precision not in PRECISIONS:
        raise ValueError(
            f'backend is one of {", ".join(map(repr, BACKENDS))} and precision one of '
            f'{", ".join(map(repr, PRECISIONS))}, got {backend!r} and {precision!r}.'
        )
    half = PRECISIONS[precision]
    if int(k) != k or k < 1:
        raise ValueError(f'k = {k}; expected a whole number of neighbours >= 1.')
    if rerank and (half is None or rerank < k):
        raise ValueError(
            f"rerank = {rerank} compares that many candidates of a precision='bfloat16' search again: expected at "
            f'least k = {k} with that precision, else 0; got precision={precision!r}.'
        )
    if backend == 'faiss' and (device.type != 'cpu' or bank.dtype != torch.float32 or half is not None):
        raise ValueError(
            f"backend='faiss' searches float32 on a CPU, got {bank.dtype} on {device} with precision={precision!r}. "
            "Use backend='torch'."
        )
    if backend == 'faiss' and importlib.util.find_spec('faiss') is None:
        raise ValueError("backend='faiss' needs the package faiss-cpu: pip install faiss-cpu, or use backend='torch'.")
    return half


def _chunks(
    n: int, bank: Tensor, listed: int, device: torch.device, query_chunk: int | None, bank_chunk: int | None
) -> tuple[int, int]:
    """Chunks that fit into half of the free memory of ``device``, beside queries and lists of neighbours."""
    d, size = bank.shape[1], bank.element_size()
    available = available_memory(device)
    queries, chunk = query_chunk or _QUERIES, bank_chunk or min(_BANK, len(bank))
    if available is None:
        return queries, chunk
    lists = n * (2 * d * size + listed * (size + 8))

    def needed() -> int:
        return lists + chunk * (2 * d * size + 2 * queries * size)

    while bank_chunk is None and chunk > 1024 and 2 * needed() > available:
        chunk //= 2
    while query_chunk is None and queries > 16 and 2 * needed() > available:
        queries //= 2
    if needed() > available:
        raise ValueError(
            f'A search of {listed} neighbours for {n} queries of width {d} needs about {needed() / 1e9:.3g} GB with chunks of '
            f'{queries} x {chunk}; {available / 1e9:.3g} GB are free on {device}. Use fewer queries at a time, a smaller k '
            '(or rerank), smaller chunks, or another device.'
        )
    return queries, chunk


def available_memory(device: torch.device) -> int | None:
    """Bytes that can still be allocated; None where nobody can tell."""
    if device.type == 'cuda':
        cached = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
        return torch.cuda.mem_get_info(device)[0] + cached
    if device.type != 'cpu':
        return None
    try:
        with open('/proc/meminfo') as lines:  # counts reclaimable file cache, which sysconf's free pages do not
            fields = dict(line.split(':') for line in lines)
        return int(fields['MemAvailable'].split()[0]) * 1024
    except (OSError, KeyError, ValueError):
        names = getattr(os, 'sysconf_names', {})
        return os.sysconf('SC_PAGE_SIZE') * os.sysconf('SC_PHYS_PAGES') if 'SC_PHYS_PAGES' in names else None
