"""Runs a program over data, within a budget: a template comes with a model, which comes from anywhere."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

from corectl.prompt.budget import OutOfTime, metered
from corectl.prompt.gotemplate.builtins import LAZY, PRINTING, call
from corectl.prompt.gotemplate.lexer import fail
from corectl.prompt.gotemplate.nodes import (
    Action,
    Body,
    Branch,
    Chain,
    Dot,
    Expr,
    Field,
    Function,
    Include,
    Jump,
    Literal,
    Node,
    Pipe,
    Program,
    Range,
    Text,
    Variable,
)
from corectl.prompt.gotemplate.values import MAX_OUTPUT, Fault, Record, bulk, kind, show, truth

MAX_STEPS = 2_000_000
# Bodies inside bodies, counted through included templates.
_MAX_DEPTH = 80
# Work on text costs one step more for each so many characters.
_STEP_CHARS = 256
_STEP_ITEMS = 1024
# So many variables are passed over in the time of a step.
_STEP_VARIABLES = 16
# The clock is looked at after so many steps.
_CHECK_EVERY = 64


def execute(program: Program, data: Mapping[str, Any]) -> str:
    """The text that a program makes of `data`, which is both dot and `$`."""
    with metered() as check_time:
        run = _Run(program, data, check_time)
        try:
            run.body(program.root, data)
        except Fault as fault:
            fail(run.line, str(fault))
        except OutOfTime as error:
            raise OutOfTime(f"template: :{run.line}: {error.message}") from error
        except RecursionError:
            fail(run.line, "the template is nested too deeply")
        # What Python makes of numbers beyond Go's.
        except (ArithmeticError, MemoryError, ValueError) as error:
            fail(run.line, f"{error or type(error).__name__}")
        return "".join(run.output)


class _Run:
    def __init__(self, program: Program, data: Mapping[str, Any], check_time: Callable[[], None]) -> None:
        self.output: list[str] = []
        self.line = 1
        self._program = program
        self._variables: list[tuple[str, Any]] = [("$", data)]
        self._check_time = check_time
        self._steps = 0
        self._checked = 0
        self._written = 0
        self._depth = 0

    def _spend(self, steps: int = 1) -> None:
        self._steps += steps
        if self._steps > MAX_STEPS:
            raise Fault("the template takes too many steps")
        if self._steps - self._checked >= _CHECK_EVERY:
            self._checked = self._steps
            self._check_time()

    def _write(self, text: str) -> None:
        self._written += len(text)
        if self._written > MAX_OUTPUT:
            raise Fault("the template makes too much text")
        self.output.append(text)

    def body(self, nodes: Body, dot: Any) -> str:
        """Walk nodes. Returns `break` or `continue` when one was met, which ends the walk, or nothing."""
        self._depth += 1
        if self._depth > _MAX_DEPTH:
            raise Fault("exceeded maximum template depth")
        jump = ""
        for node in nodes:
            self._spend()
            jump = self._node(node, dot)
            if jump:
                break
        self._depth -= 1
        return jump

    def _node(self, node: Node, dot: Any) -> str:
        match node:
            case Text(text):
                self._write(text)
            case Action(pipe):
                value = self._pipe(pipe, dot)
                if not pipe.targets:
                    self._write(show(value))
            case Branch():
                return self._scoped(lambda: self._branch(node, dot))
            case Range():
                return self._scoped(lambda: self._range(node, dot))
            case Jump(kind):
                return kind
            case Include():
                self._include(node, dot)
        return ""

    def _scoped(self, walk: Callable[[], str]) -> str:
        mark = len(self._variables)
        jump = walk()
        del self._variables[mark:]
        return jump

    def _branch(self, node: Branch, dot: Any) -> str:
        for arm in node.arms:
            value = self._pipe(arm.pipe, dot)
            if truth(value):
                return self.body(arm.body, value if node.sets_dot else dot)
        return self.body(node.otherwise, dot)

    def _range(self, node: Range, dot: Any) -> str:
        value = self._pipe(node.pipe, dot)
        if isinstance(value, dict):
            # Its keys are sorted first.
            self._spend(len(value))
        count = 0
        for key, item in _pairs(value):
            count += 1
            self._spend()
            mark = len(self._variables)
            self._set_range(node.pipe, key, item)
            jump = self.body(node.body, item)
            del self._variables[mark:]
            if jump == "break":
                break
        return "" if count else self.body(node.otherwise, dot)

    def _set_range(self, pipe: Pipe, key: Any, item: Any) -> None:
        values = (item,) if len(pipe.targets) == 1 else (key, item)
        for name, value in zip(pipe.targets, values, strict=False):
            if pipe.assigns:
                self._assign(name, value)
            else:
                self._variables.append((name, value))

    def _include(self, node: Include, dot: Any) -> None:
        self.line = node.line
        value = None if node.pipe is None else self._pipe(node.pipe, dot)
        body = self._program.templates.get(node.name, self._program.root)
        variables, self._variables = self._variables, [("$", value)]
        self.body(body, value)
        self._variables = variables

    def _assign(self, name: str, value: Any) -> None:
        self._variables[self._find(name)] = (name, value)

    def _pipe(self, pipe: Pipe, dot: Any) -> Any:
        self.line = pipe.line
        carried: tuple[Any, ...] = ()
        for command in pipe.commands:
            carried = (self._command(command, dot, carried),)
        value = carried[0]
        # The variables of a range get each item, not the list. Only a range has two.
        for name in pipe.targets:
            if pipe.assigns:
                self._assign(name, value)
            else:
                self._variables.append((name, value))
        return value

    def _command(self, operands: tuple[Expr, ...], dot: Any, carried: tuple[Any, ...]) -> Any:
        self._spend()
        first, rest = operands[0], operands[1:]
        if not isinstance(first, Function):
            if rest or carried:
                raise Fault("can't give argument to non-function")
            return self._value(first, dot)
        if first.name in LAZY:
            return self._lazy(first.name, rest, dot, carried)
        arguments = [*(self._value(operand, dot) for operand in rest), *carried]
        if first.name in PRINTING:
            self._charge_printing(arguments)
        for argument in arguments:
            self._charge(argument)
        result = call(first.name, arguments)
        self._charge(result)
        return result

    def _charge(self, value: Any) -> None:
        if isinstance(value, str):
            if len(value) > MAX_OUTPUT:
                raise Fault("the template makes too much text")
            self._spend(len(value) // _STEP_CHARS)
        elif isinstance(value, list | tuple | dict):
            self._spend(len(value) // _STEP_ITEMS)

    def _charge_printing(self, arguments: list[Any]) -> None:
        size = sum(len(item) if isinstance(item, str) else bulk(item) for item in arguments)
        if size > MAX_OUTPUT:
            raise Fault("the template makes too much text")
        self._spend(size // _STEP_CHARS)

    def _lazy(self, name: str, operands: tuple[Expr, ...], dot: Any, carried: tuple[Any, ...]) -> Any:
        if not operands and not carried:
            raise Fault(f"wrong number of args for {name}: want at least 1 got 0")
        value: Any = None
        for operand in operands:
            value = self._value(operand, dot)
            if truth(value) == (name == "or"):
                return value
        return carried[0] if carried else value

    def _value(self, expr: Expr, dot: Any) -> Any:
        match expr:
            case Field(names):
                return _walk(dot, names)
            case Variable(name, names):
                return _walk(self._variable(name), names)
            case Literal(value):
                return value
            case Dot():
                return dot
            case Pipe():
                return self._pipe(expr, dot)
            case Chain(value, names):
                return _walk(self._value(value, dot), names)
            case _:
                return self._command((expr,), dot, ())

    def _variable(self, name: str) -> Any:
        return self._variables[self._find(name)][1]

    def _find(self, name: str) -> int:
        for at in range(len(self._variables) - 1, -1, -1):
            if self._variables[at][0] == name:
                self._spend((len(self._variables) - at) // _STEP_VARIABLES)
                return at
        raise Fault(f"undefined variable: {name}")


def _walk(value: Any, names: Iterable[str]) -> Any:
    for name in names:
        match value:
            case Record():
                value = value.fields.get(name)
            case dict():
                value = value.get(name)
            case None:
                return None
            case _:
                raise Fault(f"can't evaluate field {name} in type {kind(value)}")
    return value


def _pairs(value: Any) -> Iterable[tuple[Any, Any]]:
    match value:
        case None:
            return ()
        case list() | tuple():
            return enumerate(value)
        case dict():
            return [(key, value[key]) for key in sorted(value, key=str)]
        case int() if not isinstance(value, bool):
            return ((number, number) for number in range(value))
        case _:
            raise Fault(f"range can't iterate over {show(value)[:50]}")
