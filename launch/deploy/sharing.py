"""Hosts that share a folder: one of them is sent what the folder is to hold, the others find it there."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable

from launch.deploy.plan import Plan


def carriers_of(
    plans: Iterable[Plan], path: Callable[[Plan], str]
) -> tuple[dict[str, Plan], list[tuple[Plan, str]]]:
    """Who is sent something, and who finds it in a folder that it shares with one of those.

    Args:
        plans: of hosts that need it.
        path: where it lies on the host of a plan, below the folder of that.

    Returns:
        One plan, by its host's name, for every folder to fill; each of the others with that name. A host
        whose folder cannot be used shares it with nobody.
    """
    filled: dict[tuple[str, str], str] = {}
    carriers: dict[str, Plan] = {}
    others = []
    for plan in plans:
        key = (plan.identity or "", os.path.relpath(path(plan), plan.place.folder))
        if plan.identity is not None and key in filled:
            others.append((plan, filled[key]))
        else:
            filled[key] = plan.host.name
            carriers[plan.host.name] = plan
    return carriers, others
