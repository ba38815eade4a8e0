"""Prints the packages that an installed lm-eval-eglr brings along, itself and its tests left out."""

from __future__ import annotations

from importlib.metadata import PackageNotFoundError, requires

from packaging.requirements import Requirement


def closure(name: str) -> set[str]:
    """Everything that a package requires here, directly or not."""
    found: set[str] = set()
    waiting = [name]
    while waiting:
        try:
            lines = requires(waiting.pop()) or []
        except PackageNotFoundError:
            continue  # of another platform
        for line in lines:
            requirement = Requirement(line)
            wanted = requirement.marker is None or requirement.marker.evaluate({"extra": ""})
            if wanted and requirement.name not in found:
                found.add(requirement.name)
                waiting.append(requirement.name)
    return found


if __name__ == "__main__":
    print(*sorted(closure("lm-eval-eglr"), key=str.lower))
