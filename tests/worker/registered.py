"""The tasks as plain functions on one runtime. Celery itself shares tasks between all apps of a process, by name."""

from collections.abc import Callable, Mapping
from typing import cast

from celery import Celery

from worker.runtime import Runtime
from worker.tasks import register

Task = Callable[..., None]


class _Registry:
    def __init__(self) -> None:
        self.tasks: dict[str, Task] = {}

    def task(self, name: str) -> Callable[[Task], Task]:
        return lambda function: self.tasks.setdefault(name, function)


def registered(runtime: Runtime) -> Mapping[str, Task]:
    """Every task by its name, for ``(lane, bell)``."""
    registry = _Registry()
    register(cast(Celery, registry), lambda: runtime)
    return registry.tasks
