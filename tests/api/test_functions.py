"""The functions of the API have the options of the commands, and packages of the same names can be called."""

import copy
import importlib
import inspect
import os
import pickle
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import rtk
import typer
from rtk.cli.app import app
from rtk.core import errors

COMMANDS = {"train": "train", "evaluate": "eval", "export": "export", "bench": "bench"}
"""The command of each function."""
ONLY_COMMANDS = {"train": set[str](), "evaluate": set[str](), "export": set[str](), "bench": {"verbose"}}
"""Options without a parameter. `verbose` is about what is printed."""


def options(name: str) -> dict[str, Any]:
    """The parameters of a command, by the spelling of their options in snake case."""
    command = typer.main.get_command(app).commands[name]  # type: ignore[attr-defined]
    found = {}
    for one in command.params:
        if one.name in ("help", None):
            continue
        longest = max(one.opts, key=len)
        found[longest.removeprefix("--").replace("-", "_") if longest.startswith("--") else one.name] = one
    return found


@pytest.mark.parametrize("function", COMMANDS)
def test_the_parameters_are_the_options_of_the_command_with_their_defaults(function: str) -> None:
    parameters = inspect.signature(getattr(rtk, function)).parameters
    known = options(COMMANDS[function])
    assert set(parameters) == known.keys() - ONLY_COMMANDS[function]
    for name, parameter in parameters.items():
        of_command = known[name].default
        if known[name].param_type_name == "argument" and known[name].required:
            assert parameter.default is inspect.Parameter.empty, name
        else:
            assert parameter.default == (of_command if of_command != [] else None), name
        assert parameter.annotation is not inspect.Parameter.empty
    assert inspect.signature(getattr(rtk, function)).return_annotation is not inspect.Signature.empty


@pytest.mark.parametrize("order", ["import rtk.{0}.config", "rtk.{0}", "from rtk import {0}", "import rtk.api"])
@pytest.mark.parametrize("name", ["train", "export", "bench"])
def test_a_package_can_be_called_in_any_order_of_imports(
    name: str, order: str, in_new_process: Callable[[str], str]
) -> None:
    """The call fails at its first check, with the function's own error."""
    calls = {"train": "rtk.train()", "export": "rtk.export('a', precision='fp12')", "bench": "rtk.bench(limit=9.0)"}
    printed = in_new_process(
        f"import rtk\n{order.format(name)}\nimport rtk.{name}.config as config\n"
        f"assert rtk.{name}.config is config\n"
        f"try: {calls[name]}\nexcept rtk.UsageError as error: print(type(error).__name__)"
    )
    assert printed.strip() in ("UsageError", "UnknownNameError")


def test_help_shows_the_function_and_a_package_stays_a_package() -> None:
    package: Any = importlib.import_module("rtk.train")
    assert package is rtk.train
    assert inspect.ismodule(package)
    assert callable(package)
    assert str(inspect.signature(package)).startswith("(arch: str | None = None, *, net_arg:")
    assert package.__doc__.startswith("rtk.train(arch: str | None = None")
    assert "Train a network: data set -> checkpoint." in package.__doc__
    assert pickle.loads(pickle.dumps(package)) is package
    assert copy.deepcopy(package) is package
    assert importlib.reload(package) is package
    assert callable(package)


def test_every_public_error_comes_from_rtk() -> None:
    public = {name for name, one in vars(errors).items() if isinstance(one, type) and issubclass(one, errors.RtkError)}
    assert public <= set(rtk.__all__)
    for name in public:
        assert getattr(rtk, name) is getattr(errors, name)


def test_every_public_name_is_there_and_importing_rtk_stays_light(in_new_process: Callable[[str], str]) -> None:
    for name in rtk.__all__:
        assert getattr(rtk, name) is not None
        assert name in dir(rtk)
    assert set(rtk.LAZY) < set(rtk.__all__)
    printed = in_new_process(
        "import sys, rtk\nprint({'numpy', 'PIL', 'torch', 'onnxruntime', 'rtk.api', 'typer'} & {*sys.modules})\n"
        "rtk.train, rtk.bench, rtk.export\nprint('rtk.api' in sys.modules)\n"
        "rtk.evaluate, rtk.load\nprint('rtk.api' in sys.modules, 'torch' in sys.modules)"
    )
    assert printed.splitlines() == ["set()", "False", "True False"]


def test_options_without_an_effect_are_refused_as_by_the_command(tmp_path: Path) -> None:
    with pytest.raises(rtk.UsageError, match="--compare: leave out --dataset, --batch, which would have no effect"):
        rtk.bench(compare=(tmp_path, tmp_path), batch=4, dataset="shapes")  # type: ignore[call-overload]
    with pytest.raises(rtk.UsageError, match="--limit goes with --compare"):
        rtk.bench(limit=3.0)  # type: ignore[call-overload]
    with pytest.raises(rtk.UsageError, match="--out goes with --fit-temperature"):
        rtk.evaluate("resnet20v1-cifar10", out=tmp_path / "a.pt")
    with pytest.raises(rtk.UsageError, match="the architecture is missing"):
        rtk.train()
    with pytest.raises(rtk.UsageError, match="resume takes one run"):
        rtk.train(resume=tmp_path, seeds=2)
    with pytest.raises(rtk.UnknownNameError, match="'fp12' is unknown"):
        rtk.export("resnet20v1-cifar10", precision="fp12")


@pytest.mark.torch
def test_a_network_of_other_code_is_allowed_by_name_or_by_permission(
    class_folders: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("rtk.core.models.allowed_code._allowed", set[str]())
    options: dict[str, Any] = {"recipe": "quick", "epochs": 1, "compile": "off", "eval": False}
    network = {"net_arg": {"width": 4, "dropout": 0.1}, "dataset": class_folders, "out": tmp_path / "run"}
    trained = rtk.train("fakes.networks:Mobile", **network, **options)
    assert trained.card.arch == "fakes.networks:Mobile(width=4, dropout=0.1)"
    monkeypatch.setattr("rtk.core.models.allowed_code._allowed", set[str]())
    with pytest.raises(
        rtk.ArtifactError, match=r"add --allow-code fakes\.networks \(in Python: allow_code='fakes.netw"
    ):
        rtk.load(trained.best, backend="torch")
    with rtk.load(trained.best, backend="torch", allow_code="fakes.networks") as model:
        assert len(model.classify(class_folders)) == 36


def test_functions_print_nothing(
    shapes_model: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    result = rtk.evaluate(shapes_model, backend="torch", split="test", report=tmp_path / "eval")
    assert (tmp_path / "eval" / "eval.html").is_file()
    assert 0 <= result.correct <= result.images
    assert capfd.readouterr().out == ""


def test_a_failed_requirement_is_in_the_result_of_a_benchmark() -> None:
    from rtk.api import BenchResult
    from rtk.core.errors import InconclusiveError

    assert BenchResult(None).passed  # type: ignore[arg-type]
    assert not BenchResult(None, failure=InconclusiveError("too few images")).passed  # type: ignore[arg-type]


@pytest.mark.slow
def test_a_program_that_uses_everything_has_types_and_runs(tmp_path: Path) -> None:
    program = Path(__file__).with_name("user_program.py")
    (tmp_path / "user_program.py").write_text(program.read_text())
    (tmp_path / "made").mkdir()
    command = [sys.executable, "-m", "mypy", "--strict", "--config-file", "", "user_program.py"]
    environment = _as_installed(tmp_path / "installed")
    types = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
    assert types.returncode == 0, types.stdout + types.stderr
    (tmp_path / "wrong.py").write_text(
        "import rtk\nrtk.train(5)\nrtk.train('resnet8v1', epoch=3)\nrtk.load('a')(3)\n"
        "rtk.evaluate('a').first\nrtk.bench(compare=('a', 'b'), batch=3)\n"
    )
    command[-1] = "wrong.py"
    types = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
    found = {line.split(":")[1] for line in types.stdout.splitlines() if ": error:" in line}
    assert found == {"2", "3", "4", "5", "6"}, types.stdout
    words = [sys.executable, "-W", "error", "user_program.py", "made"]
    done = subprocess.run(words, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "{True} 13" in done.stdout
    assert done.stdout.splitlines()[-1].startswith("BackendError: resnet8v1-shapes-s0: the model is closed")


def _as_installed(folder: Path) -> dict[str, str]:
    """An environment in which rtk lies in a folder of installed packages: mypy reports no errors inside of these."""
    folder.mkdir()
    (folder / "rtk").symlink_to(Path(rtk.__file__).resolve().parent)
    others = {name: value for name, value in os.environ.items() if name != "MYPYPATH"}
    return {**others, "PYTHONPATH": os.pathsep.join([str(folder), *filter(None, [os.environ.get("PYTHONPATH")])])}
