"""Expert SGD trajectories: training, the store, and windows drawn from it."""

from expert_trajectories.store import TrajectoryStore, WindowSampler
from expert_trajectories.train import ExpertConfig, ExpertProgress, estimate_seconds, store_meta, train_experts

__all__ = [
    "ExpertConfig",
    "ExpertProgress",
    "TrajectoryStore",
    "WindowSampler",
    "estimate_seconds",
    "store_meta",
    "train_experts",
]
