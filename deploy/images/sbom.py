"""Write the list of what an image is made of (SBOM) as CycloneDX JSON: `sbom.py --help`.

Runs in the build stage, with cyclonedx-python-lib alone. The same packages give the same bytes.
"""

import argparse
import sys
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from email.parser import HeaderParser
from importlib.metadata import Distribution, distributions
from pathlib import Path
from uuid import NAMESPACE_URL, uuid5

from cyclonedx.contrib.license.factories import LicenseFactory
from cyclonedx.model.bom import Bom
from cyclonedx.model.component import Component, ComponentType
from cyclonedx.model.license import License
from cyclonedx.output import make_outputter
from cyclonedx.schema import OutputFormat, SchemaVersion
from packageurl import PackageURL

_DISTRO = "debian-12"
_MAX_LICENCE = 200  # characters; a longer License field is the text itself, which is among the files


def main(words: list[str]) -> None:
    """Write the SBOM of an image."""
    options = _parser().parse_args(words)
    image = Component(
        name=f"gleaner-{options.side}", version=options.version, type=ComponentType.CONTAINER, bom_ref="image"
    )
    components = [*debian(options.packages), *python(options.tree)]
    bom = bill(image, components, options.revision, options.epoch)
    text = make_outputter(bom, OutputFormat.JSON, SchemaVersion.V1_6).output_as_string(indent=1)
    options.out.parent.mkdir(parents=True, exist_ok=True)
    options.out.write_text(text + "\n", encoding="utf-8")
    print(f"{options.out}: {len(components)} components")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser()
    parser.add_argument("--side", required=True)
    parser.add_argument("--version", required=True)
    parser.add_argument("--revision", required=True)
    parser.add_argument("--epoch", type=int, required=True, help="time of the document, seconds since 1970")
    parser.add_argument(
        "--packages", type=Path, required=True, help="folder with a control file for each package"
    )
    parser.add_argument("--tree", type=Path, action="append", default=[], help="folder of Python packages")
    parser.add_argument("--out", type=Path, required=True)
    return parser


def bill(image: Component, components: list[Component], revision: str, epoch_s: int) -> Bom:
    """Return the document; its number follows from the image's name, version and revision."""
    bom = Bom(
        serial_number=uuid5(NAMESPACE_URL, f"{image.name}@{image.version}@{revision}"),
        components=components,
    )
    bom.metadata.timestamp = datetime.fromtimestamp(epoch_s, UTC)
    bom.metadata.component = image
    bom.register_dependency(image, components)
    return bom


def debian(status: Path) -> Iterator[Component]:
    """Yield a component for each Debian package, from the control files that root.sh keeps."""
    for file in sorted(status.iterdir()):
        control = HeaderParser().parsestr(file.read_text(encoding="utf-8"))
        name, version, arch = control["Package"], control["Version"], control["Architecture"]
        purl = PackageURL("deb", "debian", name, version, {"arch": arch, "distro": _DISTRO})
        yield Component(
            name=name, version=version, type=ComponentType.LIBRARY, purl=purl, bom_ref=purl.to_string()
        )


def python(trees: Sequence[Path]) -> Iterator[Component]:
    """Yield a component for each installed Python distribution, with its licence if it declares one."""
    found = distributions(path=[str(tree) for tree in trees])
    for one in sorted(found, key=lambda one: one.name.lower()):
        purl = PackageURL("pypi", None, one.name.lower().replace("_", "-"), one.version)
        yield Component(
            name=one.name,
            version=one.version,
            type=ComponentType.LIBRARY,
            purl=purl,
            bom_ref=purl.to_string(),
            licenses=_licences(one),
        )


def _licences(one: Distribution) -> list[License]:
    """Return the declared licence: the expression, the field if it is short, or the classifier."""
    metadata = one.metadata
    classifiers = [text for text in metadata.get_all("Classifier", ()) if text.startswith("License :: ")]
    declared = metadata["License-Expression"] or metadata["License"] or ""
    if not declared or len(declared) > _MAX_LICENCE or "\n" in declared:
        declared = classifiers[0].rpartition(" :: ")[2] if classifiers else ""
    return [LicenseFactory().make_from_string(declared)] if declared else []


if __name__ == "__main__":
    main(sys.argv[1:])
