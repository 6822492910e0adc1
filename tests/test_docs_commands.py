"""What README and the pages in docs say to type: it is typed here, in a clone of the repository.

What would take hours is tried in parts: an experiment runs as far as the stage that its parameters concern first, of a
target of make each program says that it knows the options. Pages with a test of their own are left to it.
"""

from __future__ import annotations

import re
import shlex
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from aerofuse.cli.main import COMMANDS
from aerofuse.tuning.settings import Setting, check_settings
from tests.imports import ROOT
from tests.inference.small_packages import write_small_package
from tests.ingest.fgvc_archive import make_fgvc, pack
from tests.ingest.photo_folder import draw_folder
from tests.new_python import check_in_new_python
from tests.pipeline import clone_on_a_shrunken_recipe, git, ran, run_dvc_warm, warm_environment
from tests.serving.photos import write_photo
from tests.tracking.servers import free_port

PAGES = [ROOT / "README.md", ROOT / "README.zh-CN.md", *sorted((ROOT / "docs").glob("*.md"))]
# Their commands stand in the English pages too: test_docs_chinese.py.
ORIGINALS = [page for page in PAGES if not page.name.endswith(".zh-CN.md")]
# Page: its own test.
ELSEWHERE = {
    "predict.md": "test_docs_predict.py",
    "serving.md": "serving/test_mlflow_serve.py",
    "experiments.md": "test_pipeline.py",
}
# The commands that add a remote, push to it and pull from it.
REMOTES = "test_remote.py"
ARCHIVE = "fgvc-aircraft-2013b.tar.gz"
# In place of what a reader has already.
MODEL = "from aerofuse.backbones import create_backbone\nmodel = create_backbone('convnext_thin')\n"
PREAMBLES = {
    "planner.md": f"from pathlib import Path\n{MODEL}",
    "photographs.md": """
from pathlib import Path
from PIL import Image
data = Path("fgvc-aircraft-2013b/data")
(data / "images").mkdir(parents=True)
for number, split in enumerate(("trainval", "test")):
    Image.new("RGB", (1024, 788 + number)).save(data / f"images/{number:07}.jpg")
    (data / f"images_variant_{split}.txt").write_text(f"{number:07} Embraer Legacy 600\\n")
""",
}


def blocks(page: Path) -> Iterator[tuple[str, str]]:
    """The language and the content of each block of code."""
    text = page.read_text(encoding="utf-8")
    yield from re.findall(r"^```(\w*)\n(.*?)^```$", text, re.DOTALL | re.MULTILINE)


def commands(page: Path) -> Iterator[str]:
    """The command lines of a page, without their comments."""
    for language, content in blocks(page):
        if language == "" and "├──" not in content and not content.startswith("batch "):
            for line in content.replace("\\\n", " ").splitlines():
                if command := re.sub(r"\s{2,}#.*", "", line).strip():
                    yield re.sub(r"\s+", " ", command)


TESTED_ELSEWHERE = {command for name in ELSEWHERE for command in commands(ROOT / "docs" / name)}
SEEN = dict.fromkeys(command for page in ORIGINALS if page.name not in ELSEWHERE for command in commands(page))
TRIED = [command for command in SEEN if command not in TESTED_ELSEWHERE]


@pytest.fixture(scope="module")
def clone(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A clone of the repository that its own origin may be pushed to, with an experiment and a model."""
    folder = clone_on_a_shrunken_recipe(tmp_path_factory.mktemp("clone") / "aerofuse")
    origin = folder.parent / "origin.git"
    git(folder.parent, "clone", "--quiet", "--bare", str(folder), str(origin))
    git(folder, "remote", "set-url", "origin", str(origin))
    run_dvc_warm(folder, "exp", "run", "--name", "tried", "-S", "seed=7", "check_params")
    write_small_package(folder / "models/aerofuse", "concat")
    return folder


def _run(command: str, folder: Path) -> str:
    program = 'python -c "import sys; from aerofuse.cli.main import main; sys.exit(main())"'
    done = subprocess.run(
        ["bash", "-c", re.sub(r"^aerofuse ", f"{program} ", command)],
        cwd=folder,
        env=warm_environment() | {"PYTHONPATH": str(ROOT / "src")},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, f"{command}\n{done.stdout[-2000:]}\n{done.stderr[-2000:]}"
    return done.stdout


def _experiment(command: str, clone: Path) -> None:
    """Up to the stage that reads the photos, where the command is about them, else up to the check of parameters."""
    stage = "prepare" if "data." in command else "check_params"
    git(clone, "checkout", "--quiet", "--force", "HEAD")
    if "data.source=table" in command:
        command = command.replace("$HOME", "")
        options = dict(option.partition("=")[::2] for option in shlex.split(command) if "=" in option)
        named = options.get("data.root", "data/photos").strip('"')
        root = clone.parent / named[1:] if named.startswith("/") else clone / named
        shutil.rmtree(root, ignore_errors=True)
        photos = draw_folder(root)
        photos.write()
        shutil.copyfile(photos.labels, root / "aircraft_labels.csv")
        command = command.replace(named, str(root)) if named.startswith("/") else command
    if ARCHIVE in command:
        _download(f"curl -LO https://example.org/{ARCHIVE}", clone)
    output = run_dvc_warm(clone, *shlex.split(command)[1:], stage).stdout
    assert stage in ran(output), output


def _download(command: str, clone: Path) -> None:
    """From a folder in place of Oxford's server."""
    made = clone.parent / "oxford"
    if not made.exists():
        pack(make_fgvc(made), made / ARCHIVE)
    _run(re.sub(r"https\S+/", f"{made.as_uri()}/", command), clone)
    assert (clone / ARCHIVE).is_file()


def _dvc(command: str, clone: Path) -> None:
    """With a result that differs from the committed one."""
    metrics = clone / "metrics/evaluate/hybrid.json"
    metrics.write_text(metrics.read_text(encoding="utf-8").replace("0.8", "0.7"), encoding="utf-8")
    assert run_dvc_warm(clone, *shlex.split(command.replace("NAME", "tried"))[1:]).stdout


def _make(command: str, clone: Path) -> None:
    """Each program that the target starts knows the options that it is given."""
    (clone / ".venv/bin").mkdir(parents=True, exist_ok=True)
    lines = _run(command.replace("make ", "make --dry-run ", 1), clone).splitlines()
    modules = [line for line in lines if line.startswith("python -m tools.")]
    for line in modules:
        _module(line.partition(" &")[0], clone)
    assert modules or any(line.split()[0] in ("dvc", "pytest", "mlflow", "aerofuse") for line in lines if line), lines


def _module(command: str, clone: Path) -> None:
    start, *options = re.split(r" (?=--)", command)
    variables, python, module = start.partition("python -m ")
    shown = _run(f"{variables}{python}{module.split()[0]} --help", clone)
    for option in options:
        assert option.split()[0] in shown, command


def _aerofuse(command: str, clone: Path) -> None:
    _run(command, clone)


def _tune(command: str, clone: Path) -> None:
    """It would train for long: its names are those of params.yaml, and its options are known."""
    settings = re.findall(r"([\w.]+)=(\S+)", command.partition(" --")[0])
    check_settings([Setting.parse(name, values) for name, values in settings])
    shown = _run("aerofuse tune --help", clone)
    for option in re.findall(r"--[a-z-]+", command):
        assert option in shown, command


def _torchrun(command: str, clone: Path) -> None:
    """On one machine, with a stage that takes a second."""
    here = {
        "--nnodes 2": "--nnodes 1",
        "--nproc-per-node 4": "--nproc-per-node 1",
        "stages.train train_stage_c": "stages.check_params",
    }
    for there, replacement in here.items():
        assert there in command
        command = command.replace(there, replacement)
    _run(re.sub(r"HOST:\d+", f"127.0.0.1:{free_port()}", command), clone)


def _remote(command: str, clone: Path) -> None:  # all ways are called alike
    text = "".join((ROOT / "tests" / name).read_text(encoding="utf-8") for name in (REMOTES, "s3_server.py"))
    assert '"push"' in text
    assert '"pull"' in text
    assert "docs/teams.md" in text  # from where the commands that add a remote are taken


WAYS: dict[str, Callable[[str, Path], None]] = {
    r"dvc exp run ": _experiment,
    r"dvc (remote|push|pull|repro)": _remote,
    r"dvc ": _dvc,
    r"make ": _make,
    r"(\w+=\S+ )?python -m ": _module,
    r"aerofuse tune ": _tune,
    r"aerofuse ": _aerofuse,
    r"(\w+=\S+ )?torchrun ": _torchrun,
    r"curl ": _download,
}


def test_the_pages_have_commands() -> None:
    assert len(TRIED) > 30
    for name, test in ELSEWHERE.items():
        assert list(blocks(ROOT / "docs" / name))
        assert (ROOT / "tests" / test).is_file()


@pytest.mark.slow
@pytest.mark.parametrize("command", TRIED)
def test_a_command_does_what_it_says(command: str, clone: Path) -> None:
    way = next((way for pattern, way in WAYS.items() if re.match(pattern, command)), None)
    assert way is not None, f"no test knows how to try `{command}`"
    way(command, clone)


PYTHON = [
    pytest.param(page.name, content, id=f"{page.stem}-{number}")
    for page in ORIGINALS
    if page.name not in ELSEWHERE
    for number, (language, content) in enumerate(blocks(page))
    if language == "python"
]


@pytest.mark.slow
@pytest.mark.parametrize(("page", "content"), PYTHON)
def test_a_piece_of_python_runs(page: str, content: str, tmp_path: Path) -> None:
    write_small_package(tmp_path / "models/aerofuse", "concat")
    write_photo(tmp_path / "photo.jpg")
    check_in_new_python(PREAMBLES.get(page, "") + content, tmp_path)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_what_is_named_between_lines_exists(page: Path) -> None:
    """Targets of make, subcommands and modules in backticks, and what links lead to."""
    text = page.read_text(encoding="utf-8")
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    for target in re.findall(r"`make ([a-z-]+)", text):
        assert re.search(rf"^{target}:", makefile, re.MULTILINE), target
    for command in re.findall(r"`aerofuse ([a-z]+)", text):
        assert command in COMMANDS
    for module in re.findall(r"`python -m ([\w.]+)", text):
        assert (ROOT / module.replace(".", "/")).with_suffix(".py").is_file(), module
    for link in re.findall(r"\]\(([^)#\s]+)[^)]*\)", text):
        assert link.startswith("https://") or (page.parent / link).exists(), link
