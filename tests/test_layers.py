"""Which room may import which, and that no two modules import each other, read from the source.

cli, api and tools -> workflow -> train | export | infer | bench -> core, and bench -> infer.
"""

import ast
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
TOP = "rtk"
"""The modules at the root: __init__ and __main__."""
BELOW_WORKFLOW = {"train", "export", "infer", "bench", "core"}
ALLOWED = {
    "core": {"core"},
    "train": {"train", "core"},
    "export": {"export", "core"},
    "infer": {"infer", "core"},
    "bench": {"bench", "infer", "core"},
    "workflow": {"workflow", *BELOW_WORKFLOW},
    "cli": {"cli", "workflow", *BELOW_WORKFLOW},
    "api": {"api", "workflow", *BELOW_WORKFLOW},
    "tools": {"tools", "cli", "workflow", *BELOW_WORKFLOW},
    TOP: {TOP, "cli", "api", "workflow", *BELOW_WORKFLOW},
}
ROOMS = tuple(room for room in ALLOWED if room != TOP)
HEAVY = {
    "torch",
    "onnx",
    "onnxruntime",
    "tensorrt",
    "tensorrt_rtx",
    "pycuda",
    "matplotlib",
    "pooch",
    "keras",
    "openvino",
}
LIGHT_MODULES = {
    # module: libraries that importing it must not load
    "rtk": HEAVY,
    "rtk.cli.app": HEAVY,
    "rtk.train.config": HEAVY,
    "rtk.core.card": HEAVY,
    "rtk.core.data.datasets": HEAVY,
    "rtk.core.data.images": HEAVY,
    "rtk.core.machine": HEAVY,
    "rtk.core.models.names": HEAVY,
    "rtk.core.probe": HEAVY,
    "rtk.core.artifacts.graph": HEAVY - {"onnx"},
    "rtk.infer.backend": HEAVY,
    "rtk.infer.open_backend": HEAVY,
    "rtk.infer.sources.listing": HEAVY,
    "rtk.infer.classify": HEAVY,
    "rtk.infer.onnx_backend": HEAVY - {"onnxruntime"},
}


def source_files() -> dict[str, Path]:
    """Every module of the package by its full name, without tests."""
    paths = [*ROOT.glob("*.py"), *(path for room in ROOMS for path in (ROOT / room).rglob("*.py"))]
    paths = [path for path in paths if (path.parent / "__init__.py").is_file()]  # tools/gpu/ holds scripts
    modules = {}
    for path in paths:
        parts = path.relative_to(ROOT).with_suffix("").parts
        modules[".".join(("rtk", *(part for part in parts if part != "__init__")))] = path
    return modules


MODULES = source_files()


def statements(tree: ast.AST, *, at_import: bool) -> Iterator[ast.Import | ast.ImportFrom]:
    """The import statements; `at_import`: only those that run when the module is imported."""
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.Import | ast.ImportFrom):
            yield node
        elif not (at_import and runs_later(node)):
            yield from statements(node, at_import=at_import)


def runs_later(node: ast.AST) -> bool:
    """Whether the code inside does not run when the module is imported."""
    if isinstance(node, ast.If):
        return "TYPE_CHECKING" in ast.unparse(node.test)
    return isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda)


def imports(module: str, *, at_import: bool = False) -> set[str]:
    """Full names of what the module imports: a module if one has that name, else the package it comes from."""
    path, found = MODULES[module], set()
    package = module.split(".") if path.name == "__init__.py" else module.split(".")[:-1]
    for node in statements(ast.parse(path.read_text()), at_import=at_import):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
            continue
        base = package[: len(package) - node.level + 1] if node.level else []
        origin = ".".join([*base, *([node.module] if node.module else [])])
        for alias in node.names:
            inner = f"{origin}.{alias.name}"
            found.add(inner if inner in MODULES else origin)
    return found


def room(module: str) -> str:
    first = module.split(".")[1] if "." in module else ""
    return first if first in ROOMS else TOP


def loaded_by(module: str) -> set[str]:
    """Everything that importing the module imports immediately; external packages by their first name."""
    found: set[str] = set()
    waiting = {module}
    while waiting:
        name = waiting.pop()
        if name not in MODULES:
            found.add(name.split(".")[0])
            continue
        found.add(name)
        parents = {".".join(name.split(".")[:depth]) for depth in range(1, name.count(".") + 1)}
        waiting |= (imports(name, at_import=True) | parents) - found
    return found


def circles(graph: Mapping[str, set[str]]) -> list[list[str]]:
    """The groups of modules of which each leads to every other, sorted. Imports in functions and for types count."""

    def reached(start: str) -> set[str]:
        found: set[str] = set()
        waiting = set(graph[start])
        while waiting:
            name = waiting.pop()
            found.add(name)
            waiting |= graph[name] - found
        return found

    leads_to = {name: reached(name) for name in graph}
    groups = {
        tuple(sorted(other for other in leads_to[name] if name in leads_to[other]))
        for name in graph
        if name in leads_to[name]
    }
    return [list(group) for group in sorted(groups)]


def test_every_room_is_read() -> None:
    assert {room(module) for module in MODULES} == {*ROOMS, TOP}
    assert imports("rtk.core.models.model") >= {"torch", "rtk.core.card", "rtk.core.models.names"}
    assert "rtk.infer.torch_backend" in imports("rtk.infer.open_backend")
    assert "rtk.infer.torch_backend" not in imports("rtk.infer.open_backend", at_import=True)
    assert "torch" in loaded_by("rtk.train.run")


@pytest.mark.parametrize("module", sorted(MODULES))
def test_a_module_imports_only_rooms_below_its_own(module: str) -> None:
    own = {name for name in imports(module) if name.split(".")[0] == "rtk" and name != "rtk"}
    wrong = {name for name in own if room(name) not in ALLOWED[room(module)]}
    assert not wrong


def test_no_modules_import_each_other_in_a_circle() -> None:
    assert circles({module: imports(module) & MODULES.keys() for module in MODULES}) == []


def test_a_circular_import_is_found() -> None:
    assert circles({"a": {"b"}, "b": {"c"}, "c": {"b"}, "d": {"a"}}) == [["b", "c"]]
    assert circles({"a": {"b"}, "b": set()}) == []


@pytest.mark.parametrize("module", sorted(MODULES))
def test_inside_the_package_imports_are_relative(module: str) -> None:
    for node in statements(ast.parse(MODULES[module].read_text()), at_import=False):
        if isinstance(node, ast.Import):
            assert not any(alias.name.split(".")[0] == "rtk" for alias in node.names)
        elif not node.level:
            assert (node.module or "").split(".")[0] not in ("rtk", *ROOMS, "cli", "workflow", "tools")


@pytest.mark.parametrize("module", LIGHT_MODULES)
def test_light_modules_load_no_heavy_library(module: str) -> None:
    assert not loaded_by(module) & LIGHT_MODULES[module]


def test_help_loads_nothing_heavy() -> None:
    program = (
        "import sys; from rtk.cli.app import main; sys.argv = ['rtk', '--help']\n"
        "try: main()\n"
        f"finally: print(sorted({HEAVY!r} & set(sys.modules)), file=sys.stderr)"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stderr.splitlines()[-1] == "[]"
    assert "train" in done.stdout
