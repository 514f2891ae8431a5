"""Readiness and progress of a service, reported to systemd."""

from bus.systemd.sd_notify import ALIVE, READY, STOPPING, interval_s, notify, report, status

__all__ = ["ALIVE", "READY", "STOPPING", "interval_s", "notify", "report", "status"]
