"""Small faults of a source text, made by rule: one operator, comparison, number or statement each.

What is never run as arithmetic is left alone: docstrings, annotations, decorators, messages.
"""

from __future__ import annotations

import ast
import copy
from collections import Counter
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
OPERATORS: dict[type[ast.operator], type[ast.operator]] = {
    ast.Add: ast.Sub,
    ast.Sub: ast.Add,
    ast.Mult: ast.Div,
    ast.Div: ast.Mult,
    ast.FloorDiv: ast.Mult,
    ast.Mod: ast.FloorDiv,
    ast.Pow: ast.Mult,
    ast.LShift: ast.RShift,
    ast.BitAnd: ast.BitOr,
    ast.BitOr: ast.BitAnd,
}
NAMES = {
    "all": "any",
    "any": "all",
    "argmax": "argmin",
    "cos": "sin",
    "floor": "ceil",
    "issubset": "issuperset",
    "max": "min",
    "min": "max",
    "ones": "zeros",
    "sin": "cos",
    "zeros": "ones",
}
NUDGE = 1 + 2.0**-20  # a number of the same size, and another


@dataclass(frozen=True)
class Mutant:
    """A file with one fault in it.

    Attributes
    ----------
    name : str
        File, function, the text that was and the one that is: the same after edits elsewhere.
    lines : range
        Where in the file it stands.
    text, start, stop, after : bytes, int, int, bytes
        The whole file, and which of its bytes are replaced by what.
    """

    file: str
    name: str
    lines: range
    text: bytes
    start: int
    stop: int
    after: bytes

    @property
    def source(self) -> str:
        """The whole file with the fault."""
        return (self.text[: self.start] + self.after + self.text[self.stop :]).decode()

    @property
    def differs(self) -> bool:
        """Whether it is another program, and one."""
        try:
            code = compile(self.source, self.file, "exec", dont_inherit=True)
        except (SyntaxError, ValueError):
            return False
        return code != compile(self.text, self.file, "exec", dont_inherit=True)


def mutants(source: str, file: str) -> list[Mutant]:
    """Every mutant of a source text; a few are no other program, see `Mutant.differs`."""
    text = source.encode()
    starts = [0]
    for line in text.splitlines(keepends=True):
        starts.append(starts[-1] + len(line))
    counts: Counter[str] = Counter()
    made = []
    for node, function in _places(ast.parse(source), "", exempt=False):
        start = starts[node.lineno - 1] + node.col_offset
        stop = starts[node.end_lineno - 1] + node.end_col_offset
        before = " ".join(text[start:stop].decode().split())
        for new in _changes(node):
            after = new if isinstance(new, str) else ast.unparse(new)
            title = f"{file} {function}: {before} -> {' '.join(after.split())}"
            counts[title] += 1
            name = title if counts[title] == 1 else f"{title} ({counts[title]})"
            if isinstance(node, ast.expr) and not isinstance(node, ast.Slice):
                after = f"({after})"
            lines = range(node.lineno, node.end_lineno + 1)
            made.append(Mutant(file, name, lines, text, start, stop, after.encode()))
    return made


def _places(node: ast.AST, function: str, exempt: bool) -> Iterator[tuple[ast.AST, str]]:
    """The nodes that may be changed, each with the function that it is in."""
    if not exempt and isinstance(node, (ast.expr, ast.stmt)):
        yield node, function or "module"
    if isinstance(node, (ast.FunctionDef, ast.ClassDef)):
        function = f"{function}.{node.name}".lstrip(".")
    for name, value in ast.iter_fields(node):
        children = value if isinstance(value, list) else [value]
        for child in children:
            if isinstance(child, ast.AST) and not _is_prose(node, name, child):
                yield from _places(child, function, exempt=False)


def _is_prose(parent: ast.AST, name: str, child: ast.AST) -> bool:
    """Whether a node is read and not run: a docstring, an annotation, a decorator, a message."""
    if name in ("annotation", "returns", "decorator_list", "type_params"):
        return True
    if isinstance(child, (ast.JoinedStr, ast.Import, ast.ImportFrom)):
        return True
    if isinstance(parent, ast.Raise):
        return True
    if isinstance(child, ast.Call) and ast.unparse(child.func) == "Weaker":  # a stored fault
        return True
    if isinstance(child, ast.Expr) and isinstance(child.value, ast.Constant):
        return True
    typing = isinstance(parent, ast.Assign) and isinstance(parent.value, ast.Subscript)
    return typing and ast.unparse(parent.value).startswith(("Callable[", "tuple[", "dict["))


def _changes(node: ast.AST) -> Iterator[ast.AST | str]:
    """What may stand in the place of a node."""
    if isinstance(node, ast.stmt):
        yield from _other_statements(node)
    elif isinstance(node, (ast.Constant, ast.Name, ast.Attribute)):
        yield from _other_atoms(node)
    elif isinstance(node, ast.expr):
        yield from _other_expressions(node)


def _other_statements(node: ast.stmt) -> Iterator[ast.AST | str]:
    if isinstance(node, ast.Expr) and isinstance(node.value, ast.Call):
        yield "pass"
    if isinstance(node, ast.Assign) and not isinstance(node.targets[0], (ast.Name, ast.Tuple)):
        yield "pass"
    if isinstance(node, (ast.AugAssign, ast.Raise, ast.Delete)):
        yield "pass"
    if isinstance(node, ast.AugAssign) and type(node.op) in OPERATORS:
        yield _with(node, op=OPERATORS[type(node.op)]())
    if isinstance(node, (ast.Break, ast.Continue)):
        yield "break" if isinstance(node, ast.Continue) else "continue"


def _other_atoms(node: ast.Constant | ast.Name | ast.Attribute) -> Iterator[ast.AST | str]:
    if isinstance(node, ast.Name) and node.id in NAMES:
        yield NAMES[node.id]
    if isinstance(node, ast.Attribute) and node.attr in NAMES:
        yield _with(node, attr=NAMES[node.attr])
    if isinstance(node, ast.Constant) and isinstance(node.value, bool):
        yield repr(not node.value)
    elif isinstance(node, ast.Constant) and isinstance(node.value, int):
        yield repr(node.value + 1)
        yield repr(node.value - 1)
    elif isinstance(node, ast.Constant) and isinstance(node.value, float):
        yield repr(2.0 * node.value or 1.0)
        yield repr(NUDGE * node.value or 2.0**-20)
    elif isinstance(node, ast.Constant) and _is_key(node.value):
        yield repr(f"{node.value}_")


def _is_key(value: object) -> bool:
    """Whether a constant is a text without blanks: a key or a name, and no message."""
    return isinstance(value, str) and bool(value) and " " not in value


def _other_expressions(node: ast.expr) -> Iterator[ast.AST | str]:
    if isinstance(node, ast.Compare):
        for index, operator in enumerate(node.ops):
            ops = list(node.ops)
            ops[index] = COMPARISONS[type(operator)]()
            yield _with(node, ops=ops)
    if isinstance(node, ast.BinOp) and type(node.op) in OPERATORS:
        yield _with(node, op=OPERATORS[type(node.op)]())
    if isinstance(node, ast.BoolOp):
        yield _with(node, op=ast.Or() if isinstance(node.op, ast.And) else ast.And())
        for index in range(len(node.values)):
            yield _with(node, values=node.values[:index] + node.values[index + 1 :])
    if isinstance(node, ast.UnaryOp):
        yield node.operand
    if isinstance(node, ast.IfExp):
        yield node.body
        yield node.orelse
    if isinstance(node, ast.Slice):
        if node.lower is not None:
            yield _with(node, lower=None)
        if node.upper is not None:
            yield _with(node, upper=None)
    if isinstance(node, ast.Call):
        yield from _other_calls(node)


def _other_calls(node: ast.Call) -> Iterator[ast.AST | str]:
    """Without a keyword, with two arguments exchanged, or an argument itself."""
    for index in range(len(node.keywords)):
        yield _with(node, keywords=node.keywords[:index] + node.keywords[index + 1 :])
    if len(node.args) >= 2 and not any(isinstance(value, ast.Starred) for value in node.args):
        yield _with(node, args=[node.args[1], node.args[0], *node.args[2:]])
    values = [value for value in node.args if isinstance(value, (ast.Call, ast.Name))]
    if values and isinstance(node.func, ast.Attribute):
        yield values[0]


def _with(node: ast.AST, **changes: object) -> ast.AST:
    """A copy of a node with other fields."""
    made = copy.copy(node)
    for name, value in changes.items():
        setattr(made, name, value)
    return made
