"""Who asks, and what they may do with an image: the visibility matrix, as rules without I/O."""

from __future__ import annotations

import msgspec

from mover.library.errors import ApiError, no_image
from mover.library.queries import Viewer
from mover.library.records import ImageRecord, Member, Visibility
from mover.library.states import GONE

ADMIN = "admin"


class Caller(msgspec.Struct, frozen=True):
    """Who asks. `tenant` is None for the anonymous, who read public images and write nothing."""

    user: str | None
    tenant: str | None
    roles: frozenset[str] = frozenset()
    read_only: bool = False

    @property
    def is_admin(self) -> bool:
        """An admin sees and does everything."""
        return ADMIN in self.roles

    @property
    def viewer(self) -> Viewer:
        """As the registry's queries want it."""
        return Viewer(self.tenant, self.is_admin)

    def owns(self, image: ImageRecord) -> bool:
        """The image is the caller's tenant's."""
        return self.tenant is not None and image.owner == self.tenant

    def check_writer(self) -> None:
        """Raise 403 for those who may only read."""
        if self.read_only:
            raise ApiError(403, "Read-only access")


ANONYMOUS = Caller(user=None, tenant=None, read_only=True)


def may_see(caller: Caller, image: ImageRecord, member: Member | None) -> bool:
    """Whether the image exists for the caller. `member` is the caller's membership, if there is one.

    Beyond the matrix: what nobody owns is seen by all, as with Glance.
    """
    if caller.is_admin:
        return True
    if image.state in GONE:
        return False
    if caller.owns(image):
        return True
    if image.owner is None or image.visibility in (Visibility.PUBLIC, Visibility.COMMUNITY):
        return True
    return image.visibility is Visibility.SHARED and member is not None


def check_change(caller: Caller, image: ImageRecord, *, hides_shared: bool) -> None:
    """Raise the status of one who sees the image and may not change it: 403; of a shared one, v1 says 404."""
    if caller.is_admin or caller.owns(image):
        return
    if hides_shared and image.visibility is Visibility.SHARED:
        raise no_image(image.id)
    raise ApiError(403, f"You are not permitted to change image {image.id}, which is another tenant's")


def may_share(caller: Caller, image: ImageRecord, member: Member | None) -> bool:
    """Whether the caller may share the image with others."""
    if caller.is_admin or caller.owns(image):
        return True
    return image.visibility is Visibility.SHARED and member is not None and member.can_share


def may_list_members(caller: Caller, image: ImageRecord, member: Member | None) -> bool:
    """Whether the caller may know who the image is shared with."""
    return caller.is_admin or caller.owns(image) or member is not None


def owner_of_new(caller: Caller, wanted: str | None) -> str | None:
    """Who owns what the caller makes: an admin may name another tenant."""
    return wanted if wanted is not None and caller.is_admin else caller.tenant
