"""Record versions in MLflow, if MLFLOW_TRACKING_URI is set: a run with its report, and a model version.

MLflow is optional, and never decides about a training: what cannot be recorded is logged.
"""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import structlog

from cloud.registry.model_card import Card
from cloud.registry.registry import Registry
from schemas.distribution import install_command

TRACKING_VARIABLE = "MLFLOW_TRACKING_URI"
EXPERIMENT_VARIABLE = "MLFLOW_EXPERIMENT_NAME"
EXPERIMENT = "gleaner"
"""Name of the experiment and of the registered model, unless MLFLOW_EXPERIMENT_NAME names another."""
_LIMITS = {"MLFLOW_HTTP_REQUEST_MAX_RETRIES": "2", "MLFLOW_HTTP_REQUEST_TIMEOUT": "20"}
"""MLflow's own defaults try for more than ten minutes to reach a server that is down."""
_MAX_VALUE_CHARS = 500

log = structlog.get_logger()


def record_version(registry: Registry, version: int) -> str | None:
    """Record a version of the registry in MLflow: parameters, metrics, artefacts and lineage.

    Returns:
        The id of the run; None without a tracking server, or if it could not be recorded.
    """
    if not os.environ.get(TRACKING_VARIABLE):
        return None
    for name, value in _LIMITS.items():
        os.environ.setdefault(name, value)
    try:
        from mlflow import MlflowClient  # noqa: PLC0415 - an optional package that takes a second
    except ImportError:
        log.warning(
            "training.not_recorded",
            version=version,
            reason=f"{TRACKING_VARIABLE} is set, and mlflow-skinny is not installed",
            hint=install_command("mlflow"),
        )
        return None
    try:
        return _record(MlflowClient(), registry, registry.card(version))
    except Exception as error:  # noqa: BLE001  # of any kind: the version is complete without it
        lines = str(error).strip().splitlines() or [type(error).__name__]
        log.warning("training.not_recorded", version=version, reason=lines[0][:_MAX_VALUE_CHARS])
        return None


def _record(client: Any, registry: Registry, card: Card) -> str:
    name = os.environ.get(EXPERIMENT_VARIABLE) or EXPERIMENT
    found = client.get_experiment_by_name(name)
    experiment = client.create_experiment(name) if found is None else found.experiment_id
    run = client.create_run(experiment, run_name=f"version {card.version}", tags=_tags(card))
    run_id: str = run.info.run_id
    status = "FAILED"
    try:
        for key, value in _parameters(card).items():
            client.log_param(run_id, key, value)
        for key, number in _metrics(card).items():
            client.log_metric(run_id, key, number)
        for path in _artefacts(registry, card.version):
            client.log_artifact(run_id, str(path))
        _register(client, name, run, card)
        status = "FINISHED"
    finally:
        client.set_terminated(run_id, status)
    return run_id


def _register(client: Any, name: str, run: Any, card: Card) -> None:
    """Add the version to MLflow's model registry; the alias `champion` follows the promotion gate."""
    if not client.search_registered_models(f"name = '{name}'", max_results=1):
        client.create_registered_model(name)
    source = f"{run.info.artifact_uri}/{card.version}.tar"
    made = client.create_model_version(name, source, run.info.run_id, tags=_tags(card))
    if card.verdict is None or card.verdict.decision == "promote":
        client.set_registered_model_alias(name, "champion", made.version)


def _artefacts(registry: Registry, version: int) -> list[Path]:
    paths = [registry.report_path(version), registry.card_path(version), registry.bundle_path(version)]
    return [path for path in paths if path.is_file()]


def _parameters(card: Card) -> Mapping[str, str]:
    values = {
        "backbone": card.backbone,
        "whitened": card.whitened,
        "candidate": card.chosen,
        "classes": ", ".join(card.classes),
        "seed": card.seed,
        "photos_used": sum(sum(sources.values()) for sources in card.examples_used.values()),
        "temperature": f"{card.temperature:.6g}",
    }
    return {name: str(value)[:_MAX_VALUE_CHARS] for name, value in values.items()}


def _metrics(card: Card) -> dict[str, float]:
    found: dict[str, float | None] = {"training_s": card.training_s}
    for one in card.candidates:
        if one.name == card.chosen:
            found |= {"held_out_loss": one.held_out_loss, "held_out_accuracy": one.held_out_accuracy}
    if (metrics := card.metrics) is not None:
        found |= {
            "gold_accuracy": metrics.accuracy,
            "gold_accuracy_low": metrics.accuracy_low,
            "gold_accuracy_high": metrics.accuracy_high,
            "gold_calibration_error": metrics.calibration_error,
        }
        # By position: a class name may have characters that MLflow refuses in a metric.
        for place, name in enumerate(card.classes):
            found[f"gold_recall_{place}"] = metrics.recall.get(name)
    return {name: float(value) for name, value in found.items() if value is not None}


def _tags(card: Card) -> dict[str, str]:
    """Return the lineage: what a version was made of and from, and the gate's decision."""
    tags = {
        "gleaner.version": card.version,
        "gleaner.parent": card.parent,
        "gleaner.dataset_version": card.dataset_version,
        "gleaner.gold_digest": card.gold_digest,
        "gleaner.weights_digest": card.weights_digest,
        "gleaner.commit": card.commit,
        "gleaner.gate": None if card.verdict is None else card.verdict.decision,
    }
    return {name: str(value) for name, value in tags.items() if value is not None}
