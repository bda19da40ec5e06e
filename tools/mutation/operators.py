"""Small faults in Python source: every place where one can be made, and what it reads then.

Annotations, docstrings, decorators, imports, `__slots__`, the texts of errors and ``strict=`` of
`zip` are left alone: no test can tell the difference, or none should.
"""

from __future__ import annotations

import ast
import copy
from collections.abc import Iterator
from dataclasses import dataclass

COMPARISONS: dict[type[ast.cmpop], type[ast.cmpop]] = {
    ast.Lt: ast.LtE,
    ast.LtE: ast.Lt,
    ast.Gt: ast.GtE,
    ast.GtE: ast.Gt,
    ast.Eq: ast.NotEq,
    ast.NotEq: ast.Eq,
    ast.Is: ast.IsNot,
    ast.IsNot: ast.Is,
    ast.In: ast.NotIn,
    ast.NotIn: ast.In,
}
ARITHMETIC: dict[type[ast.operator], type[ast.operator]] = {
    ast.Add: ast.Sub,
    ast.Sub: ast.Add,
    ast.Mult: ast.Div,
    ast.Div: ast.Mult,
    ast.FloorDiv: ast.Mult,
    ast.Mod: ast.FloorDiv,
    ast.Pow: ast.Mult,
    ast.BitAnd: ast.BitOr,
    ast.BitOr: ast.BitAnd,
}
ORDERED = (ast.Sub, ast.Div, ast.FloorDiv, ast.Mod, ast.Pow)
"""Operators whose operands may not change places."""
UNORDERED = ("max", "min", "np.maximum", "np.minimum", "np.array_equal")
"""Functions whose arguments may."""
ONES = ("1", "1.0", "-1", "-1.0")
"""Numbers by which a product is a quotient."""
SEQUENCES = (ast.Tuple, ast.List, ast.ListComp, ast.JoinedStr, ast.Starred)
"""What ``+`` joins, where it does not add."""


@dataclass(frozen=True, slots=True)
class Mutant:
    """One fault in one file."""

    path: str
    """The file, from the root of the repository."""
    line: int
    last_line: int
    function: str
    """The function with its classes, or empty for what runs at import."""
    operator: str
    """What kind of fault."""
    start: int
    """Where the replaced text starts and, below, ends, in bytes."""
    end: int
    before: str
    after: str

    @property
    def name(self) -> str:
        """Names this mutant among all of this version of the file."""
        return f"{self.path}:{self.line}:{self.start}-{self.end} {self.operator}: {self.after}"

    def applied(self, source: bytes) -> bytes:
        """The file with the fault in it."""
        return source[: self.start] + self.after.encode() + source[self.end :]


def mutants(path: str, source: bytes) -> list[Mutant]:
    """Every mutant of a file that compiles, in the order of the text."""
    lines = [0]
    for line in source.splitlines(keepends=True):
        lines.append(lines[-1] + len(line))
    found = []
    for node, function, operator, after in _faults(ast.parse(source), ""):
        start, end = _span(lines, node)
        before = source[start:end].decode()
        if after not in (before, f"({before})"):
            last = node.end_lineno or node.lineno
            found.append(
                Mutant(path, node.lineno, last, function, operator, start, end, before, after)
            )
    return sorted(found, key=lambda mutant: (mutant.start, mutant.end, mutant.operator))


Place = ast.expr | ast.stmt | ast.keyword
Fault = tuple[Place, str, str, str]
"""(what is replaced, function, operator, by which text)."""


def _span(lines: list[int], node: Place) -> tuple[int, int]:
    assert node.end_lineno is not None and node.end_col_offset is not None
    return (
        lines[node.lineno - 1] + node.col_offset,
        lines[node.end_lineno - 1] + node.end_col_offset,
    )


def _faults(node: ast.AST, function: str) -> Iterator[Fault]:
    """The faults at `node` and below it."""
    if isinstance(node, ast.FunctionDef | ast.ClassDef):
        function = f"{function}.{node.name}".lstrip(".")
    for place, operator, after in _here(node):
        yield place, function, operator, after
    for child in _children(node):
        yield from _faults(child, function)


def _children(node: ast.AST) -> Iterator[ast.AST]:
    """The parts of `node` in which faults are made."""
    if isinstance(node, ast.Raise | ast.Import | ast.ImportFrom | ast.Assert | ast.JoinedStr):
        return
    if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) in ("__slots__", "__all__"):
        return
    for name, value in ast.iter_fields(node):
        if name in ("annotation", "returns", "decorator_list", "bases", "func", "type_params"):
            if name == "func" and isinstance(value, ast.Attribute):
                yield value.value
            continue
        for child in value if isinstance(value, list) else [value]:
            if isinstance(child, ast.keyword) and child.arg == "strict":
                continue
            if isinstance(child, ast.AST):
                yield child


def _here(node: ast.AST) -> Iterator[tuple[Place, str, str]]:
    """(what is replaced, operator, by which text) of one node alone."""
    match node:
        case ast.Compare():
            yield from _compared(node)
        case ast.BinOp():
            yield from _binary(node)
        case ast.AugAssign() if type(node.op) in ARITHMETIC:
            changed = copy.deepcopy(node)
            changed.op = ARITHMETIC[type(node.op)]()
            yield node, "arithmetic", ast.unparse(changed)
        case ast.BoolOp():
            changed_bool = copy.deepcopy(node)
            changed_bool.op = ast.Or() if isinstance(node.op, ast.And) else ast.And()
            yield node, "boolean", f"({ast.unparse(changed_bool)})"
        case ast.UnaryOp(op=ast.Not() | ast.USub()):
            if not isinstance(node.operand, ast.Constant) or isinstance(node.op, ast.Not):
                yield node, "unary", f"({ast.unparse(node.operand)})"
        case ast.Constant():
            yield from _constant(node)
        case ast.Call():
            yield from _called(node)
    yield from _conditions(node)
    yield from _statements(node)


def _compared(node: ast.Compare) -> Iterator[tuple[Place, str, str]]:
    for place, operator in enumerate(node.ops):
        if type(operator) in COMPARISONS:
            changed = copy.deepcopy(node)
            changed.ops[place] = COMPARISONS[type(operator)]()
            yield node, "comparison", f"({ast.unparse(changed)})"


def _binary(node: ast.BinOp) -> Iterator[tuple[Place, str, str]]:
    if isinstance(node.op, ast.Add | ast.Mult) and any(
        isinstance(side, SEQUENCES) or (isinstance(side, ast.Constant) and _is_text(side))
        for side in (node.left, node.right)
    ):
        return
    by_one = isinstance(node.op, ast.Mult | ast.Div) and ast.unparse(node.right) in ONES
    if type(node.op) in ARITHMETIC and not by_one:
        changed = copy.deepcopy(node)
        changed.op = ARITHMETIC[type(node.op)]()
        yield node, "arithmetic", f"({ast.unparse(changed)})"
    if isinstance(node.op, ORDERED):
        swapped = copy.deepcopy(node)
        swapped.left, swapped.right = swapped.right, swapped.left
        yield node, "swapped operands", f"({ast.unparse(swapped)})"


def _is_text(node: ast.expr) -> bool:
    return isinstance(node, ast.Constant) and isinstance(node.value, str | bytes)


def _constant(node: ast.Constant) -> Iterator[tuple[Place, str, str]]:
    if isinstance(node.value, bool):
        yield node, "boolean", str(not node.value)
    elif isinstance(node.value, int | float):
        steps = [step for step in (1, -1) if node.value + step != node.value]
        for step in steps:
            yield node, "constant", f"({node.value + step!r})"


def _called(node: ast.Call) -> Iterator[tuple[Place, str, str]]:
    if isinstance(node.func, ast.Attribute) and not node.args and not node.keywords:
        yield node, "removed call", ast.unparse(node.func.value)
    if ast.unparse(node.func) in ("abs", "np.abs", "sorted", "reversed") and len(node.args) == 1:
        yield node, "removed call", f"({ast.unparse(node.args[0])})"
    for left, right in zip(range(len(node.args)), range(1, len(node.args)), strict=False):
        pair = (node.args[left], node.args[right])
        same = ast.unparse(pair[0]) == ast.unparse(pair[1])
        fixed = same or any(isinstance(one, ast.Starred) or _is_text(one) for one in pair)
        if not fixed and ast.unparse(node.func) not in UNORDERED:
            swapped = copy.deepcopy(node)
            swapped.args[left], swapped.args[right] = swapped.args[right], swapped.args[left]
            yield node, "swapped arguments", ast.unparse(swapped)
    for place, keyword in enumerate(node.keywords):
        if keyword.arg not in (None, "strict"):
            fewer = copy.deepcopy(node)
            del fewer.keywords[place]
            yield node, "removed argument", ast.unparse(fewer)


def _conditions(node: ast.AST) -> Iterator[tuple[Place, str, str]]:
    tests: list[ast.expr] = []
    if isinstance(node, ast.If | ast.While | ast.IfExp):
        tests = [node.test]
    elif isinstance(node, ast.comprehension):
        tests = node.ifs
    for test in tests:
        yield test, "negated condition", f"(not ({ast.unparse(test)}))"


def _statements(node: ast.AST) -> Iterator[tuple[Place, str, str]]:
    match node:
        case ast.Expr(value=ast.Call()) | ast.AugAssign() | ast.Raise() | ast.Break():
            yield node, "removed statement", "pass"
        case ast.Continue():
            yield node, "removed statement", "pass"
        case ast.Assign(targets=[ast.Attribute() | ast.Subscript()]):
            yield node, "removed statement", "pass"
        case ast.Return(value=ast.expr() as value) if not (
            isinstance(value, ast.Constant) and value.value is None
        ):
            yield node, "removed return", "return None"
