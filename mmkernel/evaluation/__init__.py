"""What an encoder is worth: features, nearest neighbours, linear probes, few labels, spectra."""

from mmkernel.evaluation.average_precision import average_precision, class_precisions
from mmkernel.evaluation.cloud import CloudStatistics, cloud_statistics
from mmkernel.evaluation.diagnosis import COLLAPSED, DOUBTFUL, HEALTHY, Diagnosis, diagnose, diagnose_cloud, judge
from mmkernel.evaluation.encoders import FeatureSet, evaluate, feature_sets, untrained_encoder
from mmkernel.evaluation.feature_cache import FeatureMismatchError, read_features
from mmkernel.evaluation.feature_keys import encoder_digest
from mmkernel.evaluation.features import evaluation_loader, extract_features, raw_pixels
from mmkernel.evaluation.few_labels import draw_labelled, few_label_scores
from mmkernel.evaluation.fine_tuning import accuracy, accuracy_history, fine_tune, with_encoder
from mmkernel.evaluation.judges import METRICS, main_metrics, metric_of, metrics_heading
from mmkernel.evaluation.knn import nearest, weighted_knn
from mmkernel.evaluation.label_amounts import semi_supervised, with_labels
from mmkernel.evaluation.linear import linear_probe, logistic_regression, scale_features
from mmkernel.evaluation.linear_heads import score_heads, train_heads
from mmkernel.evaluation.linear_sweep import linear_sweep, split_rows
from mmkernel.evaluation.low_shot import low_shot_svm
from mmkernel.evaluation.monitoring import YARDSTICK, embedding_statistics, point_statistics
from mmkernel.evaluation.option_grid import choose_options
from mmkernel.evaluation.remedies import run_kernel
from mmkernel.evaluation.report import amount_table, knn_table, probe_table, report, save_report, score_table
from mmkernel.evaluation.sampling import Cloud, load_cloud, sample_cloud, sample_source, save_cloud
from mmkernel.evaluation.selection import (
    CRITERIA,
    agreement,
    checkpoint_statistics,
    criterion_score,
    rank_correlation,
    regret,
)
from mmkernel.evaluation.spectrum import covariance_spectrum, effective_rank, rankme
from mmkernel.evaluation.svm import voc_svm
from mmkernel.evaluation.tables import low_shot_table, svm_table, transfer_table, transformation_table
from mmkernel.evaluation.trained import UntrainedError, check_trained
from mmkernel.evaluation.transfer import TRANSFER_SETS, mean_per_class, transfer
from mmkernel.evaluation.transformations import mlp_probe, predict_transformations

__all__ = [
    'COLLAPSED', 'CRITERIA', 'DOUBTFUL', 'HEALTHY', 'METRICS', 'TRANSFER_SETS', 'YARDSTICK', 'Cloud', 'CloudStatistics',
    'Diagnosis', 'FeatureMismatchError', 'FeatureSet', 'UntrainedError', 'accuracy', 'accuracy_history', 'agreement',
    'amount_table', 'average_precision', 'check_trained', 'checkpoint_statistics', 'choose_options', 'class_precisions',
    'cloud_statistics', 'covariance_spectrum', 'criterion_score', 'diagnose', 'diagnose_cloud', 'draw_labelled',
    'effective_rank', 'embedding_statistics', 'encoder_digest', 'evaluate', 'evaluation_loader', 'extract_features',
    'feature_sets', 'few_label_scores', 'fine_tune', 'judge', 'knn_table', 'linear_probe', 'linear_sweep', 'load_cloud',
    'logistic_regression', 'low_shot_svm', 'low_shot_table', 'main_metrics', 'mean_per_class', 'metric_of',
    'metrics_heading', 'mlp_probe', 'nearest', 'point_statistics', 'predict_transformations', 'probe_table',
    'rank_correlation', 'rankme', 'raw_pixels', 'read_features', 'regret', 'report', 'run_kernel', 'sample_cloud',
    'sample_source', 'save_cloud', 'save_report', 'scale_features', 'score_heads', 'score_table', 'semi_supervised',
    'split_rows', 'svm_table', 'train_heads', 'transfer', 'transfer_table', 'transformation_table', 'untrained_encoder',
    'voc_svm', 'weighted_knn', 'with_encoder', 'with_labels',
]  # fmt: skip
