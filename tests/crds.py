"""Validate resources of KubeEdge, KubeRay and Kubeflow against their CustomResourceDefinitions.

`python -m tests.crds DIR` regenerates the schemas from the folder `build/crds` of KubeEdge's source.
"""

import json
import os
import sys
from functools import cache
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml

SCHEMAS = Path(__file__).parent / "kubeedge-1.23.1.json"
_WANTED = ("Rule", "RuleEndpoint", "Device", "DeviceModel", "NodeGroup", "EdgeApplication")


def check(manifest: dict[str, Any]) -> None:
    """Raise unless a resource is valid and has no unknown field, which the API server would silently drop."""
    _validator(f"{manifest['apiVersion']}/{manifest['kind']}").validate(manifest)


def check_by_source(manifest: dict[str, Any], variable: str, file: str) -> None:
    """Raise unless a resource is valid by version v1 of a CRD in a project's source; skip without that.

    Args:
        manifest: The resource.
        variable: Environment variable with the folder of the source, which `make test-ray` sets.
        file: The CRD, relative to that folder.
    """
    folder = os.environ.get(variable)
    if not folder:
        pytest.skip(f"{variable} names no folder with {file}; 'make test-ray' gets it")
    crd = yaml.load((Path(folder) / file).read_text(encoding="utf-8"), Loader=yaml.CSafeLoader)
    (version,) = [one for one in crd["spec"]["versions"] if one["name"] == "v1"]
    schema = strict(version["schema"]["openAPIV3Schema"], top=True)
    jsonschema.Draft202012Validator(schema).validate(manifest)


def knows(manifest: dict[str, Any]) -> bool:
    """Return True if there is a schema for this kind of resource."""
    return f"{manifest['apiVersion']}/{manifest['kind']}" in _schemas()


@cache
def _validator(kind: str) -> jsonschema.Draft202012Validator:
    return jsonschema.Draft202012Validator(strict(_schemas()[kind], top=True))


@cache
def _schemas() -> dict[str, Any]:
    schemas: dict[str, Any] = json.loads(SCHEMAS.read_text(encoding="utf-8"))
    return schemas


def strict(schema: Any, *, top: bool = False) -> Any:
    """Return a schema that rejects unknown fields in every object whose fields it lists."""
    if isinstance(schema, list):
        return [strict(inner) for inner in schema]
    if not isinstance(schema, dict):
        return schema
    closed = {key: strict(inner) for key, inner in schema.items()}
    if isinstance(schema.get("properties"), dict) and schema.get("type") == "object":
        if top:  # every resource has these, although the schemas do not list them
            closed["properties"] = closed["properties"] | {"apiVersion": {}, "kind": {}, "metadata": {}}
        if not schema.get("x-kubernetes-preserve-unknown-fields"):
            closed.setdefault("additionalProperties", False)
    return closed


def _without_descriptions(schema: Any) -> Any:
    """Return a schema without its descriptions."""
    if isinstance(schema, list):
        return [_without_descriptions(inner) for inner in schema]
    if isinstance(schema, dict):
        return {
            key: _without_descriptions(inner)
            for key, inner in schema.items()
            if not (key == "description" and isinstance(inner, str))
        }
    return schema


def _write(folder: Path) -> None:
    schemas = {}
    for path in sorted(folder.glob("*/*.yaml")):
        for crd in filter(None, yaml.safe_load_all(path.read_text(encoding="utf-8"))):
            spec = crd["spec"]
            for version in spec["versions"]:
                if spec["names"]["kind"] in _WANTED and version["storage"]:
                    name = f"{spec['group']}/{version['name']}/{spec['names']['kind']}"
                    schemas[name] = _without_descriptions(version["schema"]["openAPIV3Schema"])
    SCHEMAS.write_text(json.dumps(schemas, indent=1, sort_keys=True) + "\n", encoding="utf-8")


if __name__ == "__main__":
    _write(Path(sys.argv[1]))
