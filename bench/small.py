"""Measure the pipeline with the smaller real model, compared with the limit only."""

from bench.figures import Figure
from bench.pipeline import Contest, figures
from bench.setting import Setting


async def measure(setting: Setting) -> list[Figure]:
    """Measure the pipeline with Xception-small."""
    repeats = 1 if setting.quick else 3
    seconds = 2.0 if setting.quick else max(4.0, (setting.seconds / repeats - 20) / 6)
    contest = Contest(setting, "xception-small", seconds, repeats, (50,))
    await contest.run()
    return figures(contest)
