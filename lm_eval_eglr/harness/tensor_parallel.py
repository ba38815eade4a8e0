"""Tensor parallelism: processes that hold one model together, and groups of them that share the documents.

Process number r of a run is number r mod size of group r div size. transformers spreads a model over all
processes that torch.distributed knows of, so each group is a world of its own to torch; what groups tell each
other goes through the launcher's key-value store. All processes of a group answer the same requests with the
same rollouts; the first one of each writes the store, and the very first prints.
"""

from __future__ import annotations

import inspect
import itertools
import logging
import os
import pickle
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from datetime import timedelta
from typing import Any, TypeVar

import torch.distributed
from transformers.distributed import DistributedConfig
from transformers.utils.logging import disable_progress_bar

T = TypeVar("T")

FOREVER = timedelta(weeks=52)  # as lm_eval has it: others wait while one grades
CHUNK = 1 << 22  # bytes; the key-value store takes no value of more than 8 MiB
LOGGERS = ("lm_eval", "lm_eval_eglr", "eglr_selectors")


def processes_per_model(tp_plan: Any, tp_size: Any, parallelize: Any = False) -> int:
    """Number of processes that hold one model, by the options and the launcher's environment.

    Args:
        tp_plan: As of HFLM: ``auto``, the model's own plan, or a plan; ``None`` for none.
        tp_size: That number; ``None`` for all processes if there is a plan, else 1.
        parallelize: HFLM's way to split a model in one process.

    Raises:
        ValueError: For a bad value, or one that does not fit the number of processes.
    """
    if tp_plan is None and tp_size is None:
        return 1
    if tp_plan not in (None, "auto") and not isinstance(tp_plan, Mapping):
        raise ValueError(f"tp_plan={tp_plan!r}: expected auto, or a mapping from Python")
    given = f"tp_plan={tp_plan!r}" if tp_size is None else f"tp_size={tp_size!r}"
    if tp_size is not None and (isinstance(tp_size, bool) or not isinstance(tp_size, int) or tp_size < 1):
        raise ValueError(f"{given}: expected a whole number >= 1")
    if parallelize:
        raise ValueError(f"{given}: parallelize=True splits a model in another way; give one of the two")
    if tp_size == 1:
        return 1
    if "RANK" not in os.environ or "WORLD_SIZE" not in os.environ:
        raise ValueError(
            f"{given}: this is one process; start several with torchrun --nproc-per-node N -m lm_eval ..."
        )
    world = int(os.environ["WORLD_SIZE"])
    size = world if tp_size is None else int(tp_size)
    if world % size:
        raise ValueError(f"{given}: expected a divisor of the number of processes, which is {world}")
    here = int(os.environ.get("LOCAL_WORLD_SIZE", world))
    if size > here:
        raise ValueError(
            f"{given}: {size} processes hold one model, and a host has {here}; expected at most that many"
        )
    return size


def check_heads(config: Any, size: int) -> None:
    """Raises ValueError if the key heads of a model cannot be shared out evenly."""
    config = config.get_text_config()
    heads: int = getattr(config, "num_key_value_heads", None) or config.num_attention_heads
    if heads % size:
        allowed = ", ".join(str(number) for number in range(1, heads + 1) if heads % number == 0)
        raise ValueError(f"tp_size={size}: the model has {heads} key heads; expected one of {allowed}")


class TensorParallel:
    """This process's place among those of the run.

    Attributes:
        size: Processes that hold one model.
        rank: Number of this one among them.
        groups: Number of models.
        group: Number of this one's.
    """

    def __init__(self, size: int) -> None:
        """Joins the other processes; each model's are torch.distributed's default group afterwards.

        Raises:
            ValueError: If torch.distributed has been set up otherwise before.
        """
        rank, world = int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"])
        self.size, self.groups = size, world // size
        self.group, self.rank = divmod(rank, size)
        self._store = _join(self)
        if self.rank:
            for name in LOGGERS:
                logging.getLogger(name).setLevel(logging.ERROR)
            disable_progress_bar()

    @property
    def speaks(self) -> bool:
        """Whether this process prints for all."""
        return self.rank == 0 and self.group == 0

    def same(self, make: Callable[[], T]) -> T:
        """What ``make`` returns on the first process of the group, which alone calls it."""
        made: list[Any] = [make() if self.rank == 0 else None]
        torch.distributed.broadcast_object_list(made, src=0)
        found: T = made[0]
        return found

    def gather(self, value: T) -> list[T]:
        """The values of all groups, those of their first processes, in their order."""
        return self.same(lambda: self.exchange(value))

    def exchange(self, value: T) -> list[T]:
        """As :meth:`gather`, on the first processes of the groups alone; the others get their own value."""
        if self.groups == 1 or self.rank:
            return [value] * self.groups
        call, keys = next(_calls), list[str]()
        mine, data = f"{call}/{self.group}", pickle.dumps(value)
        starts = range(0, len(data), CHUNK)
        for number, start in enumerate(starts):
            self._store.set(f"{mine}/{number}", data[start : start + CHUNK])  # type: ignore[arg-type]
        self._store.set(mine, str(len(starts)))
        found = []
        for group in range(self.groups):
            name = f"{call}/{group}"
            parts = [f"{name}/{number}" for number in range(int(self._store.get(name)))]
            found.append(pickle.loads(b"".join(self._store.get(part) for part in parts)))
            keys += [name, *parts]
        if self._store.add(f"{call}/read", 1) == self.groups:
            for key in keys:
                self._store.delete_key(key)
            self._store.set(f"{call}/done", "")
        self._store.get(f"{call}/done")  # whoever serves the store may end once all have read
        return found

    @contextmanager
    def as_world(self) -> Iterator[None]:
        """Lets HFLM, which compares a model's heads with all processes, see those of the group."""
        before = os.environ["WORLD_SIZE"]
        os.environ["WORLD_SIZE"] = str(self.size)
        try:
            yield
        finally:
            os.environ["WORLD_SIZE"] = before

    def loading(self, tp_plan: Any) -> dict[str, Any]:
        """What ``from_pretrained`` is given, by the version of transformers."""
        plan = "auto" if tp_plan is None else tp_plan
        if "tp_size" not in inspect.signature(DistributedConfig).parameters:
            return {"tp_plan": plan}
        own = dict(plan) if isinstance(plan, Mapping) else None
        return {"tp_plan": None, "distributed_config": DistributedConfig(tp_size=self.size, tp_plan=own)}


_calls = itertools.count()
_joined: tuple[int, torch.distributed.Store] | None = None


def _join(place: TensorParallel) -> torch.distributed.Store:
    """Sets up torch.distributed, once per process; returns the store that all processes share."""
    global _joined
    if _joined is None:
        if torch.distributed.is_initialized():
            raise ValueError(
                f"tp_size={place.size}: torch.distributed is set up already; load the model first"
            )
        device = torch._C._get_accelerator().type  # as lm_eval and transformers choose it
        index = int(os.environ.get("LOCAL_RANK", 0))
        if device != "cpu":
            getattr(torch, device).set_device(index)
        store, _, _ = next(iter(torch.distributed.rendezvous("env://")))
        store.set_timeout(FOREVER)
        backend = torch.distributed.Backend.default_device_backend_map.get(device, "gloo")
        torch.distributed.init_process_group(
            backend,
            store=torch.distributed.PrefixStore(f"eglr/{place.group}", store),
            rank=place.rank,
            world_size=place.size,
            timeout=FOREVER,
            device_id=torch.device(device, index) if backend == "nccl" else None,
        )
        _joined = place.size, torch.distributed.PrefixStore("eglr/groups", store)
    if _joined[0] != place.size:
        raise ValueError(
            f"tp_size={place.size}: {_joined[0]} processes hold a model already; expected the same"
        )
    return _joined[1]
