"""Coverage-guided fuzzing with atheris: `make fuzz MINUTES=10`.

Inputs that reach new code are stored in a folder and tried first in the next run. An input that violates a
rule is written to `crash-…` and printed.
"""

import sys
from pathlib import Path

import atheris

with atheris.instrument_imports(include=["schemas", "edge.inference.validation", "edge.harvest.selector"]):
    from tests.fuzz.seeds import seeds
    from tests.fuzz.targets import run

CORPUS = Path(".cache/fuzz")


def main(seconds: int) -> None:
    """Write the seeds to the folder of inputs and fuzz."""
    CORPUS.mkdir(parents=True, exist_ok=True)
    for number, seed in enumerate(seeds()):
        (CORPUS / f"seed-{number}").write_bytes(seed)
    options = [f"-max_total_time={seconds}", "-max_len=65536", "-timeout=10", "-rss_limit_mb=1024"]
    atheris.Setup([sys.argv[0], str(CORPUS), *options], run)
    atheris.Fuzz()


if __name__ == "__main__":
    main(round(float(sys.argv[1]) * 60))
