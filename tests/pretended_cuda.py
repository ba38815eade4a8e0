"""A CUDA device that is made of this machine's memory: what a machine without one can still find out.

Tensors on it say that they are on ``cuda:0`` and hold their values on the CPU, so that the engine takes the
ways that it takes on a GPU. What a GPU refuses is refused: operations on tensors of two devices; in a
capture, reading a tensor, and copies to or from the host. What a GPU does later is done later:

- A capture runs nothing. A graph repeats the recorded operations on the recorded memory, whatever Python has
  made of the tensors since.
- A copy to pinned memory arrives when an event after it is waited for, not before.

Torch's own part is left untested: kernels, streams that really run side by side, and time.
"""

from __future__ import annotations

import contextlib
from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode, _disable_current_modes
from torch.utils._pytree import tree_leaves, tree_map_only

HOST, CUDA = torch.device("cpu"), torch.device("cuda", 0)
Operation = tuple[Callable[..., Any], Any, Any, Any]
aten = torch.ops.aten
# They tell the host a number or a shape, which it waits for.
WAITING = {
    *(aten._local_scalar_dense, aten.nonzero, aten.masked_select, aten._unique2, aten.unique_dim),
    *(aten.unique_consecutive, aten.bincount, aten.equal, aten.is_nonzero),
}
INDEXING = {aten.index, aten.index_put_, aten._index_put_impl_}


def on_host(tensor: Tensor) -> Tensor:
    """A copy of a tensor on the host, which waits for it."""
    moved: Tensor = aten._to_copy(tensor, device=HOST)
    return moved


# In these torch asks for a device that it was not built for before anybody else is asked.
INSTEAD: dict[Any, Callable[..., Any]] = {
    Tensor.contiguous: aten.contiguous,
    Tensor.copy_: aten.copy_,
    Tensor.__invert__: aten.bitwise_not,
    Tensor.cpu: on_host,
    Tensor.tolist: lambda tensor: on_host(tensor).tolist(),
    Tensor.item: lambda tensor: on_host(tensor).item(),
    Tensor.__bool__: lambda tensor: bool(on_host(tensor)),
    Tensor.__int__: lambda tensor: int(on_host(tensor)),
    Tensor.__float__: lambda tensor: float(on_host(tensor)),
    Tensor.__index__: lambda tensor: on_host(tensor).__index__(),
}


class OnDevice(Tensor):
    """A tensor of the device; ``held`` has its values."""

    held: Tensor

    @staticmethod
    def __new__(cls, held: Tensor) -> OnDevice:
        made: OnDevice = Tensor._make_wrapper_subclass(
            cls,
            held.shape,
            strides=held.stride(),
            storage_offset=held.storage_offset(),
            dtype=held.dtype,
            device="meta",
            dispatch_device=True,  # says where it is when it is asked
        )
        made.held = held
        return made

    @classmethod
    def __torch_function__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func in (Tensor.__getitem__, Tensor.__setitem__):
            return PretendedCuda.there.index(func, args)
        with torch._C.DisableTorchFunctionSubclass():
            return INSTEAD.get(func, func)(*args, **(kwargs or {}))

    @classmethod
    def __torch_dispatch__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func is torch.ops.prim.device.default:
            return CUDA
        raise AssertionError(f"{func}: of a tensor on a device that is not there any more")


class PretendedCuda(TorchDispatchMode):
    """The device, while it is there.

    Attributes:
        waits: How often the host waited for the device, by what for.
        arrived: Copies to pinned memory.
        sent: Copies to the device.
        captures: Graphs that were captured.
        replays: How often one was replayed.
        fails_at: The replay that will find no memory; ``None`` for none.
    """

    there: PretendedCuda

    def __init__(self) -> None:
        super().__init__()
        PretendedCuda.there = self
        self.waits: Counter[str] = Counter()
        self.arrived = self.sent = self.captures = self.replays = 0
        self.fails_at: int | None = None
        self.on_their_way: list[Callable[[], object]] = []
        self._recording: list[Operation] | None = None
        self._overwritten: dict[int, tuple[Tensor, Tensor]] = {}
        self._pinned: set[int] = set()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs, packet = dict(kwargs or {}), getattr(func, "overloadpacket", func)
        given = [each for each in tree_leaves((args, kwargs)) if isinstance(each, Tensor)]
        mine = [each for each in given if isinstance(each, OnDevice)]
        if func is torch.ops.prim.device.default:
            return CUDA if mine else func(*args)
        if packet is aten._pin_memory or kwargs.pop("pin_memory", None):
            return self._pin(args[0].clone() if packet is aten._pin_memory else func(*args, **kwargs))
        device = kwargs.get("device")
        if not mine and (device is None or torch.device(device).type != "cuda"):
            return func(*args, **kwargs)
        if packet is aten._to_copy:
            return self._move(func, args, kwargs, mine)
        if packet is aten.copy_ and len(mine) == 1:
            return self._copy(*args, **kwargs)
        foreign = [each for each in given if not isinstance(each, OnDevice) and each.dim()]
        if foreign and packet not in INDEXING:
            raise RuntimeError(f"{func}: tensors on cuda:0 and of {tuple(foreign[0].shape)} on the CPU")
        if packet in WAITING or (packet in INDEXING and any(map(waits, filter(None.__ne__, args[1])))):
            self._wait(str(packet))
        if packet is aten._fused_sdp_choice:
            return 0  # attention by products and a softmax
        if packet is aten.histc:
            func = histogram
        assert packet not in (aten.set_, aten.resize_), f"{func} is not pretended"
        return self.run(func, args, kwargs if device is None else {**kwargs, "device": HOST})

    def index(self, func: Any, args: Any) -> Any:
        """``args[0][args[1]]``, or sets it to ``args[2]``."""
        store, at, *value = args
        if not isinstance(store, OnDevice):
            raise RuntimeError("a tensor on the CPU is indexed by one on cuda:0, or gets its values")
        if any(isinstance(each, Tensor) and waits(each) for each in tree_leaves(at)):
            self._wait("index")
        if value and isinstance(value[0], Tensor) and not isinstance(value[0], OnDevice):
            self._refuse_in_capture(value[0])
        return self.run(func, args, {})

    def run(self, func: Any, args: Any, kwargs: Any) -> Any:
        """Runs an operation on the device."""
        known = {id(each.held): each for each in tree_leaves((args, kwargs)) if isinstance(each, OnDevice)}
        args, kwargs = tree_map_only(OnDevice, lambda each: each.held, (args, kwargs))
        schema = getattr(func, "_schema", None)
        if self._recording is not None and (func is Tensor.__setitem__ or (schema and schema.is_mutable)):
            for memory in storages((args, kwargs)).values():
                whole = torch.empty(0, dtype=torch.uint8).set_(memory)
                self._overwritten.setdefault(memory.data_ptr(), (whole, whole.clone()))
        found = func(*args, **kwargs)
        if self._recording is not None:
            self._recording.append((func, args, kwargs, found))
        return tree_map_only(
            Tensor, lambda each: known[id(each)] if id(each) in known else OnDevice(each), found
        )

    def _move(self, func: Any, args: Any, kwargs: Any, mine: list[OnDevice]) -> Any:
        """``tensor.to(...)``."""
        device = kwargs.pop("device", None)
        stays = device is None or torch.device(device).type == "cuda"
        if mine and stays:
            return self.run(func, args, kwargs)
        source = args[0]
        if mine:
            self._wait("a copy to the host")
            self.arrive()
            source = source.held
        else:
            self._refuse_in_capture(source)
            self._send(source, kwargs.get("non_blocking", False))
        moved = func(source.clone(), *args[1:], **kwargs, device=HOST)
        return moved if mine else OnDevice(moved)

    def _copy(self, target: Tensor, source: Tensor, non_blocking: bool = False) -> Tensor:
        """``target.copy_(source)`` between the host and the device."""
        self._refuse_in_capture(source)
        if isinstance(target, OnDevice):
            self._send(source, non_blocking)
            target.held.copy_(source)
        elif non_blocking and target.data_ptr() in self._pinned:
            arriving = source.held.clone()  # type: ignore[attr-defined]
            target.fill_(float("nan") if target.is_floating_point() else 0)
            self.on_their_way.append(lambda: target.copy_(arriving))
            self.arrived += 1
        else:
            target.copy_(on_host(source))
        return target

    def _pin(self, memory: Tensor) -> Tensor:
        self._pinned.add(memory.data_ptr())
        return memory

    def _send(self, source: Tensor, non_blocking: bool) -> None:
        self.sent += 1
        if not (non_blocking and source.data_ptr() in self._pinned):
            self._wait("a copy to the device")

    def _wait(self, what: str) -> None:
        if self._recording is not None:
            raise RuntimeError(f"{what}: operation not permitted when stream is capturing")
        self.waits[what] += 1

    def _refuse_in_capture(self, copied: Tensor) -> None:
        if self._recording is not None and (copied.dim() or isinstance(copied, OnDevice)):
            raise RuntimeError("a copy: operation not permitted when stream is capturing")

    def arrive(self, upto: Callable[[], object] | None = None) -> None:
        """What was on its way to pinned memory is there, up to one of them or all."""
        while self.on_their_way and (upto is None or upto in self.on_their_way):
            self.on_their_way.pop(0)()

    @contextlib.contextmanager
    def graph(self, graph: _Graph, pool: object = None, capture_error_mode: str = "global") -> Iterator[None]:
        """Captures the block: what it makes are no numbers, and what it overwrites is as it was."""
        assert self._recording is None
        self._recording, self._overwritten = graph.operations, {}
        try:
            yield
        finally:
            self._recording = None
        self.captures += 1
        with _disable_current_modes():
            for _, args, kwargs, found in graph.operations:
                for made in set(storages(found)) - set(storages((args, kwargs))):
                    fresh = [each for each in tree_leaves(found) if address(each) == made]
                    fresh[0].fill_(float("nan") if fresh[0].is_floating_point() else 0)
            for whole, before in self._overwritten.values():
                whole.copy_(before)

    def replay(self, operations: list[Operation]) -> None:
        """Repeats recorded operations, into the memory that they had."""
        self.replays += 1
        if self.replays == self.fails_at:
            self.fails_at = None
            raise torch.OutOfMemoryError("CUDA out of memory")
        with _disable_current_modes():
            for func, args, kwargs, found in operations:
                again = tree_leaves(func(*args, **kwargs))
                for old, new in zip(tree_leaves(found), again, strict=True):
                    if isinstance(old, Tensor) and address(old) != address(new):
                        old.copy_(new)


def histogram(values: Tensor, *options: float) -> Tensor:
    """Of integers, too, which a CPU does not count."""
    return values.double().histc(*options).to(values.dtype)


def waits(index: Tensor) -> bool:
    """Whether indexing waits: for how many values of a mask are true, or for numbers from the host."""
    return index.dtype in (torch.bool, torch.uint8) or not isinstance(index, OnDevice)


def address(value: object) -> int | None:
    """Where a tensor's memory begins."""
    return value.untyped_storage().data_ptr() if isinstance(value, Tensor) else None


def storages(values: Any) -> dict[int, torch.UntypedStorage]:
    """The memory of tensors, by where it begins."""
    tensors = [each for each in tree_leaves(values) if isinstance(each, Tensor) and each.numel()]
    return {each.untyped_storage().data_ptr(): each.untyped_storage() for each in tensors}


class _Graph:
    """Stands for :class:`torch.cuda.CUDAGraph`."""

    def __init__(self) -> None:
        self.operations: list[Operation] = []

    def replay(self) -> None:
        PretendedCuda.there.replay(self.operations)


class _Event:
    """Stands for :class:`torch.cuda.Event`."""

    def record(self, stream: object = None) -> None:
        self._last = PretendedCuda.there.on_their_way[-1:]

    def synchronize(self) -> None:
        for copy in self._last:
            PretendedCuda.there.arrive(copy)


class _Stream:
    """Stands for :class:`torch.cuda.Stream`."""

    def __init__(self, device: object = None) -> None:
        pass

    def wait_event(self, event: _Event) -> None:
        pass


@contextlib.contextmanager
def pretended_cuda(monkeypatch: pytest.MonkeyPatch) -> Iterator[PretendedCuda]:
    """The device is there during the block."""
    device = PretendedCuda()
    torch._C._ensureCUDADeviceGuardSet()
    instead: dict[str, Any] = {
        "_lazy_init": lambda: None,
        "CUDAGraph": _Graph,
        "Event": _Event,
        "Stream": _Stream,
        "graph": device.graph,
        "graph_pool_handle": object,
        "stream": lambda stream: contextlib.nullcontext(),
        "current_stream": _Stream,
        "is_available": lambda: True,
        "is_current_stream_capturing": lambda: device._recording is not None,
        "synchronize": lambda where=None: device.arrive(),
        "mem_get_info": lambda where=None: (8 << 30, 8 << 30),
        "get_device_capability": lambda where=None: (9, 0),
        "empty_cache": lambda: None,
    }
    lifts = torch._C._only_lift_cpu_tensors()
    torch._C._set_only_lift_cpu_tensors(True)  # torch.tensor(..., device="cuda") makes its tensor here, too
    try:
        with monkeypatch.context() as patched, device:
            for name, stand_in in instead.items():
                patched.setattr(torch.cuda, name, stand_in)
            yield device
    finally:
        torch._C._set_only_lift_cpu_tensors(lifts)


def put(model: nn.Module) -> nn.Module:
    """Moves a model to the device, which must be there."""
    for module in model.modules():
        for name, parameter in module._parameters.items():
            if parameter is not None:
                module._parameters[name] = nn.Parameter(OnDevice(parameter.data), requires_grad=False)
        for name, buffer in module._buffers.items():
            if buffer is not None:
                module._buffers[name] = OnDevice(buffer)
    return model
