"""Collectives of losses: values, gradients after DDP's mean, and what they do with one process."""

import torch
from multiprocess import run_processes

from mmkernel import distributed as ours


def rows(world_size):
    return torch.arange(4.0 * world_size, dtype=torch.float64).view(2 * world_size, 2).sin()


def full(z):
    """Couples all rows, so that a wrong backward cannot pass."""
    return (z @ z.T).pow(3).mean() + z.mean(0).square().sum()


def on_rank(rank, world_size):
    x = rows(world_size).chunk(world_size)[rank].clone().requires_grad_()
    results = {}

    def gradient(name, value):
        (g,) = torch.autograd.grad(value, x)
        results[name] = (value.detach(), g)

    gathered = ours.gather_rows_with_gradient(x)
    gradient('same full loss', full(gathered))
    own = (x @ gathered.T).pow(3).mean() + 0 * gathered.sum()
    gradient('own rows', ours.global_mean(own))
    mean = ours.mean_over_ranks_with_gradient(x.mean(0))
    gradient('summed statistic', mean.square().sum())
    gradient('local mean', ours.global_mean(x.square().mean()))
    results['identity'] = (torch.tensor(ours.rank()), torch.tensor(ours.world_size()))
    results['plain'] = (ours.gather_rows(x), ours.sum_over_ranks(x))
    return results


def expected(world_size):
    z = rows(world_size).requires_grad_()
    losses = {
        'same full loss': full(z),
        'own rows': (z @ z.T).pow(3).mean(),
        'summed statistic': z.mean(0).square().sum(),
        'local mean': z.square().mean(),
    }
    return z, {
        name: (value.detach(), torch.autograd.grad(value, z, retain_graph=True)[0]) for name, value in losses.items()
    }


def test_mean_over_ranks_is_the_gradient_of_the_union_batch():
    world_size = 2
    z, union = expected(world_size)
    for rank, results in enumerate(run_processes(on_rank, world_size)):
        for name, (value, gradient) in union.items():
            torch.testing.assert_close(results[name][0], value, rtol=1e-12, atol=1e-14)
            # DDP divides by W what each rank's own rows contribute.
            own = results[name][1] / world_size
            torch.testing.assert_close(own, gradient.chunk(world_size)[rank], rtol=1e-12, atol=1e-14)
        assert [int(n) for n in results['identity']] == [rank, world_size]
        torch.testing.assert_close(results['plain'][0], z.detach())
        torch.testing.assert_close(results['plain'][1], z.detach().view(world_size, 2, 2).sum(0))


def test_one_process_is_the_identity():
    x = torch.randn(3, 2, requires_grad=True)
    assert ours.gather_rows_with_gradient(x) is x
    assert ours.mean_over_ranks_with_gradient(x) is x
    assert ours.global_mean(x) is x
    assert (ours.rank(), ours.world_size()) == (0, 1)
    assert not ours.gather_rows(x).requires_grad


def one_fails(rank, world_size):
    found = [ours.on_first_process(lambda: f'said by {rank}')]
    try:
        ours.on_first_process(lambda: int('x' * rank))  # an empty text in process 0, which is not a number
    except ValueError as error:
        found += [str(error), error.of_first_process]
    return found


def test_what_the_first_process_finds_or_raises_reaches_all():
    message = "invalid literal for int() with base 10: ''"
    assert run_processes(one_fails, 2) == [['said by 0', message, False], ['said by 0', message, True]]
