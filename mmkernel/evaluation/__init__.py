"""Benchmarks of encoders and diagnosis of their embeddings: features, kNN, linear, few labels, transfer, label-free statistics.

A *benchmark* is a function ``score(train_x, train_y, test_x, test_y, **settings) -> scores`` of features (N, d) and ``Labels``;
``evaluate`` calls it for each encoder and makes rows ``dict(name=, width=, scores=)``, which a table of ``report`` prints and a
JSON file keeps. ``scores`` holds plain numbers, strings, lists and dicts, accuracies in percent, under one of these forms:

    {k or protocol: dict(top1=, top5=, ...)}            weighted_knn, linear_sweep, linear_probe, logistic_regression, fine_tune
    {amount of labels: dict(mean=, sd=, values=)}       low_shot_svm, semi_supervised; few_label_scores has one for knn and linear
    {set: dict(score=, metric=, ...)}                   transfer
    {task: {stage: dict(top1=, majority=)}}             predict_transformations
    dict(mAP=, mAP_11=, ap={class: percent}, cost=)     voc_svm

``sd`` is the sample deviation of ``values`` (divisor n - 1).
"""

from mmkernel.evaluation.checkpoint_selection import (
    CRITERIA,
    UntrainedError,
    agreement,
    check_trained,
    checkpoint_statistics,
    criterion_score,
    rank_correlation,
    regret,
    untrained_encoder,
)
from mmkernel.evaluation.classifier_metrics import METRICS, accuracy, accuracy_history, main_metrics, metric_of
from mmkernel.evaluation.cloud import (
    YARDSTICK,
    cloud_statistics,
    covariance_spectrum,
    effective_rank,
    embedding_statistics,
    rankme,
)
from mmkernel.evaluation.diagnosis import COLLAPSED, DOUBTFUL, HEALTHY, Diagnosis, diagnose_cloud, judge, run_kernel
from mmkernel.evaluation.features import evaluate, evaluation_loader, extract_features, feature_sets, raw_pixels
from mmkernel.evaluation.fine_tuning import choose_options, fine_tune, semi_supervised, with_encoder, with_labels
from mmkernel.evaluation.inputs import scale_features, split_rows
from mmkernel.evaluation.knn import KNNPrediction, knn_predict, nearest, weighted_knn
from mmkernel.evaluation.linear import linear_probe, linear_sweep, score_heads, train_heads
from mmkernel.evaluation.logistic import draw_labelled, few_label_scores, logistic_path, logistic_regression
from mmkernel.evaluation.metrics import (
    average_precision,
    class_precisions,
    label_ranks,
    mean_average_precision,
    mean_per_class,
    top_k,
)
from mmkernel.evaluation.report import amount_table, probe_table, report, save_report, score_table
from mmkernel.evaluation.sampled_images import Cloud, load_cloud, sample_cloud, sample_source, save_cloud
from mmkernel.evaluation.svm import low_shot_svm, voc_svm
from mmkernel.evaluation.transfer_tasks import TRANSFER_SETS, mlp_probe, predict_transformations, transfer
