"""A repository on disk: which points in time each disk has, and how a point comes and goes.

Order is everything here. What may be lost at any instant is this process or the host; what is listed then must restore:

    publish     data, digests: write as .new, fsync, rename; fsync the directory
                manifest: write as .new, fsync, rename; fsync the directory            <- here the point begins to be
    withdraw    the newest of the points first, so that none is listed whose parents are gone
                manifest: unlink; fsync the directory                                  <- here the point has gone
    sweep       first the headers of files whose parent's file has another name now, then what no manifest names
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import msgspec

from mover.backup import locks
from mover.backup.errors import Damage, DamagedError, NoSuchPoint, RepositoryError
from mover.backup.files import fsync_directory, read_file, write_durably
from mover.backup.manifest import FormatError, Manifest, decode, encode
from mover.backup.names import (
    MANIFEST,
    READING_LOCK,
    REPOSITORY_FILE,
    WRITING_LOCK,
    check_disk,
    manifest_name,
    new_name,
    point_of,
)
from mover.client.qcow2 import SECTOR_BYTES, Layout

FORMAT = 1
# What a file system of its own begins with.
LOST_AND_FOUND = "lost+found"


class Described(msgspec.Struct):
    """What `repository.json` says."""

    format: int = FORMAT


@dataclass(frozen=True)
class Survey:
    """What a disk's directory holds: the points that can be read, in order, and the manifests that cannot."""

    points: list[Manifest]
    damages: list[Damage]


class Disk:
    """One disk of a repository."""

    def __init__(self, directory: Path, name: str) -> None:
        self.directory = directory
        self.name = name

    # -- locks -----------------------------------------------------------------------------------------------

    @contextlib.contextmanager
    def writing(self, work: str) -> Iterator[None]:
        """For a backup: nobody else adds or removes points. What a crash left is swept first. Raises BusyError."""
        with locks.writing(self.directory, self.name, work):
            self.sweep()
            yield

    @contextlib.contextmanager
    def alone(self, work: str) -> Iterator[list[str]]:
        """For pruning: nobody else is at work. What a crash left is swept first, and named. Raises BusyError."""
        with locks.alone(self.directory, self.name, work):
            yield self.sweep()

    @contextlib.contextmanager
    def reading(self) -> Iterator[None]:
        """For restoring: what is listed stays. Raises BusyError."""
        with locks.reading(self.directory, self.name):
            yield

    # -- what there is ---------------------------------------------------------------------------------------

    def file(self, name: str) -> Path:
        """The path of one of its files."""
        return self.directory / name

    def survey(self) -> Survey:
        """Which points there are. Raises RepositoryError where a manifest is of a later version."""
        points: list[Manifest] = []
        damages: list[Damage] = []
        for name in sorted(os.listdir(self.directory)):
            if MANIFEST.fullmatch(name):
                try:
                    points.append(self._read(name))
                except FileNotFoundError:
                    continue  # withdrawn meanwhile: a list needs no lock
                except FormatError as error:
                    if not error.damaged:
                        raise RepositoryError(
                            self.file(name), f"reading {self.file(name)}", str(error), "use a later version of Mover"
                        ) from error
                    damages.append(Damage(name, 0, 0, None, str(error)))
        points.sort(key=lambda manifest: manifest.point)
        return Survey(points, damages + _missing(points, damages))

    def _read(self, name: str) -> Manifest:
        try:
            manifest = decode(read_file(self.file(name)))
        except FileNotFoundError:
            raise
        except OSError as error:
            why = error.strerror or str(error)
            raise RepositoryError(self.file(name), f"reading {self.file(name)}", why, "check what it is") from error
        if manifest_name(manifest.point) != name:
            raise FormatError(f"it is about point {manifest.point}", damaged=True)
        return manifest

    def points(self) -> list[Manifest]:
        """The points, the oldest first. Raises DamagedError where a manifest cannot be read."""
        survey = self.survey()
        if survey.damages:
            raise DamagedError(self.name, survey.damages)
        return survey.points

    def chain(self, point: int | None) -> list[Manifest]:
        """The manifests that make up a point (None is the newest), the full one first.

        Raises NoSuchPoint; DamagedError if one of the chain cannot be read.
        """
        survey = self.survey()
        by_number = {manifest.point: manifest for manifest in survey.points}
        wanted = max(by_number, default=None) if point is None else point
        found: list[Manifest] = []
        while wanted is not None and wanted in by_number:
            found.insert(0, by_number[wanted])
            wanted = found[0].parent
        if wanted is not None or not found:
            if survey.damages:
                raise DamagedError(self.name, survey.damages)
            have = ", ".join(str(number) for number in by_number) or "none"
            raise NoSuchPoint(
                f"point {wanted} of {self.name}", f"the points there are: {have}", "see `mover backup list`"
            )
        return found

    def next_point(self) -> int:
        """A number that no point of this disk has had, as far as its files show."""
        numbers = [number for name in os.listdir(self.directory) if (number := point_of(name)) is not None]
        return max(numbers, default=0) + 1

    # -- how points come and go ------------------------------------------------------------------------------

    def publish(self, manifest: Manifest) -> Manifest:
        """Make a point be, whose files stand, durable, under their new names. What was sealed is returned."""
        for name in (manifest.file, manifest.digests):
            os.rename(self.file(new_name(name)), self.file(name))
        fsync_directory(self.directory)
        data = encode(manifest)
        name = manifest_name(manifest.point)
        write_durably(self.file(new_name(name)), data)
        os.rename(self.file(new_name(name)), self.file(name))
        fsync_directory(self.directory)
        return decode(data)

    def withdraw(self, points: Sequence[Manifest]) -> None:
        """Have points be no more, the newest first. Their files are for the sweep."""
        for manifest in sorted(points, key=lambda each: each.point, reverse=True):
            self.file(manifest_name(manifest.point)).unlink()
            fsync_directory(self.directory)

    def left(self) -> list[str]:
        """Files of a run that was killed, which the next one removes; none while a run is at work."""
        if locks.writer(self.directory) is not None:
            return []
        return self._unnamed(self.survey())

    def sweep(self) -> list[str]:
        """Have the files be what the manifests say: what a crash left is put right or removed, and named."""
        survey = self.survey()
        by_number = {manifest.point: manifest for manifest in survey.points}
        for manifest in survey.points:
            parent = by_number.get(manifest.parent) if manifest.parent is not None else None
            if parent is not None and parent.kind == "merged":
                self._point_at(manifest, parent)
        unnamed = self._unnamed(survey)
        for name in unnamed:
            self.file(name).unlink()
        return unnamed

    def _unnamed(self, survey: Survey) -> list[str]:
        """The repository's files that no manifest names.

        Nothing that was published is one of them while a manifest cannot be read: it may name any of them.
        """
        named = {name for each in survey.points for name in (each.file, each.digests, manifest_name(each.point))}
        return [
            name
            for name in sorted(os.listdir(self.directory))
            if point_of(name) is not None and name not in named and (name.startswith(".") or not survey.damages)
        ]

    def _point_at(self, manifest: Manifest, parent: Manifest) -> None:
        """Have the header name the parent's file. It is one sector, and says the same disk before and after."""
        wanted = Layout.plan(manifest.size_bytes, manifest.content, parent.file).header()
        try:
            fd = os.open(self.file(manifest.file), os.O_RDWR | os.O_CLOEXEC)
        except FileNotFoundError:
            return  # `verify` says so; no reason to keep a backup from being made
        try:
            if os.pread(fd, SECTOR_BYTES, 0) != wanted:
                os.pwrite(fd, wanted, 0)
                os.fsync(fd)
        finally:
            os.close(fd)


def _missing(points: Sequence[Manifest], damages: Sequence[Damage]) -> list[Damage]:
    """Manifests that are not there, of points that others are changes to: no crash leaves that."""
    there = {manifest_name(each.point) for each in points} | {damage.file for damage in damages}
    parents = {each.parent: each.point for each in reversed(points) if each.parent is not None}
    return [
        Damage(manifest_name(parent), 0, 0, None, f"it is missing, and point {point} needs it")
        for parent, point in sorted(parents.items())
        if manifest_name(parent) not in there
    ]


def _is_disk(directory: Path) -> bool:
    """Whether it has a lock or, where a copy of the repository has left that out, a manifest."""
    if (directory / READING_LOCK).exists():
        return True
    return directory.is_dir() and any(MANIFEST.fullmatch(name) for name in os.listdir(directory))


class Repository:
    """A directory with many disks."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory

    def disk(self, name: str) -> Disk:
        """A disk that there is. Raises ValueError for a name that none can have, NoSuchPoint, RepositoryError."""
        check_disk(name)
        self._check()
        directory = self.directory / name
        if not _is_disk(directory):
            have = ", ".join(self.names()) or "none"
            raise NoSuchPoint(f"disk {name} in {self.directory}", f"the disks there are: {have}", "check --name")
        return Disk(directory, name)

    def make_disk(self, name: str) -> Disk:
        """A disk, made if there is none, and the repository with it. Raises ValueError, RepositoryError."""
        check_disk(name)
        directory = self.directory / name
        try:
            self._make()
            directory.mkdir(parents=True, exist_ok=True)
            for lock in (WRITING_LOCK, READING_LOCK):
                (directory / lock).touch(0o600)
            for parent in (directory, directory.parent, self.directory):
                fsync_directory(parent)
        except OSError as error:
            raise self._refused(error.strerror or str(error), "give --repo a directory that can be written") from error
        return Disk(directory, name)

    def names(self) -> list[str]:
        """The disks, in order."""
        self._check()
        return sorted(str(each.relative_to(self.directory)) for each in self.directory.glob("*/*") if _is_disk(each))

    def _make(self) -> None:
        """A directory becomes a repository only while it is empty."""
        self.directory.mkdir(parents=True, exist_ok=True)
        file = self.directory / REPOSITORY_FILE
        if not file.exists():
            own = {new_name(REPOSITORY_FILE), LOST_AND_FOUND}
            others = [name for name in os.listdir(self.directory) if name not in own]
            if others and not file.exists():
                raise self._refused(
                    f"it is none, and holds {others[0]!r}", "give --repo a repository or an empty directory"
                )
            fresh = self.directory / f"{new_name(REPOSITORY_FILE)}"
            write_durably(fresh, msgspec.json.encode(Described()) + b"\n")
            os.rename(fresh, file)
        self._check()

    def _check(self) -> None:
        file = self.directory / REPOSITORY_FILE
        try:
            found = msgspec.json.decode(read_file(file), type=Described)
        except OSError as error:
            raise self._refused(f"it is none: {REPOSITORY_FILE}: {error.strerror}", "check --repo") from error
        except msgspec.DecodeError as error:
            raise self._refused(f"{REPOSITORY_FILE} cannot be read: {error}", 'write {"format":1} into it') from error
        if found.format > FORMAT:
            why = f"its format is {found.format}, and this version knows {FORMAT}"
            raise self._refused(why, "use a later version of Mover")

    def _refused(self, why: str, advice: str) -> RepositoryError:
        return RepositoryError(self.directory, f"repository {self.directory}", why, advice)
