"""How every run behaves around its method: logs, checkpoints, seeds, processes."""

default_scope = 'mmkernel'
randomness = dict(seed=0, deterministic=False)  # deterministic=True: on a GPU, too, two runs give the same bits; slower
env_cfg = dict(
    mp_cfg=dict(mp_start_method='fork', opencv_num_threads=0),
    dist_cfg=dict(timeout=1800),
)  # seconds that a collective may wait before the run fails

sync_bn = True  # where several GPUs are; on CPU batch-norm statistics are those of each process
channels_last = 'auto'  # where convolutions run on CUDA
compile = False  # True: torch.compile of backbone and neck
activation_checkpointing = False  # True: a block of the backbone keeps its input alone, and is computed twice
tf32 = 'convolutions'  # of float32, as PyTorch does by itself; True: matrix products too; False: neither

default_hooks = dict(
    timer=dict(type='IterTimerHook'),
    sampler_seed=dict(type='DistSamplerSeedHook'),
    logger=dict(type='LoggerHook', interval=50),
    param_scheduler=dict(type='ParamSchedulerHook'),
    seed=dict(type='SeedHook'),
    guard=dict(type='NonFiniteGuardHook'),
    commit=dict(type='CommitHook'),
    monitor=dict(type='EmbeddingMonitorHook', interval=50),
    doctor=dict(type='DoctorHook', interval=5),
    sheet=dict(type='ViewSheetHook'),  # views.png
    checkpoint=dict(type='CheckpointHook', interval=10, max_keep=2),  # every_minutes=30: inside epochs, too
    progress=dict(type='ProgressHook'),  # a bar on a terminal; MMKERNEL_PROGRESS=0: none
    report=dict(type='ReportHook'),  # report.html, of runs of 50 steps or more
    pulse=dict(type='PulseHook'),  # a process that is stopped, or cut off, ends the run
    preemption=dict(type='PreemptionHook'),  # SIGTERM, SIGUSR1, Ctrl-C: save and end
)
# JSON lines and a table. One more, by name: visualizer = dict(vis_backends=dict(tensorboard=dict(type='TensorboardVisBackend')))
visualizer = dict(
    type='Visualizer', vis_backends=dict(local=dict(type='LocalVisBackend'), table=dict(type='CSVBackend'))
)
log_level = 'INFO'
