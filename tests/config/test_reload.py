"""What a reload puts in force, and what it says needs a restart."""

from __future__ import annotations

from msgspec.structs import replace

from config.reload import LIVE, reloaded
from config.settings import FrontSettings, Image, LimitSettings, ServeSettings, Settings
from config.values import SECTIONS


def test_every_live_setting_exists() -> None:
    """A setting that was renamed or removed does not linger among those that are live."""
    known = {f"{section}.{name}" for section, struct in SECTIONS.items() for name in struct.__struct_fields__}
    assert known >= LIVE


def test_live_settings_are_taken_and_others_wait() -> None:
    """Of a new configuration, what is live is in force, and the rest is as it was."""
    old = Settings()
    new = Settings(
        serve=ServeSettings(port=1, drain_s=7.0),
        front=FrontSettings(cors_origin="*", slots=64),
        limits=LimitSettings(max_readers=3, exclusive=True),
    )
    after = reloaded(old, new)
    assert after.settings == replace(
        old,
        serve=ServeSettings(drain_s=7.0),
        front=FrontSettings(cors_origin="*"),
        limits=LimitSettings(max_readers=3),
    )
    assert after.changed == ["serve.drain_s", "front.cors_origin", "limits.max_readers"]
    assert after.waiting == ["serve.port", "front.slots", "limits.exclusive"]


def test_what_needs_a_restart_is_told_again_by_the_next_reload() -> None:
    """The settings in force are what the next reload compares with, not what was last read."""
    new = Settings(serve=ServeSettings(port=1))
    assert reloaded(reloaded(Settings(), new).settings, new).waiting == ["serve.port"]


def test_other_images_need_a_restart() -> None:
    """Images of the configuration are as they were when the service began."""
    after = reloaded(Settings(), Settings(image=[Image("a", "nbd://h/")]))
    assert (after.settings, after.changed, after.waiting) == (Settings(), [], ["image"])
