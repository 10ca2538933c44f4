"""A commented spec to begin with."""

import re
from pathlib import PurePath
from typing import Final

__all__ = ["name_for", "spec_template"]

_DEFAULT_NAME: Final = "my-sweep"

_TEMPLATE: Final = """\
# What to fit. `polyfit plan FILE` says what would run, `polyfit run FILE` runs it.
name: {name}

fit:                      # what all fits share; what is left out has its default
  target: sin(x)          # a formula in x
  range: [-pi, pi]
  points: 200             # evenly spaced over the range
  basis: chebyshev        # chebyshev | legendre | power
  objective: sse          # sse | mse | huber | log_cosh | l1
  optimizer: gd           # gd | adam | newton | {{momentum: {{beta: 0.9}}}}
  lr: auto                # auto | a number | {{of_limit: 0.9}}, a share of the stability limit
  steps: 500
  dtype: float32          # float32 | float64
  # stop: {{gradient: 1e-6}} # end a fit early
  # noise: 0.1            # standard deviation of noise added to the target

sweep:                    # all combinations are fitted; any field of fit may stand here
  degree: {{start: 1, stop: 8}}       # 1 to 7; a list too: [1, 3, 5]
  seed: {{count: 10}}                 # random starts 0 to 9
  # lr: {{logspace: [-3, -1, 5]}}     # linspace, uniform and log_uniform too

# exclude:                # combinations that are left out
#   - degree > 5 and seed >= 3

# record: {{every: 100, of: [loss]}}  # keep the loss at every 100th update
# store: s3://bucket/prefix         # else ./runs
# run_id: "{{date}}"                  # each day a run of its own
# limits: {{fits: 1000000, core_hours: 1}}
"""


def spec_template(name: str) -> str:
    """A spec called ``name``, which runs as it stands in a few seconds."""
    return _TEMPLATE.format(name=name)


def name_for(file: str | None) -> str:
    """A name for the spec in ``file``: made of the file's, where that has letters or digits."""
    stem = PurePath(file or "").stem.lower()
    return re.sub(r"[^a-z0-9]+", "-", stem).strip("-")[:63] or _DEFAULT_NAME
