"""Decoding in rounds: prompts begin, go on while their strategy says so, and share what budget is left."""

from __future__ import annotations

import logging
import pickle
import zlib
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from eglr_selectors import ParsedPool
from eglr_selectors.pool import Rollout, RolloutPool

from lm_eval_eglr.decoding.request import CostModel, Request
from lm_eval_eglr.decoding.scheduler import Poll
from lm_eval_eglr.decoding.strategies.strategy import DecodingPlan

logger = logging.getLogger(__name__)

Key = tuple[str, int, int]
"""What shares a budget (a task), and the prompt's place in it: document and repeat."""


@dataclass(frozen=True, slots=True)
class PromptUsage:
    """What one prompt has used of its budget, and what it would still take.

    Attributes:
        key: Tells the prompt apart; prompts are served in the order of their keys.
        rollouts: Rollouts that it has used.
        tokens: Tokens that it has decoded; those that a branch shares with its parent count once.
        limit: Its length limit: the most tokens that a rollout can need.
        wants: Rollouts that it would take from the shared budget; 0 for a prompt that is done.
    """

    key: Key
    rollouts: int
    tokens: int
    limit: int
    wants: int


@dataclass(frozen=True, slots=True)
class BudgetAllocation:
    """A shared budget: ``budget = used + given + left`` in rollouts and in tokens.

    Attributes:
        rollouts: The budget, rollouts.
        tokens: The budget, tokens.
        used_rollouts: What the prompts have used of it themselves.
        used_tokens: Likewise.
        grants: Rollouts given to each prompt that got any.
        given_tokens: Tokens set aside for them, the limit for each; what they do not need is not given again.
        left_rollouts: What is left.
        left_tokens: Likewise.
    """

    rollouts: int
    tokens: int
    used_rollouts: int
    used_tokens: int
    grants: dict[Key, int] = field(default_factory=dict)
    given_tokens: int = 0
    left_rollouts: int = 0
    left_tokens: int = 0

    @property
    def given_rollouts(self) -> int:
        """All rollouts that were given."""
        return sum(self.grants.values())


def allocate(accounts: Sequence[PromptUsage], own: int) -> BudgetAllocation:
    """Gives what prompts have left of ``own`` rollouts each to those that want more.

    Every prompt that wants more gets one rollout after another, in the order of the keys, round after
    round, until the shared budget cannot pay another or nobody wants one.

    Args:
        accounts: All prompts that share the budget.
        own: Budget of a prompt, rollouts.

    Raises:
        ValueError: If a prompt has used more than its own budget.
    """
    accounts = sorted(accounts, key=lambda account: account.key)
    for account in accounts:
        if account.rollouts > own or account.tokens > own * account.limit:
            raise ValueError(
                f"prompt {account.key}: used {account.rollouts} rollouts and {account.tokens} tokens of "
                f"{own} and {own * account.limit}"
            )
    budget, tokens = own * len(accounts), own * sum(account.limit for account in accounts)
    used = sum(account.rollouts for account in accounts)
    used_tokens = sum(account.tokens for account in accounts)
    left, left_tokens = budget - used, tokens - used_tokens
    grants: dict[Key, int] = {}
    claimants = [account for account in accounts if account.wants > 0]
    while claimants:
        still = []
        for account in claimants:
            if left < 1 or left_tokens < account.limit:
                continue
            left, left_tokens = left - 1, left_tokens - account.limit
            grants[account.key] = grants.get(account.key, 0) + 1
            if grants[account.key] < account.wants:
                still.append(account)
        claimants = still
    given = tokens - used_tokens - left_tokens
    return BudgetAllocation(budget, tokens, used, used_tokens, grants, given, left, left_tokens)


def decoded_tokens(pool: RolloutPool) -> int:
    """Tokens that were decoded for a pool: a branch's from where it parted, any other rollout's all."""
    return sum(
        len(rollout.tokens) - (rollout.cell.path[-1][0] if rollout.cell.path else 0) for rollout in pool
    )


Read = Callable[[RolloutPool], ParsedPool]
Decode = Callable[[Poll], Iterator[tuple[int, RolloutPool]]]
Gather = Callable[[list[PromptUsage]], list[PromptUsage]]
"""Joins the accounts of all processes of a run; each gets all of them."""


@dataclass(frozen=True, slots=True)
class PromptJob:
    """A prompt to decode.

    Attributes:
        request: The prompt with all cells of its plan.
        plan: Its strategy.
        key: Its place; prompts share their budgets with those of the same first part.
        read: Reads the pool's answers, and grades them where the strategy looks at the reference.
    """

    request: Request
    plan: DecodingPlan
    key: Key = ("", 0, 0)
    read: Read | None = None


@dataclass(slots=True)
class _PromptState:
    """A prompt on its way."""

    assignment: PromptJob
    allowed: int  # rollouts that it may have in all
    waiting: int = 1  # requests that are out
    parts: dict[int, RolloutPool] = field(default_factory=dict)  # finished requests of this wave
    pool: RolloutPool | None = None


@dataclass(frozen=True, slots=True)
class _InFlight:
    """A request that is out: whose, and which of the wave."""

    number: int
    place: int
    request: Request


class Rounds:
    """Decodes prompts by their strategies, in two rounds with one sharing of the budget between them.

    Args:
        decode: The engine: asks for requests one by one, and yields their pools in any order.
        costs: What tokens of the model cost.
        own: Budget of a prompt, rollouts, where they share it; ``None`` where nothing is shared. It is
            the same for all processes of a run: they wait for each other to share.
        trace: Whether finished pools keep their per-token telemetry.
        keep: Gets the number and the pool of every prompt that has ended its first round and may get
            more, before the budget is shared: what is kept need not be decoded again.
        gather: Joins the accounts of several processes.
        release: Told the document of a prompt that gets no more requests for now.
    """

    def __init__(
        self,
        decode: Decode,
        costs: CostModel,
        *,
        own: int | None = None,
        trace: bool = False,
        keep: Callable[[int, RolloutPool], None] = lambda number, pool: None,
        gather: Gather = lambda accounts: accounts,
        release: Callable[[str], None] = lambda document: None,
    ) -> None:
        self._decode = decode
        self._costs = costs
        self._own = own
        self._trace = trace
        self._keep = keep
        self._gather = gather
        self._release = release
        self.balances: dict[str, BudgetAllocation] = {}

    def run(
        self,
        assignments: Mapping[int, PromptJob],
        finished: Mapping[int, RolloutPool] | None = None,
        kept: Mapping[int, RolloutPool] | None = None,
    ) -> Iterator[tuple[int, RolloutPool]]:
        """Decodes all prompts.

        Args:
            assignments: The prompts by number, those that were finished before included: they have used
                a part of the common budget.
            finished: Pools that an earlier run has finished; they are not yielded.
            kept: Pools that an earlier run has kept, those of finished prompts included.

        Yields:
            Number and pool of every prompt as it is finished.
        """
        finished, kept = finished or {}, kept or {}
        fresh = {
            number: _PromptState(each, each.plan.own)
            for number, each in assignments.items()
            if number not in finished and number not in kept
        }
        accounts = {
            # What was not kept after the first round wanted nothing more.
            number: self._account(assignments[number], pool, asks=number in kept)
            for number, pool in (dict(finished) | dict(kept)).items()
            if assignments[number].plan.budget != "none"
        }
        packed_pools = {number: _packed(pool) for number, pool in kept.items() if number not in finished}
        begun = [
            _InFlight(
                n,
                0,
                plan.first_request(
                    replace(each.assignment.request, keeps=plan.has_more_rounds, pool_rows=plan.rows)
                ),
            )
            for n, each in fresh.items()
            for plan in [each.assignment.plan]
        ]
        for number, pool in self._through(fresh, begun):
            assignment = assignments[number]
            if assignment.plan.budget != "none":
                accounts[number] = self._account(assignment, pool, asks=True)
                if accounts[number].wants:
                    self._keep(number, pool)
                    packed_pools[number] = _packed(pool)
                    continue
            yield number, self._finished(assignment, pool)
        if self._own is None:
            return
        grants = self._share(accounts, self._own)
        yield from self._second(assignments, packed_pools, grants)

    def _second(
        self,
        assignments: Mapping[int, PromptJob],
        packed_pools: Mapping[int, bytes],
        grants: Mapping[int, int],
    ) -> Iterator[tuple[int, RolloutPool]]:
        progress: dict[int, _PromptState] = {}
        in_flight: list[_InFlight] = []
        for number, packed in packed_pools.items():
            pool, assignment = _unpacked(packed), assignments[number]
            each = _PromptState(assignment, len(pool) + grants.get(number, 0), pool=pool)
            more = self._more(each) if grants.get(number) else []
            if not more:
                yield number, self._finished(assignment, pool)
                continue
            each.waiting = len(more)
            progress[number] = each
            in_flight += [_InFlight(number, place, request) for place, request in enumerate(more)]
        for number, pool in self._through(progress, in_flight):
            yield number, self._finished(assignments[number], pool)

    def _through(
        self, progress: Mapping[int, _PromptState], in_flight: Sequence[_InFlight]
    ) -> Iterator[tuple[int, RolloutPool]]:
        """Runs prompts until their strategies have no more requests; yields number and pool of each."""
        waiting = deque(in_flight)
        taken: list[_InFlight] = []

        def poll() -> Request | None:
            if not waiting:
                return None  # for now: pools that finish may ask for more
            taken.append(waiting.popleft())
            return taken[-1].request

        for index, part in self._decode(poll):
            asked = taken[index]
            each = progress[asked.number]
            each.parts[asked.place] = part
            each.waiting -= 1
            if each.waiting:
                continue
            self._join(each)
            more = self._more(each)
            each.waiting = len(more)
            # Ahead of prompts that have not begun, so that few pools are half done at a time.
            again = [_InFlight(asked.number, place, request) for place, request in enumerate(more)]
            waiting.extendleft(reversed(again))
            if not more:
                self._release(each.assignment.request.document)
                assert each.pool is not None
                yield asked.number, each.pool
                each.pool = None

    def _join(self, each: _PromptState) -> None:
        parts = [part for _, part in sorted(each.parts.items())]
        pools = parts if each.pool is None else [each.pool, *parts]
        each.parts = {}
        joined = each.assignment.plan.merge(pools)
        if len(pools) > 1:
            costs = [pool.cost for pool in pools if pool.cost is not None]
            tokens = sum(len(rollout.tokens) for rollout in joined)
            joined = replace(joined, cost=self._costs.joined(costs, tokens))
        each.pool = joined

    def _more(self, each: _PromptState) -> list[Request]:
        pool, plan = each.pool, each.assignment.plan
        assert pool is not None
        count = each.allowed - len(pool)
        if count < 1:
            return []
        request = replace(each.assignment.request, keeps=True, pool_rows=plan.rows)
        return plan.next_requests(request, pool, self._read(each.assignment, pool), count)

    def _read(self, assignment: PromptJob, pool: RolloutPool) -> ParsedPool | None:
        if not assignment.plan.reads:
            return None
        assert assignment.read is not None, "a strategy that reads answers was given no reader"
        return assignment.read(pool)

    def _account(self, assignment: PromptJob, pool: RolloutPool, asks: bool) -> PromptUsage:
        """A prompt after its first round; one that does not ask wants nothing."""
        request, wants = assignment.request, 0
        if asks:
            wants = assignment.plan.wants(request, pool, self._read(assignment, pool))
        return PromptUsage(assignment.key, len(pool), decoded_tokens(pool), request.max_new_tokens, wants)

    def _share(self, accounts: Mapping[int, PromptUsage], own: int) -> dict[int, int]:
        """Gives out the budget of each task; rollouts by number of the prompt."""
        everyone = self._gather(list(accounts.values()))
        grants: dict[Key, int] = {}
        for task in sorted({account.key[0] for account in everyone}):
            balance = allocate([each for each in everyone if each.key[0] == task], own)
            self.balances[task] = balance
            grants |= balance.grants
            logger.info(
                "%s: %d of %d rollouts were left, %d of them go to %d prompts",
                task or "all prompts",
                balance.rollouts - balance.used_rollouts,
                balance.rollouts,
                balance.given_rollouts,
                len(balance.grants),
            )
        return {number: grants.get(account.key, 0) for number, account in accounts.items()}

    def _finished(self, assignment: PromptJob, pool: RolloutPool) -> RolloutPool:
        if assignment.plan.budget == "labels":
            pool = replace(pool, uses_reference=True)
        if self._trace:
            return pool
        return replace(pool, rollouts=tuple(map(_untraced, pool)))


def _untraced(rollout: Rollout) -> Rollout:
    telemetry = rollout.telemetry
    if telemetry is None or not telemetry.token_entropies:
        return rollout
    empty: dict[str, Any] = {name: () for name in telemetry.__slots__ if name.startswith("token_")}
    return replace(rollout, telemetry=replace(telemetry, **empty))


def _packed(pool: RolloutPool) -> bytes:
    """A pool that waits for the second round: traced, it is large, and many may wait."""
    return zlib.compress(pickle.dumps(pool), 1)


def _unpacked(packed: bytes) -> RolloutPool:
    pool: RolloutPool = pickle.loads(zlib.decompress(packed))
    return pool
