"""Examples at the end of each command's help: what people type most, ready to be changed."""

HEADING = "examples:"
"""First line of the text; the help leaves such a text as it is."""

EXAMPLES: dict[str, tuple[str, ...]] = {
    "send": ("cat.jpg", "photos/ --node edge-2 --broker edge.local"),
    "tail": ("", "'result/#' --json", "--count 10 --broker edge.local"),
    "check": ("/etc/gleaner/edge.toml", "rules.toml --as rules"),
    "doctor": ("", "--all", "--node edge-2 --broker edge.local"),
    "device": (
        "--name pi-1 --camera folder:photos",
        "--name pi-1 --camera picamera --interval 10 --broker edge.local",
        "--name door --camera usb:0 --motion 0.05",
    ),
    "edge": ("--node edge-1 --models-dir serving", "--config /etc/gleaner/edge.toml"),
    "mirror": ("--origin https://releases.example/models/ --listen 0.0.0.0:8480",),
    "console": ("", "--config site/cloud/console.toml --dataset site/dataset.lance"),
    "gateway": ("--config /etc/gleaner/gateway.toml",),
    "notify": ("--urls-file /etc/gleaner/notify.urls",),
    "deploy render": ("--nodes edge-1,edge-2 --out rules",),
    "deploy verify": ("--check", "--nodes edge-1"),
    "up": ("", "home --devices pi-1,pi-2 --qr"),
    "broker": ("", "--port 1884", "--config site/cloud/mosquitto.conf"),
    "provision": (
        "site --cloud cloud.example --edge edge-1 --edge-host edge-1.local --devices pi-1,pi-2",
        "site --list",
    ),
    "completion": ("bash > ~/.local/share/bash-completion/completions/gleaner",),
    "schema": ("--out schemas",),
    "demo": ("", "--photos DIR", "--stay"),
    "cloud import": (
        "DIR --hold-out 20%",
        "export.zip --dry-run",
        "labels.csv",
        "clip.mp4 --label cat --every 2",
    ),
    "cloud export": ("out --format coco", "cats --class cat --split gold"),
    "cloud list": ("--classes", "--class cat --device edge-1/pi-1 --after 2026-01-31", "--changes"),
    "cloud label": ("0a1b2c3d cat",),
    "cloud relabel": ("cat/17.jpg dog",),
    "cloud rename-class": ("cat tabby",),
    "cloud merge-class": ("Cat cat",),
    "cloud forget": ("0a1b2c3d", "--device edge-1/pi-1 --before 2026-01-31 --dry-run"),
    "cloud retain": ("--max-size 50G --dry-run", "--max-age 365 --yes"),
    "cloud repair": ("", "--yes"),
    "cloud collect": ("", "--config /etc/gleaner/collector.toml"),
    "cloud teach": ("",),
    "cloud train": ("", "--backbone mine.keras:signed"),
    "cloud adopt": ("birds.keras --classes blackbird,robin,wren --preprocessing signed",),
    "cloud compare": ("3 4 --html compared.html",),
    "cloud evaluate": ("", "4"),
    "cloud round": ("--release edge-1",),
    "cloud watch": ("--release edge-1", "--config /etc/gleaner/trainer.toml"),
    "cloud release": ("models/2.tar --nodes edge-1,edge-2 --wait 60",),
    "cloud rollout": ("models/2.tar --nodes edge-1 --nodes edge-2,edge-3",),
    "cloud steer": ("pause --reason 'the camera was moved'", "roll-back"),
    "cloud policy": (
        "--nodes edge-1 > rules.toml",
        "--nodes edge-1 --set rules.toml",
        "--nodes edge-1 --clear",
    ),
    "cloud retire": ("edge-3", "edge-1.pi-2"),
    "cloud status": ("", "--json"),
    "cloud review": ("", "--interactive", "--label 0a1b2c3d cat"),
    "cloud doubts": ("--sheet doubts.html",),
}
"""By command, what follows it."""


def examples_of(command: str) -> str | None:
    """Return the examples of a command as the last part of its help, None without any."""
    if command not in EXAMPLES:
        return None
    lines = (f"  gleaner {command} {words}".rstrip() for words in EXAMPLES[command])
    return "\n".join((HEADING, *lines))
