"""Choose the heads of groups of devices."""

from cloud.training.candidates.candidate_results import align_learner, with_answer_heads

__all__ = ["align_learner", "with_answer_heads"]
