"""Training: optimizer, schedule, hooks, checkpoints, the Runner, and the checks before it starts."""

from mmkernel.zoo import CheckpointError, LoadReport, load_weights, read_checkpoint, weights_of, write_checkpoint

from .allowed_keys import ConfigError
from .checkpoint import RunFolderError, latest_checkpoint, load_checkpoint
from .checkpoint_hook import CheckpointHook
from .clocks import FreezeHook, MomentumUpdateHook, QueueHook, momentum_at
from .cluster_hook import ClusterHook
from .config import check_config, default_work_dir, load_config, train
from .config_option import set_option
from .epoch_scores import AccuracyHook, KeepBestHook
from .finite import NonFiniteGuardHook, NonFiniteLossError
from .hooks import BackboneWeightsHook, CommitHook, RuntimeInfoHook, SeedHook
from .label_monitors import KNNMonitorHook, OnlineProbeHook
from .launch import init_processes
from .learning_rates import PartRateConstructor, VectorRateConstructor, effective_batch, lr_factor
from .logs import CSVBackend
from .monitors import DoctorHook, EmbeddingMonitorHook, ViewSheetHook
from .optim_wrapper import PretrainOptimWrapper
from .optimizers import LARS
from .preemption import Preempted, PreemptionHook
from .process_state import seed_everything
from .progress import ProgressHook
from .pulse import PulseHook, SilentProcessError
from .resume_check import OtherRunError
from .run_report import ReportHook, write_report
from .runner import Runner
from .schedule import WarmupCosineLR, warmup_cosine
from .trackers import TrackioBackend, WandbBackend
