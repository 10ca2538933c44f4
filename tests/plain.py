"""Plain values as Hypothesis makes them: what YAML may hold for a field or an axis."""

import math
from typing import Any

from hypothesis import strategies as st

from polyfit.spec.axis import Values

__all__ = ["PLAIN", "values"]

GENERATOR_KEYS = [
    *("count", "start", "stop", "step", "linspace", "logspace"),
    *("momentum", "beta", "of_limit", "gradient", "loss_change", "other"),
]


PLAIN = st.recursive(
    st.one_of(
        st.none(),
        st.booleans(),
        st.integers(-3, 10),
        st.integers(),
        st.sampled_from([2**32, 2**62, 2**63, 2**64, 10**19, -(10**19), 10**399, -(10**399)]),
        st.floats(),
        st.sampled_from([1e308, -1e308, 5e-324, math.inf]),
        st.sampled_from(["auto", "none", "gd", "momentum", "sse", "x", "pi", "1/0", "power", "("]),
        st.text(max_size=5),
    ),
    lambda inner: st.one_of(
        st.lists(inner, max_size=3),
        st.dictionaries(
            st.sampled_from(GENERATOR_KEYS),
            inner,
            max_size=3,
        ),
    ),
    max_leaves=6,
)


def values(name: str, raw: Any) -> list[Any]:
    return list(Values.read(name, raw).items)
