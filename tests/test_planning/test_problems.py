"""What a dry run refuses or lists as a problem comes with the option that mends it, and that option does."""

import io
import re

import pytest

from mmkernel.cli.options import options_of
from mmkernel.engine import ConfigError, load_config
from mmkernel.planning.dry_run import dry_run, make_plan
from mmkernel.planning.problems import problems_of_data

OPTION = re.compile(r'--cfg-options ((?:[\w.]+=[^\s]+ ?)+)')

# Config and options with a problem -> what is said of it.
PROBLEMS = [
    ('simclr/digits', 'train_dataloader.batch_size=5000', '1437 images are less than one batch'),
    ('simclr/digits', 'train_dataloader.batch_size=5000 train_cfg.virtual_batch=10000', 'less than one batch'),
    ('simclr/digits', 'train_cfg.virtual_batch=2048', 'which virtual_batch makes 16 times as large'),
    ('simclr/digits', 'train_dataloader.num_batch_per_epoch=5000', 'asks for more than 1437 images'),
    ('simclr/digits', 'train_dataloader.num_batch_per_epoch=1 train_cfg.virtual_batch=256', 'less than the 2 micro-batches'),
    ('simclr/digits', 'train_cfg.virtual_batch=256 optim_wrapper.accumulative_counts=2', 'remove accumulative_counts'),
    ('simclr/digits', 'train_cfg.virtual_batch=200', 'is not a multiple of batch_size'),
    ('simclr/digits', 'train_cfg.virtual_batch=256 train_dataloader.drop_last=False', 'micro-batches of one size'),
    ('simclr/digits', 'env_cfg.cudnn_benchmark=True randomness.deterministic=True', 'contradict each other'),
    ('simclr/digits', 'compile=True activation_checkpointing=True', 'do not go together'),
    ('simclr/digits', 'fsdp=True compile=True', 'do not go together'),
    ('simclr/digits', 'train_dataloader.dataset.views_on=device', 'exact=True makes views by Pillow'),
    ('simclr/digits', 'optim_wrapper.optimizer.type=LARS optim_wrapper.paramwise_cfg.norm_decay_mult=0.5', 'has no effect'),
    ('byol/digits', 'default_hooks.momentum=None', 'exactly one hook must move'),
    ('byol/digits', 'model.target=None', 'has nothing to move'),
    ('swav/digits_queue', 'default_hooks.queue=None', 'would never be used'),
    ('swav/digits_queue', 'model.head.queue_length=1000', 'A queue of length 1000 is not a multiple'),
    ('moco/digits_v2', 'train_dataloader.batch_size=100', 'A queue of length 1024 is not a multiple'),
    ('wmse/digits_2views', 'train_dataloader.batch_size=24', 'cannot be cut into whitening sub-batches'),
    ('deepcluster/digits_v2', 'default_hooks.cluster=None', 'no hook makes clusters'),
    ('deepcluster/digits_v1', 'model.head.num_clusters=(5000,)', '5000 clusters of 1437 samples'),
    ('sfrik/digits_vit', 'train_dataloader.dataset.views.both.size=15', 'should be divisible by patch size'),
]  # fmt: skip


def complaint(config, options):
    """The error of the config, or the problems that its plan lists; '' without any."""
    try:
        plan = make_plan(load_config(f'configs/{config}.py', options_of(options)), 1)
    except ConfigError as error:
        return str(error)
    return '\n'.join(map(str, plan.problems()))


@pytest.mark.parametrize('config, options, words', PROBLEMS, ids=[f'{c} {o}' for c, o, _ in PROBLEMS])
def test_a_problem_goes_by_what_it_says(config, options, words):
    given = options.split()
    text = complaint(config, given)
    assert words in text
    change = OPTION.search(text)[1].strip().rstrip('.,):').split()
    kept = [option for option in given if option.partition('=')[0] not in {each.partition('=')[0] for each in change}]
    assert complaint(config, [*kept, *change]) == ''


def test_they_are_printed_in_the_plan():
    options = ['optim_wrapper.precision=float16', 'train_dataloader.batch_size=5000']
    text = dry_run(load_config('configs/simclr/digits.py', options_of(options)), file=io.StringIO())
    text = ' '.join(text.replace('│', ' ').split())
    assert '--cfg-options train_dataloader.batch_size=1024' in text
    assert '--cfg-options optim_wrapper.precision=bfloat16' in text or 'here is none' not in text


def test_too_few_images_for_any_batch():
    (problem,) = problems_of_data(3, 8, 2, 1, None)
    assert problem.change == {}
    assert 'needs more images, or fewer processes' in str(problem)
