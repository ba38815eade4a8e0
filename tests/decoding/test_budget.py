"""The common shared budget balances, in rollouts and in tokens, whatever prompts used and want."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lm_eval_eglr.decoding.strategies.rounds import PromptUsage, allocate

OWN = 6


@st.composite
def accounts(draw):
    each = []
    for number in range(draw(st.integers(0, 8))):
        limit = draw(st.integers(1, 50))
        rollouts = draw(st.integers(1, OWN))
        tokens = draw(st.integers(0, rollouts * limit))
        each.append(PromptUsage(("task", number, 0), rollouts, tokens, limit, draw(st.integers(0, 20))))
    return each


@given(each=accounts(), data=st.data())
def test_the_purse_balances(each, data):
    balance = allocate(each, OWN)
    limits = {account.key: account.limit for account in each}
    assert balance.rollouts == OWN * len(each)
    assert balance.tokens == sum(OWN * account.limit for account in each)
    assert balance.rollouts == balance.used_rollouts + balance.given_rollouts + balance.left_rollouts
    assert balance.tokens == balance.used_tokens + balance.given_tokens + balance.left_tokens
    assert balance.given_tokens == sum(count * limits[key] for key, count in balance.grants.items())
    assert min(balance.left_rollouts, balance.left_tokens) >= 0
    wants = {account.key: account.wants for account in each}
    assert all(1 <= count <= wants[key] for key, count in balance.grants.items())
    claimants = [key for key in limits if balance.grants.get(key, 0) < wants[key]]
    if balance.left_rollouts:
        assert all(balance.left_tokens < limits[key] for key in claimants), "somebody was sent away unserved"
    assert allocate(data.draw(st.permutations(each)), OWN) == balance


def test_who_overdrew_is_named():
    with pytest.raises(ValueError, match="used 7 rollouts and 10 tokens of 6 and 60"):
        allocate([PromptUsage(("task", 0, 0), 7, 10, 10, 0)], OWN)
