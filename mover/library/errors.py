"""What goes wrong with a request to the library, before a view puts it into words of its own."""

from __future__ import annotations

from collections.abc import Sequence

from mover.front.errors import RequestError
from mover.library import seam
from mover.library.registry.errors import IdTaken, MemberTaken, RegistryError, TooMany


class ApiError(Exception):
    """An answer other than success: a status, a sentence for the client, and headers."""

    def __init__(self, status: int, message: str, headers: Sequence[tuple[str, str]] = ()) -> None:
        super().__init__(message)
        self.status = status
        self.message = message
        self.headers = list(headers)


def no_image(image_id: str) -> ApiError:
    """There is none of this id, or it is none of the caller's business."""
    return ApiError(404, f"No image found with ID {image_id}")


# What the carrier says, and the status that tells it. The first that fits counts.
_CARRIED: tuple[tuple[type[seam.CarrierError], int], ...] = (
    (seam.StorageFull, 413),
    (seam.TooLarge, 413),
    (seam.StorageWriteDenied, 503),
    (seam.StoreAddDisabled, 410),
    (seam.StoreGone, 503),
    (seam.Elsewhere, 503),
    (seam.UnknownStore, 400),
    (seam.NotPossible, 400),
    (seam.NotThere, 404),
    (seam.DiskRefused, 400),
    (seam.NotAllowed, 400),
    (seam.Unreachable, 400),
    (seam.Changed, 409),
    (seam.NoRanges, 416),
    (seam.InUse, 409),
    (seam.Duplicate, 409),
    (seam.WrongFormat, 415),
    (seam.WrongOffset, 409),
    (seam.WrongSize, 400),
    (seam.WrongChecksum, 400),
)


def api_error(error: Exception) -> ApiError | None:
    """What the client is told of an error; None if it is a bug of ours."""
    match error:
        case ApiError():
            return error
        case RequestError():
            return ApiError(error.status, error.message, error.headers)
        case seam.CarrierError():
            return _carrier_error(error)
        case RegistryError():
            return ApiError(503, "The image catalogue cannot be asked just now", [("Retry-After", "1")])
        case IdTaken():
            return ApiError(409, f"Image ID {error.image_id} already exists!")
        case MemberTaken():
            return ApiError(409, "The image has this member already")
        case TooMany():
            return ApiError(413, f"Attempted to have more than {error.limit} {error.what}")
    return None


def _carrier_error(error: seam.CarrierError) -> ApiError:
    status = next((status for kind, status in _CARRIED if isinstance(error, kind)), 500)
    headers: list[tuple[str, str]] = []
    if isinstance(error, seam.StoreGone) and error.retry_after_s is not None:
        headers.append(("Retry-After", str(max(1, round(error.retry_after_s)))))
    if isinstance(error, seam.WrongOffset):
        headers.append(("Upload-Offset", str(error.offset)))
    return ApiError(status, error.message, headers)
