"""Options of decoding a recurrent-depth model, checked when they are made."""

from __future__ import annotations

from dataclasses import dataclass

from eglr_selectors.options import check_range

from lm_eval_eglr.decoding.depth import EXIT_RULES, ExitRule, check_exit


@dataclass(frozen=True, slots=True)
class RecurrentConfig:
    """How the recurrent block is iterated.

    Attributes:
        exit: When a token's iterations end before they are as many as its cell allows: ``none`` never;
            ``kl``, ``entropy`` and ``latent`` when what an iteration moved falls below ``exit_threshold``:
            the distribution by KL(p_k ‖ p_{k-1}), nats, its entropy, nats, or the latent state, relative to
            its norm.
        exit_threshold: By default 5e-4, 1e-3 and 0.03.
        kv_budget: Slots k of keys and values: iteration i reads and writes slot i mod k. By default every
            iteration has its own.
        draft_recurrences: Iterations with which tokens are drafted, to be verified by all iterations in one
            pass; by default nothing is drafted.
        draft_tokens: Tokens that are drafted at a time.
        state_seed: Seed of the latent states before the first iteration.
    """

    exit: str = "none"
    exit_threshold: float | None = None
    kv_budget: int | None = None
    draft_recurrences: int | None = None
    draft_tokens: int = 4
    state_seed: int = 0

    def __post_init__(self) -> None:
        check_exit(self.exit, self.exit_threshold)
        if self.kv_budget is not None:
            check_range("kv_budget", self.kv_budget, 1, integer=True)
        check_range("draft_tokens", self.draft_tokens, 1, integer=True)
        check_range("state_seed", self.state_seed, 0, integer=True)
        if self.draft_recurrences is None:
            if self.draft_tokens != 4:
                raise ValueError(f"draft_tokens={self.draft_tokens}: needs draft_recurrences")
            return
        check_range("draft_recurrences", self.draft_recurrences, 1, integer=True)
        if self.exit != "none":
            raise ValueError(
                f"draft_recurrences={self.draft_recurrences}: expected exit=none, got exit={self.exit}; "
                "tokens that are verified side by side would exit before those in front of them have"
            )
        if self.kv_budget is not None:
            raise ValueError(
                f"draft_recurrences={self.draft_recurrences}: expected no kv_budget, got {self.kv_budget}; "
                "tokens that are verified side by side would not see what those in front leave in their slots"
            )

    def check_drafts(self, deepest: int) -> None:
        """Refuses drafts that nothing verifies: of as many iterations as the deepest level makes.

        Raises:
            ValueError: If they are of no fewer.
        """
        if self.draft_recurrences is not None and self.draft_recurrences >= deepest:
            raise ValueError(
                f"draft_recurrences={self.draft_recurrences}: expected an integer below the recurrences that "
                f"verify the drafts, here {deepest} at most"
            )

    @property
    def max_recursions(self) -> int:
        """Top layers are never applied again."""
        return 0

    @property
    def rule(self) -> ExitRule | None:
        """The rule of exit; ``None`` for none."""
        return EXIT_RULES.get(self.exit)

    @property
    def threshold(self) -> float:
        """The threshold of the rule; 0 without one."""
        if self.rule is None:
            return 0.0
        return self.rule.threshold if self.exit_threshold is None else self.exit_threshold

    def slots(self, recurrences: int) -> int:
        """Slots of keys and values that so many iterations use."""
        return recurrences if self.kv_budget is None else min(recurrences, self.kv_budget)

    def reads_in_step(self, recurrences: int) -> bool:
        """Whether generated tokens may be read side by side, iteration by iteration.

        Not where what a token leaves in a slot depends on how many iterations it made in the end: then a
        token must see those before it when they are done, so generated tokens are read one by one.
        """
        return self.exit == "none" and self.slots(recurrences) == recurrences
