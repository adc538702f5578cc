"""Everything that is run on this project: `python -m nox -s NAME`, or `python -m nox --list`.

All sessions but `lint`, `docs`, `launchers`, `oldest` and `wheel` share one environment below `.nox`: an environment
with torch takes gigabytes.
"""

import hashlib
import os
import re
import shlex
import shutil
import sys
from pathlib import Path

import nox

nox.needs_version = ">=2025.2.9"
nox.options.sessions = ["lint", "types", "tests"]

ROOT = Path(__file__).parent
SHARED = ROOT / ".nox" / f"shared-{sys.version_info.major}.{sys.version_info.minor}"
# One process per core; what a module prepares once stays in one process.
PARALLEL = ("-n", "auto", "--dist", "loadscope")
BIN = "Scripts" if os.name == "nt" else "bin"


def install(session: nox.Session, python: Path, *requirements: str) -> None:
    """Install requirements, after the build of torch that KE_TORCH asks for (arguments of pip), if any."""
    session.log("Installing; the first time this fetches torch, which takes some minutes.")
    pip = [str(python), "-m", "pip", "install", "--quiet"]
    if torch := os.environ.get("KE_TORCH"):
        session.run(*pip, *shlex.split(torch), external=True)
    session.run(*pip, *requirements, external=True)


def shared(session: nox.Session, *groups: str) -> Path:
    """Create or complete the shared environment and return its Python.

    What is installed is written down in it, so that nothing is done twice; a changed pyproject.toml or KE_TORCH starts
    the environment's books anew.
    """
    python = SHARED / BIN / "python"
    if not python.exists():
        session.run(sys.executable, "-m", "virtualenv", "--quiet", str(SHARED), external=True)
    project = nox.project.load_toml(ROOT / "pyproject.toml")
    asked = (ROOT / "pyproject.toml").read_text(encoding="utf-8") + os.environ.get("KE_TORCH", "")
    key = hashlib.sha256(asked.encode()).hexdigest()
    books = SHARED / "installed.txt"
    installed = books.read_text(encoding="utf-8").split() if books.exists() else []
    if not installed or installed[0] != key:
        installed = [key]
    if missing := {"app", *groups} - set(installed):
        tools = nox.project.dependency_groups(project, *sorted(missing - {"app"}))
        own = ["--editable", f"{ROOT}[app]"] if "app" in missing else []
        install(session, python, *own, *tools)
        books.write_text("\n".join([*installed, *sorted(missing)]), encoding="utf-8")
    return python


def run(session: nox.Session, python: Path, *arguments: str, **env: str) -> None:
    """Run the shared environment's Python."""
    session.run(str(python), *arguments, external=True, env=env or None)


@nox.session(venv_backend="none")
def demo(session: nox.Session) -> None:
    """Train on the embedded images in a few minutes; arguments after -- go to ke-train."""
    shared(session)
    arguments = session.posargs
    if not any(argument.startswith("experiment=") for argument in arguments):
        arguments = ["experiment=demo", *arguments]
    session.run(str(SHARED / BIN / "ke-train"), *arguments, external=True)


@nox.session(venv_backend="none")
def tests(session: nox.Session) -> None:
    """Run the fast tests, or the ones named after --."""
    python = shared(session, "test")
    run(session, python, "-m", "pytest", *PARALLEL, *session.posargs, OMP_NUM_THREADS="1")


@nox.session(venv_backend="none")
def slow(session: nox.Session) -> None:
    """Run the slow tests."""
    python = shared(session, "test", "neighbours", "benchmarks")
    run(session, python, "-m", "pytest", *PARALLEL, "-m", "slow", *session.posargs, OMP_NUM_THREADS="1")


@nox.session(venv_backend="virtualenv", python="3.10", reuse_venv=True)
def oldest(session: nox.Session) -> None:
    """Run the fast tests with the oldest torch and Lightning that pyproject.toml allows, or the tests after --."""
    project = nox.project.load_toml(ROOT / "pyproject.toml")
    declared = [*project["project"]["dependencies"], *project["project"]["optional-dependencies"]["app"]]
    bounds = re.compile(r"(torch|torchvision|torchmetrics|lightning|pytorch-lightning)>=([\d.]+)")
    pins = [f"{found[1]}=={found[2]}.*" for found in map(bounds.match, declared) if found]
    session.install(*pins, "--editable", f"{ROOT}[app]", *nox.project.dependency_groups(project, "test"))
    session.run("python", "-m", "pytest", *PARALLEL, *session.posargs, env={"OMP_NUM_THREADS": "1"})


@nox.session(venv_backend="none")
def chaos(session: nox.Session) -> None:
    """Kill a training 50 times at random moments and compare; arguments after --, such as --kills 200 --seed 1."""
    run(session, shared(session, "test"), "-m", "tests.callback.chaos", *session.posargs, OMP_NUM_THREADS="1")


@nox.session(venv_backend="none")
def compatibility(session: nox.Session) -> None:
    """Write docs/compatibility.md from the tests that are marked for it."""
    python = shared(session, "test", "neighbours")
    options = ("-p", "tests.compatibility", "--write-compatibility", "docs/compatibility.md", "-m", "compat")
    run(session, python, "-m", "pytest", *PARALLEL, *options, *session.posargs, OMP_NUM_THREADS="1")


@nox.session(venv_backend="virtualenv", reuse_venv=True)
def lint(session: nox.Session) -> None:
    """Check style and format."""
    session.install(*nox.project.dependency_groups(nox.project.load_toml(ROOT / "pyproject.toml"), "lint"))
    session.run("ruff", "check", ".")
    session.run("ruff", "format", "--check", ".")


@nox.session(venv_backend="none")
def types(session: nox.Session) -> None:
    """Check types."""
    run(session, shared(session, "types"), "-m", "mypy")


@nox.session(venv_backend="virtualenv", reuse_venv=True)
def docs(session: nox.Session) -> None:
    """Build the site below `site`, strictly; with -- serve, show it while it is written."""
    session.install(*nox.project.dependency_groups(nox.project.load_toml(ROOT / "pyproject.toml"), "docs"))
    session.run("zensical", *(session.posargs or ["build", "--strict", "--clean"]))


@nox.session(venv_backend="virtualenv")
def wheel(session: nox.Session) -> None:
    """Build the wheel, install it into an empty environment, and use it outside the source tree."""
    built = Path(session.create_tmp()).resolve() / "wheel"
    shutil.rmtree(built, ignore_errors=True)
    python = Path(session.virtualenv.location) / BIN / "python"
    session.run(str(python), "-m", "pip", "wheel", "--quiet", "--no-deps", "--wheel-dir", str(built), str(ROOT))
    (file,) = built.glob("*.whl")
    install(session, python, str(file))
    with session.chdir(built):
        session.run(str(python), str(ROOT / "tests" / "installed.py"), "core")
        install(session, python, f"{file}[app]")
        session.run(str(python), str(ROOT / "tests" / "installed.py"), "app")
        session.run("ke-train", "--help", silent=True)
        session.run("ke-train", "experiment=smoke", "hydra.run.dir=smoke", "trainer.enable_progress_bar=false")
        session.run("ke-slim", "smoke/checkpoints/last.ckpt", "smoke/last-slim.safetensors")
        session.run("ke-report", "smoke")
        # A study as users do one, and the figures that came of it.
        install(session, python, f"{file}[app,wandb]")
        nobody = {"WANDB_MODE": "offline", "WANDB_SILENT": "true", "HOME": str(built)}
        sweep = ("-m", "experiment=smoke", "split.rate=0.3,0.5,0.8", "logger=wandb", "generations.count=2")
        session.run("ke-train", *sweep, "trainer.enable_progress_bar=false", env=nobody)
        session.run("ke-report", "multirun/smoke")
        session.run("ke-dashboard", "--entity", "nobody", "--project", "knowledge-evolution", env=nobody)
        session.run(str(python), str(ROOT / "tests" / "installed.py"), "study")


@nox.session(venv_backend="virtualenv", reuse_venv=True)
def launchers(session: nox.Session) -> None:
    """Run sweeps with every launcher: joblib, ray, submitit, and SLURM where it is installed and this is root."""
    test = nox.project.dependency_groups(nox.project.load_toml(ROOT / "pyproject.toml"), "test")
    install(session, Path(session.virtualenv.location) / BIN / "python", "--editable", f"{ROOT}[app,launchers]", *test)
    session.run("python", "-m", "pytest", "-m", "slow", "tests/app/test_launchers.py", *session.posargs)
