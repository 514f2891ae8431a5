"""The outcome of one check, as `gleaner doctor` and the console show it."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Finding:
    """The outcome of one check.

    Args:
        passed: Whether it is as it should be.
        subject: What was checked.
        found: What was found.
        advice: What to do if it failed.
    """

    passed: bool
    subject: str
    found: str
    advice: str = ""


def passed(subject: str, found: str) -> Finding:
    """Return a check that found nothing wrong."""
    return Finding(passed=True, subject=subject, found=found)


def failed(subject: str, found: str, advice: str) -> Finding:
    """Return a check that found something wrong."""
    return Finding(passed=False, subject=subject, found=found, advice=advice)
