"""Models on the edge: release → fetch → verify → place → try out → report.

A version that fails is taken away again, so that the server goes back to the one before (guarantee G6). The
model server watches the folder; only for a trial of one version beside another is it told what to serve.
"""

import asyncio
import time
from pathlib import Path

import structlog

from bus.backoff import backoff
from bus.mqtt.client import Bus
from edge.config import EdgeConfig
from edge.models import smoke_test, version_dirs
from edge.models.bundle import BundleError, check, read_class_names
from edge.models.canary import Beside
from edge.models.releases import Releases
from edge.models.smoke_test import try_out
from edge.serving.client import ModelUnavailableError, Predictor
from edge.serving.traffic_split import Trial
from schemas.errors import PermanentError, TransientError
from schemas.messages import CanaryReport, Release, ServedModel

log = structlog.get_logger()

_WATCH_S = 2.0
_TRIAL_EVERY_S = 5.0
_LAST_RETRY_S = 60.0


class Models:
    """Places the released model and knows its class names.

    Args:
        config: Names and folders. Without `models_dir` somebody else places the models, and releases tell the
            class names alone.
        bus: Connected by its own `run`.
        predictor: The model server, asked for its status.
        trial: Told which version answers.
    """

    def __init__(self, config: EdgeConfig, bus: Bus, predictor: Predictor, trial: Trial) -> None:
        self._config = config
        self._bus = bus
        self._predictor = predictor
        self._trial = trial
        self._releases = Releases(config, bus)
        self._base = None if config.models_dir is None else Path(config.models_dir).absolute() / config.model
        self._beside = (
            None if self._base is None else Beside(config, self._base, self._releases, predictor, trial)
        )
        self._class_names: dict[int, tuple[str, ...]] = {}
        self._temperatures: dict[int, float | None] = {}
        self._served: ServedModel | None = None
        self._reported: CanaryReport | None = None
        self._reported_at = 0.0
        self._taken_away: dict[int, float] = {}
        self._changing = asyncio.Lock()
        self._following = False

    def class_names(self, version: int) -> tuple[str, ...] | None:
        """Return the classes of a version, from its release or its assets; None if neither is here."""
        if version not in self._class_names:
            release = self._releases.recorded(version)
            names = tuple(release.classes) if release else self._placed_names(version)
            if names is None:
                return None
            self._class_names[version] = names
        return self._class_names[version]

    def temperature(self, version: int) -> float | None:
        """Return what divides the logits in a version; None while there is no release of it here."""
        if version not in self._temperatures:
            release = self._releases.recorded(version)
            self._temperatures[version] = None if release is None else release.temperature
        return self._temperatures[version]

    def _placed_names(self, version: int) -> tuple[str, ...] | None:
        return None if self._base is None else read_class_names(self._base / str(version))

    def load(self) -> None:
        """Read what an earlier run left; call once, before the first photo and before `run`.

        Raises:
            ConfigError: The release key cannot be used.
        """
        self._releases.load()
        if self._base is not None and version_dirs.on_trial(self._base):
            self._trial.end(version_dirs.newest(self._base))  # until its release comes again

    async def run(self) -> None:
        """Place releases and report what is served, until cancelled.

        Safe to cancel: a version half fetched is not placed, and the retained release comes again.
        """
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._releases.run(), name="models.receive")
            tasks.create_task(self._follow(), name="models.follow")
            tasks.create_task(self._watch(), name="models.watch")

    async def _follow(self) -> None:
        while True:
            self._following = False
            release = await self._releases.next()
            self._following = True  # until it is settled: meanwhile nobody else restores a trial
            for delay_s in backoff(cap_s=_LAST_RETRY_S):
                try:
                    async with self._changing:
                        await self._install(release)
                except BundleError as error:
                    log.error("model.failed", version=release.version, reason=str(error))  # noqa: TRY400  # the sentence says it all
                    await self._releases.tell("model.failed", reason=str(error), version=release.version)
                except PermanentError as error:
                    log.error("model.refused", version=release.version, reason=str(error))  # noqa: TRY400  # as above
                    await self._releases.tell("model.refused", reason=str(error), version=release.version)
                except (TransientError, OSError) as error:
                    log.warning("model.not_yet", version=release.version, error=str(error))
                    try:
                        async with asyncio.timeout(delay_s):
                            release = await self._releases.next()  # a newer one needs no more waiting
                    except TimeoutError:
                        pass
                    continue
                break

    async def _install(self, release: Release) -> None:
        """Bring one release to service or on trial, or raise why it cannot be.

        Raises:
            BundleError: It must not be served; what was served before still is.
            PermanentError: Not on this node.
            TransientError, OSError: Not now: network or disk.
        """
        if self._base is None or self._beside is None:
            if release.stage != "all":
                expected = "models_dir, to place a version beside the one in service"
                raise PermanentError(f"stage {release.stage}", expected=expected, got="none")
            await asyncio.to_thread(self._record, release)
        elif release.stage != "all":
            await self._put_on_trial(release, self._beside)
        elif await self._is_served(release, self._base):
            await self._beside.end()
            await asyncio.to_thread(self._settle, release, self._base)
        else:
            await self._replace(release, self._base, self._beside)
        await self._report()

    async def _put_on_trial(self, release: Release, beside: Beside) -> None:
        if await beside.goes_on(release):
            await asyncio.to_thread(self._record, release)
        else:
            await self._let_it_be_noticed(release.version)
            try:
                await beside.begin(release)
            except BundleError:
                self._take_away(release.version)
                raise
            self._learn(release)
        log.info("model.tried", version=release.version, stage=release.stage, share=release.share)
        await self._releases.tell(
            "model.tried", version=release.version, stage=release.stage, share=release.share
        )

    async def _is_served(self, release: Release, base: Path) -> bool:
        """Tell whether a release is in service already, as the retained one is after a restart.

        Raises:
            BundleError: Another bundle is in service under this version; a version never changes.
            ModelUnavailableError: It is in place, and the model server away.
        """
        served = await self._predictor.served(self._trial.pinned)
        placed = base / str(release.version)
        if not placed.is_dir() or version_dirs.newest(base) != release.version:
            return False
        if served.state == "absent" and self._releases.is_known(release):
            subject = f"model {release.model} version {release.version}"
            raise ModelUnavailableError(subject, expected="to be served", got=served.reason)
        if served.version != release.version:
            return False
        before = await asyncio.to_thread(self._releases.recorded, release.version)
        if before is not None and before.sha256 != release.sha256:
            raise BundleError(
                f"release {release.version}",
                expected=f"sha256 {before.sha256} as the version in service",
                got=release.sha256,
            )
        await asyncio.to_thread(check, placed, release)
        # Perhaps it was placed by a run that was killed before it had tried it out.
        tried = await asyncio.to_thread(version_dirs.on_trial, base)
        if before is None and self._trial.plan is None and not tried:
            await self._judge(release, base)
        return True

    async def _judge(self, release: Release, base: Path) -> None:
        """Try out a version that is in place, and take it away if it does not serve.

        Raises:
            BundleError: It does not; what was served before is back.
        """
        if (problem := await try_out(self._predictor, release, self._config.load_timeout_s)) is None:
            return
        await asyncio.to_thread(version_dirs.displace, release.version, base)
        await asyncio.to_thread(version_dirs.end_trial, base)
        self._take_away(release.version)
        self._trial.pinned = None
        raise BundleError(
            f"model {release.model} version {release.version}", expected="to serve", got=problem
        )

    async def _replace(self, release: Release, base: Path, beside: Beside) -> None:
        began = time.monotonic()
        log.info("model.fetching", version=release.version, url=release.url)
        known = await beside.has(release)
        promoted = known and beside.promotes(release)
        if not promoted:
            self._trial.end()  # whoever is on trial answers nobody while another is fetched
        if known:
            await asyncio.to_thread(version_dirs.bring_back, release.version, base)
        else:
            await asyncio.to_thread(version_dirs.bring, release, base)
        self._learn(release)  # needed with its first answer
        if promoted:
            self._trial.end(release.version)  # it is loaded: from now on it answers all
        else:
            await beside.end()
        await self._let_it_be_noticed(release.version)
        await asyncio.to_thread(version_dirs.place, release.version, base)
        if promoted:
            await self._predictor.serve(base)
        await self._judge(release, base)
        if promoted:
            await beside.end()
        await asyncio.to_thread(self._settle, release, base)
        took_s = round(time.monotonic() - began, 2)
        log.info("model.available", version=release.version, took_s=took_s)
        await self._report()
        await self._releases.tell("model.available", version=release.version, took_s=took_s)

    async def _let_it_be_noticed(self, version: int) -> None:
        """Wait until the server has looked since a bundle of this number was taken away.

        It knows versions by their numbers: another one in its place before that would be the old one to it.
        """
        if (taken_away_at := self._taken_away.pop(version, None)) is not None:
            await asyncio.sleep(taken_away_at + smoke_test.LOOK_S - time.monotonic())

    def _settle(self, release: Release, base: Path) -> None:
        self._record(release)
        version_dirs.settle(release.version, base, kept=self._config.versions_kept)

    def _record(self, release: Release) -> None:
        self._releases.record(release)
        self._learn(release)

    def _learn(self, release: Release) -> None:
        self._class_names[release.version] = tuple(release.classes)
        self._temperatures[release.version] = release.temperature

    def _take_away(self, version: int) -> None:
        self._class_names.pop(version, None)
        self._temperatures.pop(version, None)
        self._taken_away[version] = time.monotonic()

    async def _watch(self) -> None:
        while True:
            await self._report()
            await asyncio.sleep(_WATCH_S)
            plan = self._trial.plan
            if self._beside is not None and plan is not None and not self._following:
                async with self._changing:
                    await self._restore(self._beside, plan.challenger)

    async def _restore(self, beside: Beside, version: int) -> None:
        """Bring a trial back that the model server knows nothing of, because it was started anew."""
        try:
            await beside.restore()
        except BundleError as error:
            self._take_away(version)
            log.error("model.failed", version=version, reason=str(error))  # noqa: TRY400  # the sentence says it all
            await self._releases.tell("model.failed", reason=str(error), version=version)
        except (TransientError, OSError) as error:
            log.warning("model.not_yet", version=version, error=str(error))

    async def _report(self) -> None:
        """Report what is in service, and how a trial goes: that not at every look."""
        served = await self._predictor.served(self._trial.pinned)
        if served != self._served:
            self._served = served
            log.info("model.served", version=served.version, state=served.state, reason=served.reason)
            await self._bus.report(model=served)
        if served.state == "available" and served.version is not None:
            self._trial.serves(served.version)
        self._bus.report_later(serving=self._trial.serving())
        trial, before = self._trial.report(), self._reported
        turned = (trial and trial.since_ms) != (before and before.since_ms)
        if turned or (trial != before and time.monotonic() - self._reported_at > _TRIAL_EVERY_S):
            self._reported, self._reported_at = trial, time.monotonic()
            await self._bus.report(canary=trial)
