"""How many examples property tests try: the profile of the tier decides, `quick` for `make test`, else `full`."""

from __future__ import annotations

from typing import Any

from hypothesis import settings

FULL = 100  # what Hypothesis tries by default
SHARE = {"quick": 15, "full": 1}  # one example of so many


def load(profile: str) -> None:
    """Makes a profile the default of tests that are collected from now on."""
    for name, share in SHARE.items():
        settings.register_profile(name, max_examples=FULL // share, deadline=None)
    settings.load_profile(profile)


def examples(count: int, least: int = 1, **options: Any) -> settings:
    """Settings of a test with `count` examples in the full profile, its share of them but `least` in the quick one."""
    share = settings.default.max_examples / FULL
    return settings(max_examples=max(least, round(count * share)), deadline=None, **options)
