"""When a job is tried again, when it is given up, and what its owner is told. Rules, no I/O."""

from __future__ import annotations

from typing import NamedTuple

from mover.library import seam
from mover.library.jobs.records import JobKind
from mover.library.records import Host

# What is told of a job whose catalogue was away for a moment.
UNTOLD = "the catalogue did not answer: goes on when it does"
# Pauses grow from the first to the last.
FIRST_S, LAST_S = 1.0, 60.0


class Verdict(NamedTuple):
    """What follows a failure: another try after `pause_s`, None for none; and what the job's owner reads."""

    pause_s: float | None
    message: str


_ADVICE: tuple[tuple[type[seam.CarrierError], str], ...] = (
    (seam.StorageFull, "free space in the store, or name another one"),
    (seam.TooLarge, "raise library.image_size_limit_bytes, or take a smaller one"),
    (seam.StorageWriteDenied, "mend the store, and begin again"),
    (seam.StoreAddDisabled, "name another store"),
    (seam.UnknownStore, "name one of /v2/info/stores"),
    (seam.WrongFormat, "say what the data are with disk_format, and begin again"),
    (seam.WrongChecksum, "look whether the source is the right one, and begin again"),
    (seam.WrongSize, "look whether the source is the right one, and begin again"),
    (seam.DiskRefused, "name another one"),
    (seam.NotAllowed, "name another one, or allow it in the settings"),
    (seam.Elsewhere, "begin it there"),
    (seam.NotThere, "look whether it is still there, and begin again"),
    (seam.SourceGone, "see that the source answers, and begin again"),
    (seam.TargetGone, "see that the target answers, and begin again"),
    (seam.StoreGone, "see that the store works, and begin again"),
)


def after_failure(error: seam.CarrierError, kind: JobKind, tries: int, most: int, written: str = "") -> Verdict:
    """What follows the failure of the try of this number, of `most` without a byte moved; `written` as below."""
    what = error.message.rstrip(".")
    if isinstance(error, seam.StoreGone) and tries < most:
        pause_s = min(FIRST_S * 2 ** (tries - 1), LAST_S)
        return Verdict(pause_s, f"{what}; try {tries} of {most}, the next one in {pause_s:g} s")
    advice = next((text for known, text in _ADVICE if isinstance(error, known)), "the log of the service says more")
    if isinstance(error, seam.StoreGone):
        what = f"{what}, {tries} times one after the other"
    return Verdict(None, f"{kind} failed: {what}{written}: {advice}")


def written(kind: JobKind, done_bytes: int, size_bytes: int | None) -> str:
    """What the target of an export has, which did not come to its end; nothing of other jobs is ever seen."""
    if kind is not JobKind.EXPORT or not done_bytes:
        return ""
    return (
        f"; the target has a part of the image ({done_bytes} of {size_bytes} bytes were written, perhaps not durably)"
    )


def cancelled(written: str) -> str:
    """What is told of a job that was cancelled."""
    return f"cancelled{written}: export again before it is used" if written else "cancelled"


def who_goes_on(error: seam.Elsewhere, kind: JobKind, here: str) -> Host | None:
    """The host that a job is handed to which needs bytes that are not on this one; None where nobody else can do it.

    An export's disk is here, and so it stays.
    """
    if kind is JobKind.EXPORT:
        return None
    return next((host for host in error.hosts if host.id != here), None)


def handed(host: str) -> str:
    """What is told of it until it goes on."""
    return f"the data are on {host} only: waits for that host"


def too_many(kind: JobKind, tries: int) -> str:
    """What a job is told whose front ends died again and again."""
    return f"{kind} failed: what did it has died {tries} times: look into the log of the service, and begin again"
