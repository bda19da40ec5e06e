"""The grammar of choices: what texts mean, what comes back as text, and what errors tell."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lrp_onnx.errors import ImageError, RuleError
from lrp_onnx.notation import Call, build, is_size, parse, read_size, split, suggestion, write
from lrp_onnx.relevance.rules.table import RULES, parse_rule, rule_text


@dataclass(frozen=True)
class Bell:
    """One parameter of every kind."""

    count: int = 8
    width: float = 0.5
    loud: bool = False
    tone: str = "high"
    weights: tuple[float, ...] = (1.0,)
    size: tuple[int, int] | None = None
    limit: str | float = "mean"

    def __post_init__(self) -> None:
        if self.count < 1:
            raise ValueError(f"count must be at least 1; got {self.count}")


@dataclass(frozen=True, kw_only=True)
class Named:
    """Its parameters go by their names alone."""

    low: float = 0.0


@dataclass(frozen=True)
class Plain:
    """No parameters."""


TABLE: dict[str, Any] = {
    "bell": Bell(),
    "large-bell": Bell(width=3.0, tone="low"),
    "named": Named(),
    "plain": Plain(),
}


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("bell", Bell()),
        (" bell() ", Bell()),
        ("bell:", Bell()),
        ("bell(9)", Bell(9)),
        ("bell:9", Bell(9)),
        ("bell:9,tone=low", Bell(9, tone="low")),
        ("bell( count = 1e+3 , width=2, )", Bell(1000, 2.0)),
        ("bell(width=-1e+3, loud=TRUE)", Bell(width=-1000.0, loud=True)),
        ("bell:weights=0.5/1/2", Bell(weights=(0.5, 1.0, 2.0))),
        ("bell(weights=)", Bell(weights=())),
        ("bell(size=480X640)", Bell(size=(480, 640))),
        ("bell(size=28)", Bell(size=(28, 28))),
        ("bell:limit=quantile:0.8", Bell(limit="quantile:0.8")),
        ("bell(limit=-1e+1)", Bell(limit=-10.0)),
        ("bell(tone=f(a=1, b=(2)))", Bell(tone="f(a=1, b=(2))")),
        ("bell(tone=a=b)", Bell(tone="a=b")),
        ("large-bell", Bell(width=3.0, tone="low")),
        ("large-bell:7", Bell(7, width=3.0, tone="low")),
        ("named(low=2)", Named(low=2.0)),
        ("plain", Plain()),
    ],
)
def test_what_a_text_means(text: str, expected: object) -> None:
    assert build(text, TABLE, what="sound") == expected


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("bel", "there is no sound 'bel'; did you mean bell"),
        ("whistle", "there is no sound 'whistle'; there are bell, large-bell, named, plain"),
        ("", "'' is not a sound: write NAME"),
        ("Bell", "'Bell' is not a sound"),
        ("bell bell", "'bell bell' is not a sound"),
        ("bell(9", r"'bell\(9' is not a sound"),
        ("bell(9)(8)", "do not match"),
        ("bell(9))", r"do not match"),
        (
            "bell(pitch=3)",
            "the sound bell has no parameter 'pitch'; it takes count, width, loud, tone",
        ),
        ("plain(3)", "the sound plain: '3' is not parameter=value"),
        ("plain(a=3)", "the sound plain has no parameter 'a'; it takes none"),
        ("named(3)", "the sound named: '3' is not parameter=value"),
        ("bell(9, 8)", r"bell\(9, 8\): '8' is not parameter=value"),
        ("bell(width=1, width=1)", "width is given twice"),
        ("bell(9, count=9)", "count is given twice"),
        ("bell(count=8.5)", "the sound bell: count=8.5: the value must be a whole number"),
        ("bell(count=inf)", "count=inf: the value must be a whole number"),
        ("bell(width=wide)", "width=wide: the value must be a number"),
        ("bell(loud=1)", "loud=1: the value must be true or false"),
        ("bell(weights=1/b)", "weights=1/b: the value must be a number, or numbers joined by /"),
        ("bell(size=big)", "size=big: the value must be a size such as 224 or 480x640"),
        ("bell(count=0)", "the sound bell: count must be at least 1; got 0"),
    ],
)
def test_errors_say_what_to_write(text: str, message: str) -> None:
    with pytest.raises(RuleError, match=message):
        build(text, TABLE, what="sound")
    with pytest.raises(ImageError, match=message):
        build(text, TABLE, what="sound", error=ImageError)


def test_a_call_is_data() -> None:
    call = parse(
        "epsilon-plus(start=one, @upper convolution=gamma(gamma=0.1), fc*=flat)", what="method"
    )
    assert call.name == "epsilon-plus"
    assert dict(call.arguments) == {
        "start": "one",
        "@upper convolution": "gamma(gamma=0.1)",
        "fc*": "flat",
    }
    assert parse(str(call), what="method") == call
    assert build(Call("bell", (("", "3"), ("tone", "low"))), TABLE, what="sound") == Bell(
        3, tone="low"
    )
    assert str(Call("bell", (("", "3"),))) == "bell(3)"


def test_splitting() -> None:
    assert split("a(b+c)+d:e=1e+3,f=-1e+1+g", "+") == ["a(b+c)", "d:e=1e+3,f=-1e+1", "g"]
    assert split("a,(b,c),", ",") == ["a", "(b,c)", ""]
    assert split("", "+") == [""]
    for text in ("a(", "a)", "a)(b"):
        with pytest.raises(RuleError, match="do not match"):
            split(text, "+")


def test_writing_leaves_defaults_out_and_names_the_nearest() -> None:
    assert write(Bell(), TABLE) == "bell"
    assert write(Bell(width=3.0, tone="low"), TABLE) == "large-bell"
    assert write(Bell(9, width=3.0, tone="low"), TABLE) == "large-bell(count=9)"
    every = Bell(1, 0.1, True, "low", (1.5, 2.0), (4, 5), -1e30)
    assert write(every, {"bell": Bell()}) == (
        "bell(count=1, width=0.1, loud=true, tone=low, weights=1.5/2, size=4x5, limit=-1e+30)"
    )
    assert write(Bell(size=(4, 4)), TABLE) == "bell(size=4)"
    assert write(Bell(width=1 / 3), TABLE) == "bell(width=0.3333333333333333)"
    assert write(Bell(width=1 / 3), TABLE, digits=6) == "bell(width=0.333333)"
    with pytest.raises(KeyError):
        write(Plain(), {"bell": Bell()})


numbers = st.floats(allow_nan=False, allow_infinity=False)
bells = st.builds(
    Bell,
    count=st.integers(1),
    width=numbers,
    loud=st.booleans(),
    tone=st.sampled_from(["high", "low", "f(a=1, b=2)"]),
    weights=st.lists(numbers, max_size=3).map(tuple),
    size=st.none() | st.tuples(st.integers(1, 32767), st.integers(1, 32767)),
    limit=st.sampled_from(["mean", "quantile:0.5"]) | numbers,
)


@given(bells, st.sampled_from(["({})", ":{}"]))
def test_every_dataclass_comes_back(bell: Bell, form: str) -> None:
    text = write(bell, TABLE)
    assert build(text, TABLE, what="sound") == bell
    call = parse(text, what="sound")
    inside = ",".join(f"{key}={value}" for key, value in call.arguments)
    assert build(call.name + form.format(inside), TABLE, what="sound") == bell


positive = st.floats(0, 1e30)
PARAMETERS = {
    "epsilon": positive,
    "signed": st.booleans(),
    "bias": st.sampled_from(["keep", "drop"]),
    "gamma": positive,
    "ones": st.booleans(),
    "beta": positive,
    "kernel": st.integers(0, 99),
    "low": st.lists(st.floats(-1e30, -1e-3), max_size=3).map(tuple),
    "high": st.lists(st.floats(1e-3, 1e30), max_size=3).map(tuple),
}


@given(st.data(), st.sampled_from(sorted(RULES)))
def test_every_rule_comes_back(data: st.DataObject, name: str) -> None:
    kind = type(RULES[name])
    values = {
        field.name: data.draw(PARAMETERS[field.name], label=field.name)
        for field in fields(kind)
        if field.name in PARAMETERS
    }
    if "low" in values:
        values["high"] = values["high"][:1] * len(values["low"]) or (1.0,) * len(values["low"])
    if "beta" in values:
        values |= {"alpha": 3.0, "beta": 2.0}
    rule = kind(**values)
    table = RULES
    assert build(write(rule, table), table, what="rule") == rule
    short = parse_rule(rule_text(rule))
    assert type(short) is kind and rule_text(short) == rule_text(rule)


def test_suggestions() -> None:
    assert suggestion("flatt", ["flat", "gamma"]) == "did you mean flat?"
    assert suggestion("flatt", ["floats", "flat", "flats"]) == "did you mean flat or flats?"
    assert suggestion("x", ["flat", "gamma"]) == "there are flat, gamma"


def test_sizes() -> None:
    assert read_size("224") == (224, 224) and read_size("480x640") == read_size(" 480X640 ") == (
        480,
        640,
    )
    for text in ("", "0", "x", "12x", "1x2x3", "-5", "99999", "big", "1.5", "²"):
        with pytest.raises(ValueError, match="is not a size: write 224, or 480x640"):
            read_size(text)
    assert is_size("0") and is_size("99999x1") and not is_size("layer4/out") and not is_size("x")
