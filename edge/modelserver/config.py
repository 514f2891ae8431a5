"""Read and validate the list of models to serve (ModelServerConfig)."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from edge.modelserver import proto_text
from edge.modelserver.models.versions import All, Latest, Policy, Specific
from edge.modelserver.status import Code, ServingError
from edge.serving import messages_pb2 as messages

PLATFORM = "tensorflow"
_TENSORFLOW_TYPE = 1  # ModelType.TENSORFLOW, deprecated in favour of model_platform


@dataclass(frozen=True, slots=True)
class ModelConfig:
    """One model to serve.

    Args:
        name: model name in requests.
        base_path: absolute; has one directory per version, named by its number.
        policy: which versions to serve.
        labels: version label to version number.
    """

    name: str
    base_path: Path
    policy: Policy = field(default_factory=Latest)
    labels: Mapping[str, int] = field(default_factory=dict)


def parse(text: str) -> tuple[ModelConfig, ...]:
    """Read a ModelServerConfig in protobuf text format.

    Raises:
        ServingError: INVALID_ARGUMENT if the text is invalid or a model in it cannot be served.
    """
    config = messages.ModelServerConfig()
    proto_text.read(text, config)
    if config.WhichOneof("config") == "custom_model_config":
        raise ServingError(Code.INVALID_ARGUMENT, "ModelServer does not yet support custom model config.")
    return from_proto(config.model_config_list)


def from_proto(config_list: messages.ModelConfigList) -> tuple[ModelConfig, ...]:
    """Validate a ModelConfigList and convert it.

    Raises:
        ServingError: INVALID_ARGUMENT for a model listed twice, a relative base path or a platform
            other than TensorFlow.
    """
    names: set[str] = set()
    for config in config_list.config:
        if config.name in names:
            raise ServingError(
                Code.INVALID_ARGUMENT, f"Illegal to list model {config.name} multiple times in config list"
            )
        names.add(config.name)
    # Only after all names are checked: tensorflow_model_server reports duplicates first.
    for config in config_list.config:
        check_base_path(config.name, config.base_path)
        _check_platform(config)
    return tuple(
        ModelConfig(
            config.name,
            Path(config.base_path),
            _policy(config.model_version_policy),
            dict(config.version_labels),
        )
        for config in config_list.config
    )


def check_base_path(name: str, base_path: str) -> None:
    """Raise ServingError unless the base path is absolute and on a local file system."""
    if "://" in base_path:
        raise ServingError(
            Code.INVALID_ARGUMENT,
            f"Expected model {name} to have a local path; got base_path()={base_path}",
        )
    if not base_path.startswith("/"):
        raise ServingError(
            Code.INVALID_ARGUMENT,
            f"Expected model {name} to have an absolute path or URI; got base_path()={base_path}",
        )


def _check_platform(config: messages.ModelConfig) -> None:
    platform = config.model_platform or (PLATFORM if config.model_type == _TENSORFLOW_TYPE else "")
    if not platform:
        raise ServingError(
            Code.INVALID_ARGUMENT,
            "Illegal setting neither ModelServerConfig::model_type (deprecated) "
            "nor ModelServerConfig::model_platform.",
        )
    if platform != PLATFORM:
        raise ServingError(
            Code.INVALID_ARGUMENT, f"Model {config.name} requests unsupported platform {platform}"
        )


def _policy(
    policy: messages.ServableVersionPolicy,
) -> Policy:
    match policy.WhichOneof("policy_choice"):
        case "all":
            return All()
        case "specific":
            return Specific(frozenset(policy.specific.versions))
        case _:
            # Also if no policy is set. Proto3 cannot distinguish an unset number from 0: both mean 1.
            return Latest(policy.latest.num_versions or 1)
