"""What an encoder is worth: features, nearest neighbours, linear probes, few labels, spectra."""

from mmkernel.evaluation.encoders import FeatureSet, evaluate, feature_sets, untrained_encoder
from mmkernel.evaluation.features import evaluation_loader, extract_features, raw_pixels
from mmkernel.evaluation.few_labels import draw_labelled, few_label_scores
from mmkernel.evaluation.knn import nearest, weighted_knn
from mmkernel.evaluation.linear import linear_probe, logistic_regression, scale_features
from mmkernel.evaluation.report import knn_table, probe_table, report, save_report, score_table
from mmkernel.evaluation.spectrum import covariance_spectrum, effective_rank

__all__ = [
    'FeatureSet', 'covariance_spectrum', 'draw_labelled', 'effective_rank', 'evaluate', 'evaluation_loader',
    'extract_features', 'feature_sets', 'few_label_scores', 'knn_table', 'linear_probe', 'logistic_regression',
    'nearest', 'probe_table', 'raw_pixels', 'report', 'save_report', 'scale_features', 'score_table',
    'untrained_encoder', 'weighted_knn',
]  # fmt: skip
