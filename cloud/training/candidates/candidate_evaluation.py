"""Train the candidates of a version and evaluate them."""

from cloud.training.candidates.candidate_results import MIN_WHITENED_LABELS, check_unseen, evaluate_backbone, evaluate_candidates

__all__ = ["MIN_WHITENED_LABELS", "check_unseen", "evaluate_backbone", "evaluate_candidates"]
