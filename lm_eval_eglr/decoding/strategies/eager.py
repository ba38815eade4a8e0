"""EAGER on a model: one rollout that forks, and in a second round forks that there was no room for.

Source: EAGER, arXiv 2510.11170: forks at uncertain tokens, a cap per prompt, unused budget for prompts that
reached the cap (or, with labels, that nothing solved). Ours: a second round goes on from where finished
rollouts could have forked, the most uncertain token first, instead of decoding the prompt again.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import ClassVar, get_args

from eglr_selectors import ParsedPool
from eglr_selectors.options import check_finite, check_name, check_range
from eglr_selectors.pool import Cell, Rollout, RolloutPool

from lm_eval_eglr.decoding.config import BranchingConfig
from lm_eval_eglr.decoding.depth import DepthAxis
from lm_eval_eglr.decoding.request import CostModel, Request, ResumePoint
from lm_eval_eglr.decoding.strategies.grid import LARGEST_POOL, Items, check_levels, grid_cells, level_of
from lm_eval_eglr.decoding.strategies.strategy import Budget, strategy
from lm_eval_eglr.decoding.telemetry import records_of


@strategy("eager")
@dataclass(frozen=True, slots=True)
class Eager:
    """Rollouts that fork where the model is uncertain (EAGER, arXiv 2510.11170).

    Attributes:
        n: M, most rollouts per prompt in the first round, and its budget.
        temperature: At which tokens are drawn; 0 is greedy.
        branch_threshold: A rollout forks where the entropy of the next token, nats, exceeds it.
        branch_width: Continuations at a fork, the drawn one included.
        min_branch_distance: Fewest tokens between two forks of one rollout.
        branch_top_k: The entropy is that of so many likeliest tokens, renormalised.
        budget: Who gets in a second round what prompts have left of their n rollouts: ``none``: nobody;
            ``free``: prompts that used theirs up and could have forked further; ``labels``: prompts that
            no rollout has solved, which looks at the reference.
        max_rollouts: Most rollouts of one prompt over both rounds; twice n by default.
        recurrences: Iterations of a recurrent-depth model; its own by default.
    """

    recurses: ClassVar[bool] = False

    n: int = 16
    temperature: float = 0.0
    branch_threshold: float = 2.0
    branch_width: int = 2
    min_branch_distance: int = 1
    branch_top_k: int = 20
    budget: Budget = "free"
    max_rollouts: int | None = None
    recurrences: Items | None = None

    def __post_init__(self) -> None:
        check_range("n", self.n, 1, LARGEST_POOL, integer=True)
        check_range("temperature", self.temperature, 0)
        check_finite("temperature", self.temperature)
        check_range("branch_threshold", self.branch_threshold, 0)
        check_range("branch_width", self.branch_width, 2, integer=True)
        check_range("min_branch_distance", self.min_branch_distance, 1, integer=True)
        check_range("branch_top_k", self.branch_top_k, 2, integer=True)
        check_name("budget", self.budget, get_args(Budget))
        if self.max_rollouts is not None:
            check_range("max_rollouts", self.max_rollouts, self.n, 2 * LARGEST_POOL, integer=True)
        check_levels(None, self.recurrences)

    @property
    def most(self) -> int:
        """Most rollouts of one prompt over both rounds."""
        if self.budget == "none":
            return self.n
        return 2 * self.n if self.max_rollouts is None else self.max_rollouts

    def on(self, depth: DepthAxis, costs: CostModel) -> EagerPlan:
        """One rollout that forks."""
        level, temperature = level_of(depth, self.recurrences), float(self.temperature)
        return EagerPlan(self, grid_cells([level], [temperature], depth.letter))


@dataclass(frozen=True, slots=True)
class Fork:
    """An untaken fork: rollout, token position, rank of the alternative."""

    gate: float
    rollout: int
    token: int
    rank: int


@dataclass(frozen=True, slots=True)
class EagerPlan:
    """EAGER with its options."""

    options: Eager
    cells: tuple[Cell, ...]  # the rollout that all others branch from

    @property
    def rows(self) -> int:
        """Every branch may need a row."""
        return self.options.n

    @property
    def own(self) -> int:
        """M."""
        return self.options.n

    @property
    def budget(self) -> Budget:
        """Who gets what is left."""
        return self.options.budget

    @property
    def reads(self) -> bool:
        """Only labels need the answers."""
        return self.options.budget == "labels"

    @property
    def has_more_rounds(self) -> bool:
        """Forks that were passed over are taken if nothing is solved."""
        return self.reads

    def first_request(self, request: Request) -> Request:
        """One rollout that may become n."""
        return replace(request, branching=self._branching(self.options.n))

    def next_requests(
        self, request: Request, pool: RolloutPool, parsed: ParsedPool | None, count: int
    ) -> list[Request]:
        """A request for each fork that is taken now; what is more than the forks, their branches share."""
        if len(pool) < self.options.n and not self.reads:
            return []
        count = min(count, self.options.most - len(pool))
        forks = self._chosen(pool, count)
        if not forks:
            return []
        shares = [(count - i + len(forks) - 1) // len(forks) for i in range(len(forks))]
        sample = 1 + max(rollout.cell.sample for rollout in pool)
        requests = []
        for fork, share in zip(forks, shares, strict=True):
            # No request may need more rows than a first one.
            most = min(share, self.options.n)
            requests.append(self._continued(request, pool[fork.rollout], fork, sample, most))
            sample += most
        return requests

    def wants(self, request: Request, pool: RolloutPool, parsed: ParsedPool | None) -> int:
        """Up to ``max_rollouts``, where it may have more and there is a fork to take."""
        if self.reads:
            assert parsed is not None
            eligible = True not in parsed.correct
        else:
            eligible = len(pool) >= self.options.n
        room = self.options.most - len(pool)
        return room if eligible and room > 0 and self._chosen(pool, 1) else 0

    def merge(self, pools: Sequence[RolloutPool]) -> RolloutPool:
        """Round after round, each in the order in which its rollouts were opened."""
        return replace(pools[0], rollouts=tuple(rollout for pool in pools for rollout in pool))

    def _branching(self, most: int) -> BranchingConfig:
        options = self.options
        return BranchingConfig(
            threshold=float(options.branch_threshold),
            width=options.branch_width,
            distance=options.min_branch_distance,
            top_k=options.branch_top_k,
            most=most,
        )

    def _chosen(self, pool: RolloutPool, count: int) -> list[Fork]:
        """The forks to take, the most uncertain tokens first, at a distance from each other.

        With labels the threshold gives way: an unsolved prompt whose model was sure forks where it was
        least so.
        """
        floor = -1.0 if self.reads else self.options.branch_threshold
        found = [fork for fork in open_forks(pool, self.options) if fork.gate > floor]
        found.sort(key=lambda fork: (-fork.gate, fork.rollout, fork.token, fork.rank))
        chosen: list[Fork] = []
        for fork in found:
            near = any(
                other.rollout == fork.rollout
                and 0 < abs(other.token - fork.token) < self.options.min_branch_distance
                for other in chosen
            )
            if not near and len(chosen) < count:
                chosen.append(fork)
        return chosen

    def _continued(self, request: Request, parent: Rollout, fork: Fork, sample: int, most: int) -> Request:
        shared = parent.tokens[: fork.token]
        telemetry = parent.telemetry
        assert telemetry is not None
        cell = replace(parent.cell, sample=sample, path=(*parent.cell.path, (fork.token, fork.rank)))
        return replace(
            request,
            tokens=(*request.tokens, *shared),
            cells=(cell,),
            branching=self._branching(most),
            start=ResumePoint(
                tokens=shared,
                records=records_of(telemetry, fork.token),
                taken=parent.tokens[fork.token],
                rank=fork.rank,
            ),
        )


def open_forks(pool: RolloutPool, options: Eager) -> Iterator[Fork]:
    """Yields the forks that no rollout of a pool has taken, whatever their entropy.

    A token that rollouts share belongs to the one that the others branched from. A token nearer to a fork
    of its rollout than ``min_branch_distance`` is left out, and so is one that was forked.
    """
    for number, rollout in enumerate(pool):
        path, telemetry = rollout.cell.path, rollout.telemetry
        assert telemetry is not None, "a rollout that branches has been traced"
        taken = {token for token, _ in path}
        taken |= {
            other.cell.path[-1][0] for other in pool if other.cell.path and other.cell.path[:-1] == path
        }
        first = path[-1][0] + 1 if path else 0
        for token in range(first, len(rollout.tokens)):
            if any(abs(token - other) < options.min_branch_distance for other in taken):
                continue
            for rank in range(1, options.branch_width):
                yield Fork(telemetry.token_branch_entropies[token], number, token, rank)
