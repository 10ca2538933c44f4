"""Hostile formulas and names, and what a refusal must look like."""

import json
import re
import subprocess
import sys

import pytest
from hypothesis import settings
from limits import HANG_S

from polyfit.errors import UsageError
from polyfit.spec.defects import MAX_CHARACTERS as MAX_LINE
from polyfit.spec.defects import MAX_DEFECTS
from polyfit.spec.plan import Plan
from polyfit.spec.spec import Spec

__all__ = [
    "AT_ONCE", "CODE", "DEEP", "DIGITS", "FUZZ", "LIKENESSES", "PATHS", "checked", "limited",
    "quoted", "refusal",
]  # fmt: skip


def refusal(data: str | bytes) -> str:
    """The message of a spec that is refused."""
    with pytest.raises(UsageError) as caught:
        Plan.of(Spec.parse(data, "job.yaml"))
    return checked(str(caught.value))


def checked(message: str) -> str:
    """``message``, if it is a few lines of printable text, each with its place or setting."""
    lines = message.split("\n")
    assert len(lines) <= MAX_DEFECTS + 1
    for line in lines:
        assert re.match(r"job\.yaml:(\d+:)? |--set ", line), line
        assert line.isprintable()
        assert len(line) <= 6 * MAX_LINE  # a character may be shown as an escape
    return message


def quoted(text: str) -> str:
    """``text`` as a YAML scalar."""
    return json.dumps(text, ensure_ascii=False)


# The address space may grow by half a gigabyte after all imports; a larger one is a MemoryError.
LIMITED = """
import json, resource, sys
import numpy as np
from polyfit.errors import UsageError
from polyfit.numerics.formula import Formula
from polyfit.spec import yaml_loader
from polyfit.spec.plan import Plan
from polyfit.spec.spec import Spec

Plan.of(Spec.parse("name: a"))
with open("/proc/self/statm") as statm:
    used = int(statm.read().split()[0]) * resource.getpagesize()
share = int(sys.argv[2])
yaml_loader.MAX_VALUES //= share
limit = used + (512 << 20) // share
resource.setrlimit(resource.RLIMIT_AS, (limit, limit))


def fits(text):
    return f"{Plan.of(Spec.parse(text, 'job.yaml')).fits} fits"


def values(text):
    return str(Formula.parse(text)(np.array([-2.0, 0.5, 3.0])).tolist())


for line in sys.stdin:
    try:
        print(json.dumps(globals()[sys.argv[1]](json.loads(line))))
    except UsageError as error:
        print(json.dumps(str(error)))
"""


def limited(what: str, texts: list[str], share: int = 1) -> list[str]:
    """What a process with little memory says of each of ``texts``; ``share`` divides its bounds."""
    ended = subprocess.run(
        [sys.executable, "-c", LIMITED, what, str(share)],
        input="\n".join(map(json.dumps, texts)),
        capture_output=True,
        text=True,
        timeout=HANG_S,
        check=False,
    )
    assert ended.returncode == 0, ended.stderr[-2000:]
    answers = [json.loads(line) for line in ended.stdout.splitlines()]
    assert len(answers) == len(texts)
    return answers


CODE = [
    "open('MARK', 'w')",
    "print(x)",
    'eval(\'open("MARK", "w")\')',
    'exec(\'open("MARK", "w")\')',
    "compile('x', 'x', 'eval')",
    "__import__('pathlib').Path('MARK').touch()",
    "().__class__.__base__.__subclasses__()",
    "(lambda: open('MARK', 'w'))()",
    "lambda x: x",
    "[open('MARK', 'w') for _ in (1,)]",
    "{open('MARK', 'w') for _ in (1,)}",
    "{x: open('MARK', 'w') for x in (1,)}",
    "sum(x for x in x)",
    "(y := open('MARK', 'w'))",
    'f\'{open("MARK", "w")}\'',
    "f'{x}'",
    "'x'",
    "b'x'",
    "'%9999999999d' % 1",
    "'x' * 9**9",
    "[0] * 9**9",
    "(0,) * 9**9",
    "1 << 9**9",
    "9 // 1",
    "9 % 2",
    "await x",
    "yield x",
    "yield from x",
    "import os",
    "from os import *",
    "x; import os",
    "x\nimport os",
    "del x",
    "x = 1",
    "x.__class__",
    "x.real",
    "x\\\n.real",
    "sin.__globals__",
    "sin(x).base",
    "x[0]",
    "x[::1]",
    "sin(x)[0]",
    "sin(*x)",
    "sin(**x)",
    "sin(x, out=x)",
    "sin(sin)",
    "sin(x)(x)",
    "(sin)",
    "x(x)",
    "x if x else x",
    "x and x",
    "not x",
    "x == x",
    "x is x",
    "x in x",
    "*x",
    "x,",
    "x:x",
    "...",
    "None",
    "True",
    "1j",
    "__debug__",
    "numpy",
    "np.sin(x)",
    "inf",
    "nan",
    "@x",
    "x!",
    "$x",
    "`x`",
    "%s",
    "{x}",
    "{{x}}",
    "x\0",
    "x \x1b[2J",
]


LIKENESSES = [
    *("\uff58", "\U0001d431", "\u0445", "x\u0301", "\u1d61", "\uff53in(x)", "\u017fin(x)"),
    *("sin\uff08x\uff09", "x \uff0b 1", "x \u2212 1", "x \u00d7 2", "x \u00f7 2", "x\u00b2"),
    *("\u221ax", "\u03c0", "\u212f", "\u0661", "\uff11", "\u00bd", "x\u200b", "x\u200d+1"),
    *("\u202ex", "x\u00a0+ 1", "x\u2028+ 1", "\ufeffx", "e\u0445p(x)"),
]


DEEP = [
    *("(" * n + "x" + ")" * n for n in (201, 499, 1000, 100_000)),
    *("[" * n + "x" + "]" * n for n in (60, 499)),
    *(sign * n + "x" for sign in "-+~" for n in (60, 999, 100_000)),
    *("sin(" * n + "x" + ")" * n for n in (60, 199, 1000)),
    *("x" + link * n for link in ("+x", "**x", "*-x", "<x", "[x]", "(x)", ".x") for n in (60, 240)),
    *("not " * 240 + "x", "lambda:" * 140 + "x", "x if x else " * 80 + "x", "await " * 160 + "x"),
    *("f'{" * 20, "(" * 1000, ")" * 1000, "'" * 999, '"' * 999, "\\" * 999, "#" * 1000, "\n" * 999),
]


DIGITS = [
    *("9" * 400, "0x" + "f" * 998, "0o" + "7" * 998, "1_0" * 300, "9" * 998),
    *("9" * 5000, "x + " + "9" * 900 + ".real", "9" * 310 + "**9"),
]


AT_ONCE = {
    "9**9**9": "inf",
    "9**9**9**9**9": "inf",
    "(9**9**9)**9": "inf",
    "2**2**2**2**2**2**2": "inf",
    "0x" + "f" * 255 + "**9": "inf",
    "9" * 300 + "**99999999": "inf",
    "99999999999**99999999999": "inf",
    "1e999999999999999999": "inf",
    "exp(exp(exp(exp(9))))": "inf",
    "9**-9**9**9": "0.0",
    "0**9**9**9": "0.0",
    "(-9)**9**9": "-inf",
}


PATHS = [
    *("../x", "..", ".", "/", "/etc", "a/b", "a/../b", "a\\b", "a\0b", "a\n", "\na", "a b", "~"),
    *("~root", "$HOME", "%2e%2e", "a%2fb", "A", "", "-rf", "a" * 64, "a" * 100_000, "\uff41"),
    *("a\u200b", "\u202ea", "a.yaml", "a_b", "a:b", "a?b", "*", "a;b", "s3://b", "\x1b[2J"),
]


FUZZ = settings(deadline=None, derandomize=False, print_blob=True)  # new ones in every run
