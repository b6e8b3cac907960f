"""Training: optimizer, schedule, hooks, checkpoints, the Runner, and the checks before it starts."""

from .check import ConfigError
from .checkpoint import (
    CheckpointError,
    LoadReport,
    latest_checkpoint,
    load_checkpoint,
    load_weights,
    read_checkpoint,
    weights_of,
    write_checkpoint,
)
from .clocks import FreezeHook, MomentumUpdateHook, QueueHook
from .cluster_hook import ClusterHook
from .config import check_config, load_config, set_option
from .dry_run import dry_run
from .hooks import CheckpointHook, CommitHook, NonFiniteGuardHook, SeedHook
from .lars import LARS
from .launch import init_processes
from .optim_wrapper import NonFiniteLossError, PretrainOptimWrapper
from .options import OptionsAction
from .parameter_rates import VectorRateConstructor
from .random_state import seed_everything
from .runner import Runner
from .scaling import effective_batch, lr_factor
from .schedule import WarmupCosineLR
from .training import default_work_dir, main, train

__all__ = [
    'LARS', 'CheckpointError', 'CheckpointHook', 'ClusterHook', 'CommitHook', 'ConfigError', 'FreezeHook',
    'LoadReport', 'MomentumUpdateHook', 'NonFiniteGuardHook', 'NonFiniteLossError', 'OptionsAction',
    'PretrainOptimWrapper', 'QueueHook', 'Runner', 'SeedHook', 'VectorRateConstructor', 'WarmupCosineLR',
    'check_config', 'default_work_dir', 'dry_run', 'effective_batch', 'init_processes', 'latest_checkpoint',
    'load_checkpoint', 'load_config', 'load_weights', 'lr_factor', 'main', 'read_checkpoint', 'seed_everything',
    'set_option', 'train', 'weights_of', 'write_checkpoint',
]  # fmt: skip
