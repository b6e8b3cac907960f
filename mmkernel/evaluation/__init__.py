"""What an encoder is worth: features, nearest neighbours, linear probes, few labels, spectra."""

from mmkernel.evaluation.average_precision import average_precision, class_precisions
from mmkernel.evaluation.encoders import FeatureSet, evaluate, feature_sets, untrained_encoder
from mmkernel.evaluation.feature_cache import FeatureMismatchError, encoder_digest, read_features
from mmkernel.evaluation.features import evaluation_loader, extract_features, raw_pixels
from mmkernel.evaluation.few_labels import draw_labelled, few_label_scores
from mmkernel.evaluation.knn import nearest, weighted_knn
from mmkernel.evaluation.linear import linear_probe, logistic_regression, scale_features
from mmkernel.evaluation.linear_sweep import linear_sweep, score_heads, split_rows, train_heads
from mmkernel.evaluation.low_shot import low_shot_svm
from mmkernel.evaluation.report import knn_table, probe_table, report, save_report, score_table
from mmkernel.evaluation.spectrum import covariance_spectrum, effective_rank
from mmkernel.evaluation.svm import voc_svm
from mmkernel.evaluation.tables import low_shot_table, svm_table, transfer_table, transformation_table
from mmkernel.evaluation.transfer import TRANSFER_SETS, mean_per_class, transfer
from mmkernel.evaluation.transformations import mlp_probe

__all__ = [
    'TRANSFER_SETS', 'FeatureMismatchError', 'FeatureSet', 'average_precision', 'class_precisions',
    'covariance_spectrum', 'draw_labelled', 'effective_rank', 'encoder_digest', 'evaluate', 'evaluation_loader',
    'extract_features', 'feature_sets', 'few_label_scores', 'knn_table', 'linear_probe', 'linear_sweep',
    'logistic_regression', 'low_shot_svm', 'low_shot_table', 'mean_per_class', 'mlp_probe', 'nearest', 'probe_table',
    'raw_pixels', 'read_features', 'report', 'save_report', 'scale_features', 'score_heads', 'score_table',
    'split_rows', 'svm_table', 'train_heads', 'transfer', 'transfer_table', 'transformation_table',
    'untrained_encoder', 'voc_svm', 'weighted_knn',
]  # fmt: skip
