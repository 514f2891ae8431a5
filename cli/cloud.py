"""The cloud side: import, collect, train, release, review."""

import asyncio
import sys
from argparse import ArgumentParser, Namespace
from pathlib import Path

import msgspec

from bus import config, log
from bus.echo import publish_seen
from bus.mqtt import Bus, LinkError, passing_id
from bus.presence import now_ms
from cli import options, service
from schemas.errors import PermanentError
from schemas.messages import Feedback
from schemas.topics import FEEDBACK

_DATASET = "dataset.lance"
_MODELS = Path("models")
_BACKBONE = "efficientnet-lite0"
_CACHE = Path(".cache/features")
_CONNECT_S = 10.0


def add_arguments(parser: ArgumentParser) -> None:
    """Declare the steps and their options."""
    steps = parser.add_subparsers(dest="step", required=True, metavar="STEP")
    _declare_import(steps.add_parser("import", help="bring labelled photos into the dataset"))
    _declare_collect(steps.add_parser("collect", help="store samples and labels from the bus"))
    _declare_train(steps.add_parser("train", help="train, evaluate and pack the next version"))
    _declare_release(steps.add_parser("release", help="tell edge nodes to serve a version"))
    _declare_review(steps.add_parser("review", help="list what waits for a person's label, or give one"))


def _declare_import(parser: ArgumentParser) -> None:
    parser.add_argument("directory", type=Path, metavar="DIR", help="a folder with one folder per class")
    parser.add_argument("--dataset", default=_DATASET, help=f"folder or URL of the table ({_DATASET})")
    parser.add_argument(
        "--split", choices=("train", "gold"), default="train", help="what they are for (train)"
    )
    parser.add_argument("--by", default="import", help="who labelled them (import)")
    parser.set_defaults(do=_import)


def _declare_collect(parser: ArgumentParser) -> None:
    parser.add_argument("--name", type=options.name, help="collector, collector-2, … (collector)")
    parser.add_argument("--dataset", help=f"folder or URL of the table ({_DATASET})")
    options.add_service(parser)
    parser.set_defaults(do=_collect)


def _declare_train(parser: ArgumentParser) -> None:
    parser.add_argument("--dataset", default=_DATASET, help=f"folder or URL of the table ({_DATASET})")
    parser.add_argument("--dataset-version", type=int, help="version to train from (the newest)")
    parser.add_argument(
        "--backbone",
        default="efficientnet-lite0",
        help="xception, xception-small or (default) efficientnet-lite0",
    )
    parser.add_argument("--out", type=Path, default=_MODELS, metavar="DIR", help="where versions go (models)")
    parser.add_argument("--version", type=int, help="number of the new version (the next one)")
    parser.add_argument("--classes", help="comma-separated, in the order of the outputs (all labels, sorted)")
    parser.add_argument("--seed", type=int, default=0, help="of every random decision (0)")
    parser.add_argument(
        "--cache", type=Path, default=_CACHE, metavar="DIR", help="keeps features between trainings"
    )
    parser.set_defaults(do=_train)


def _declare_release(parser: ArgumentParser) -> None:
    parser.add_argument("bundle", type=Path, metavar="BUNDLE", help="the .tar that train wrote")
    parser.add_argument(
        "--nodes", type=options.names, default="edge-1", help="comma-separated edge nodes (edge-1)"
    )
    parser.add_argument("--model", default="pets", help="name of the model on the server (pets)")
    parser.add_argument(
        "--url", help="where the nodes fetch it: file, http, https or s3 (the bundle's own path)"
    )
    parser.add_argument(
        "--wait", metavar="S", type=options.positive(float), help="wait until all nodes serve it"
    )
    parser.add_argument(
        "--signing-key", metavar="PEM", type=Path, help="sign it, for nodes with a release key (unsigned)"
    )
    options.add_broker(parser)
    parser.set_defaults(do=_release)


def _declare_review(parser: ArgumentParser) -> None:
    parser.add_argument("--dataset", default=_DATASET, help=f"folder or URL of the table ({_DATASET})")
    parser.add_argument("--limit", type=int, default=20, help="at most so many, least certain first (20)")
    parser.add_argument("--save", type=Path, metavar="DIR", help="write the photos there to look at")
    parser.add_argument("--json", action="store_true", help="JSON lines")
    parser.add_argument("--label", nargs=2, metavar=("PHOTO_ID", "LABEL"), help="give a label, as Feedback")
    parser.add_argument("--by", default="reviewer", help="who says so (reviewer)")
    options.add_broker(parser)
    parser.set_defaults(do=_review)


def run(arguments: Namespace) -> int:
    """Do the step that was asked for."""
    code: int = arguments.do(arguments)
    return code


def _import(arguments: Namespace) -> int:
    from cli.progress import Bars  # noqa: PLC0415  # each step loads what it needs, and no more
    from cloud.dataset import import_folder  # noqa: PLC0415  # as above
    from cloud.store import Store  # noqa: PLC0415  # as above

    store = Store.open(arguments.dataset)
    with Bars() as bars:
        done = import_folder(store, arguments.directory, arguments.split, bars, arguments.by)
    for reason in done.skipped.values():
        print(f"skipped: {reason}", file=sys.stderr)
    print(
        f"{done.stored} photos stored, {done.duplicate} were there, {len(done.skipped)} skipped; "
        f"dataset version {store.version}"
    )
    return 0


def _collect(arguments: Namespace) -> int:
    from cloud import collect  # noqa: PLC0415  # as above
    from cloud.config import CollectorConfig  # noqa: PLC0415  # as above

    loaded = options.settings(arguments, CollectorConfig, name=arguments.name, dataset=arguments.dataset)
    log.configure(arguments.log_level, name=loaded.name)
    service.run(collect.run(loaded, config.password()))
    return 0


def _train(arguments: Namespace) -> int:
    from cli.progress import Bars  # noqa: PLC0415  # as above
    from cloud.dataset import examples  # noqa: PLC0415  # as above
    from cloud.store import Store  # noqa: PLC0415  # as above

    print("loading TensorFlow …", file=sys.stderr, flush=True)
    from cloud.backbones import BackboneUnavailableError  # noqa: PLC0415  # as above
    from cloud.examples import TrainingError  # noqa: PLC0415  # as above
    from cloud.export import ExportError  # noqa: PLC0415  # as above
    from cloud.train import train  # noqa: PLC0415  # as above

    store = Store.open(arguments.dataset)
    dataset_version = arguments.dataset_version or store.version
    version, parent = _next_version(arguments)
    try:
        with Bars() as bars:
            trained = train(
                examples(store, version=dataset_version),
                examples(store, version=dataset_version, split="gold"),
                backbone=arguments.backbone,
                classes=arguments.classes.split(",") if arguments.classes else None,
                seed=arguments.seed,
                cache_dir=arguments.cache,
                out_dir=arguments.out,
                version=version,
                parent=parent,
                dataset_version=dataset_version,
                progress=bars,
            )
    except (TrainingError, ExportError, BackboneUnavailableError, KeyError) as error:
        raise PermanentError(
            "training", expected="examples and a backbone to train from", got=error
        ) from None
    store.tag(f"model-{version}", dataset_version)
    card = trained.card
    for candidate in card.candidates:
        chosen = "→" if candidate.name == card.chosen else " "
        gold = "" if candidate.gold_accuracy is None else f", {candidate.gold_accuracy:.1%} on gold"
        print(f"{chosen} {candidate.name}: {candidate.photos} photos{gold}")
    print(f"version {card.version}: {trained.bundle_path} ({trained.size_bytes / 1e6:.1f} MB)")
    return 0


def _next_version(arguments: Namespace) -> tuple[int, int | None]:
    """Return the number of the new version, and that of the newest one that exists."""
    out: Path = arguments.out
    there = [int(path.name) for path in out.iterdir() if path.name.isdecimal()] if out.is_dir() else []
    parent = max(there, default=None)
    if arguments.version in there:
        raise PermanentError(
            f"version {arguments.version}", expected="a new number", got=f"one that is in {out}"
        )
    return arguments.version or (parent or 0) + 1, parent


def _release(arguments: Namespace) -> int:
    from cloud.rollout import read_bundle  # noqa: PLC0415  # as above

    log.configure("error")
    bundle = read_bundle(arguments.bundle)
    service.run(_announce(arguments, bundle))
    return 0


async def _announce(arguments: Namespace, bundle: "object") -> None:
    from bus import signing  # noqa: PLC0415  # as above
    from cloud.rollout import Bundle, Rollout, release_of  # noqa: PLC0415  # as above

    assert isinstance(bundle, Bundle)
    nodes = arguments.nodes
    bus = Bus(options.broker(arguments), passing_id("release"), password=config.password())
    rollout = Rollout(bus, nodes)
    releases = [release_of(bundle, node, arguments.model, arguments.url) for node in nodes]
    if arguments.signing_key is not None:
        signing_key = signing.read_signing_key(arguments.signing_key)
        releases = [signing.sign(release, signing_key) for release in releases]
    async with asyncio.TaskGroup() as tasks:
        connection = tasks.create_task(bus.run(), name="release.bus")
        await service.connected(bus, _CONNECT_S)
        try:
            async with asyncio.timeout(arguments.wait or _CONNECT_S):
                await rollout.announce(releases)
                print(f"version {bundle.card.version} released to {', '.join(nodes)}", flush=True)
                if arguments.wait is not None:
                    async for node in rollout.served(bundle.card.version):
                        print(f"{node} serves version {bundle.card.version}", flush=True)
        except TimeoutError:
            raise LinkError(
                "release",
                expected=f"to be served within {arguments.wait or _CONNECT_S:g} s",
                got="no word of it",
            ) from None
        connection.cancel()


def _review(arguments: Namespace) -> int:
    from cloud.dataset import awaiting_review  # noqa: PLC0415  # as above
    from cloud.store import Store  # noqa: PLC0415  # as above

    store = Store.open(arguments.dataset)
    if arguments.label is not None:
        return _give_label(arguments, store)
    reviews = awaiting_review(store, arguments.limit)
    if arguments.save is not None:
        arguments.save.mkdir(parents=True, exist_ok=True)
    for review in reviews:
        if arguments.save is not None:
            (arguments.save / f"{review.photo_id}.jpg").write_bytes(review.image)
        fields = {name: getattr(review, name) for name in review.__struct_fields__ if name != "image"}
        if arguments.json:
            print(msgspec.json.encode(fields).decode())
        else:
            sure = review.confidence or 0.0
            print(f"{review.photo_id}  {sure:.2f} {review.edge_label or '?':<12} {review.lane}")
    return 0


def _give_label(arguments: Namespace, store: object) -> int:
    """Publish a person's label for a harvested photo, as anybody could with `mosquitto_pub`."""
    from cloud.store import Store  # noqa: PLC0415  # as above

    assert isinstance(store, Store)
    photo_id, label = arguments.label
    found = store.find([photo_id], ["photo_id", "node", "device"]).get(photo_id)
    if found is None:
        raise PermanentError(f"photo {photo_id}", expected="one that is in the dataset", got="none")
    feedback = Feedback(
        photo_id=photo_id,
        node=str(found["node"]),
        device=str(found["device"]),
        label=label,
        by=arguments.by,
        at_ms=now_ms(),
    )
    log.configure("error")
    service.run(_publish(arguments, feedback))
    print(f"{photo_id}: {label}")
    return 0


async def _publish(arguments: Namespace, feedback: Feedback) -> None:
    bus = Bus(options.broker(arguments), passing_id("review"), password=config.password())
    place = {"node": feedback.node, "device": feedback.device}
    echoes = bus.subscribe(FEEDBACK, **place)
    async with asyncio.TaskGroup() as tasks:
        connection = tasks.create_task(bus.run(), name="review.bus")
        await service.connected(bus, _CONNECT_S)
        await publish_seen(bus, echoes, FEEDBACK, feedback, **place)
        connection.cancel()
