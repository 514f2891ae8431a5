"""The exit codes of every command; docs/install.md and the man page have the same table."""

OK = 0
FAILED = 1
USAGE = 2
TRY_AGAIN = 75
INTERRUPTED = 130

MEANINGS = {
    OK: "it succeeded; a service was stopped by SIGTERM; a check found nothing wrong",
    FAILED: "it failed, or a check found something wrong; the same command fails again until that is fixed",
    USAGE: "the command line is wrong: an unknown command, option or value",
    TRY_AGAIN: "something that it needs is unavailable (broker, model server, storage): try again later",
    INTERRUPTED: "it was interrupted: by Ctrl-C, or by SIGTERM before it had finished",
}
