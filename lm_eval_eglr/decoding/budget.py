"""The common purse: what prompts leave of their budgets, and who gets it.

Full parallel sampling with n rollouts per prompt may use n rollouts and n × its length limit of tokens on
every prompt. The purse holds what is left of that, of both, and gives it out one rollout at a time; a
rollout is given only with as many tokens as it can need, so neither total can be exceeded.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from eglr_selectors.pool import RolloutPool

Key = tuple[str, int, int]
"""What shares a budget (a task), and the prompt's place in it: document and repeat."""


@dataclass(frozen=True, slots=True)
class Account:
    """What one prompt has used of its budget, and what it would still take.

    Attributes:
        key: Tells the prompt apart; prompts are served in the order of their keys.
        rollouts: Rollouts that it has used.
        tokens: Tokens that it has decoded; those that a branch shares with its parent count once.
        limit: Its length limit: the most tokens that a rollout can need.
        wants: Rollouts that it would take from the purse; 0 for a prompt that is done.
    """

    key: Key
    rollouts: int
    tokens: int
    limit: int
    wants: int


@dataclass(frozen=True, slots=True)
class Balance:
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


def share_out(accounts: Sequence[Account], own: int) -> Balance:
    """Gives what prompts have left of ``own`` rollouts each to those that want more.

    Every prompt that wants more gets one rollout after another, in the order of the keys, round after
    round, until the purse cannot pay another or nobody wants one.

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
    hungry = [account for account in accounts if account.wants > 0]
    while hungry:
        still = []
        for account in hungry:
            if left < 1 or left_tokens < account.limit:
                continue
            left, left_tokens = left - 1, left_tokens - account.limit
            grants[account.key] = grants.get(account.key, 0) + 1
            if grants[account.key] < account.wants:
                still.append(account)
        hungry = still
    given = tokens - used_tokens - left_tokens
    return Balance(budget, tokens, used, used_tokens, grants, given, left, left_tokens)


def decoded_tokens(pool: RolloutPool) -> int:
    """Tokens that were decoded for a pool: a branch's from where it parted, any other rollout's all."""
    return sum(
        len(rollout.tokens) - (rollout.cell.path[-1][0] if rollout.cell.path else 0) for rollout in pool
    )
