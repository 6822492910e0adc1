"""A `python` that has imported torch and the like already, for the many stages that the long tests start.

A stage of a shrunken pipeline spends most of its time importing the same packages. Here one Python imports them once
and forks for each `python -m NAME` and `python -c CODE`. The project's own files are no part of that: each process
imports those of its own folder. What is done to the command is done to the process: a signal is passed on, its exit
status is given back, and where the command is killed the process is killed.
"""

from __future__ import annotations

import atexit
import json
import os
import runpy
import select
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import traceback
from contextlib import suppress
from functools import cache
from importlib import import_module
from pathlib import Path
from types import ModuleType

# What the stages import, themselves or through others. A process imports by itself what is not here.
PACKAGES = (
    "torch._dynamo",
    "torch._inductor.config",
    "torch.distributed.checkpoint",
    "torch.distributed.fsdp",
    "torch.distributed.run",
    "torch.export",
    "torch.onnx",
    "torch.utils.data",
    "torchmetrics.functional.classification",
    "timm",
    "accelerate",
    "albumentations",
    "altair",
    "captum.attr",
    "cv2",
    "imagehash",
    "jinja2",
    "mlflow",
    "mlflow.store.tracking.sqlalchemy_store",
    "mlflow.tracking",
    "networkx",
    "pandas",
    "pyarrow.parquet",
    "pydantic",
    "ruamel.yaml",
    "safetensors.torch",
    "scipy.optimize",
    "scipy.stats",
    "tabulate",
    "vl_convert",
)
EXTRAS = (
    "onnx",
    "onnxscript",
    "onnxscript.function_libs.torch_lib.ops",
)  # not onnxruntime: it starts threads, which a fork does not take with it
OWN = ("aerofuse", "stages", "tools", "tests")

_COMMAND = """#!{python} -IS
import os, sys
arguments = sys.argv[1:]
if arguments[:1] == ["-u"]:  # of torchrun
    os.environ["PYTHONUNBUFFERED"] = "1"
    del arguments[0]
if arguments[:1] not in (["-m"], ["-c"]):
    os.execv("{python}", ["{python}", *arguments])
import json, signal, socket
server = socket.socket(socket.AF_UNIX)
server.connect("{address}")
request = json.dumps([arguments, os.getcwd(), dict(os.environ)]).encode()
socket.send_fds(server, [len(request).to_bytes(8)], [0, 1, 2])
server.sendall(request)
process = int.from_bytes(server.recv(8))
def pass_on(number, frame):
    try:
        os.kill(process, number)
    except ProcessLookupError:
        pass
for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
    if signal.getsignal(number) is not signal.SIG_IGN:
        signal.signal(number, pass_on)
answer = server.recv(8)
status = int.from_bytes(answer, signed=True) if answer else 1
if status < 0:
    signal.signal(-status, signal.SIG_DFL) if -status != signal.SIGKILL else None
    os.kill(os.getpid(), -status)
os._exit(status)
"""


@cache
def warm_python() -> str:
    """The folder of the command `python`, to be put first on a PATH; it lives as long as this process."""
    folder = Path(tempfile.mkdtemp(prefix="warm-"))
    address = folder / "socket"
    command = folder / "python"
    command.write_text(_COMMAND.format(python=sys.executable, address=address), encoding="utf-8")
    command.chmod(0o755)
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    server = subprocess.Popen(
        [sys.executable, "-P", __file__, str(address)],
        env=environment | {"OMP_NUM_THREADS": "1"},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        start_new_session=True,
    )
    assert server.stdout is not None
    assert server.stdout.readline() == b"ready\n"

    def end() -> None:
        server.kill()
        server.wait()
        shutil.rmtree(folder)

    atexit.register(end)
    return str(folder)


def _serve(address: str) -> None:
    """Fork for each command that connects, until whoever started this process has gone."""
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(address)
    listener.listen()
    print("ready", flush=True)  # noqa: T201
    while True:
        ready, _, _ = select.select([listener, sys.stdin], [], [])
        if sys.stdin in ready:
            return
        connection, _ = listener.accept()
        with suppress(ChildProcessError):
            while os.waitpid(-1, os.WNOHANG)[0]:
                pass
        if os.fork() == 0:
            listener.close()
            _answer(connection)
            return
        connection.close()


def _answer(connection: socket.socket) -> None:
    """Start the process that a command asks for, and stay with both until one of them has gone."""
    length, files, _, _ = socket.recv_fds(connection, 8, 3)
    request = b""
    while len(request) < int.from_bytes(length):
        request += connection.recv(2**20)
    arguments, folder, environment = json.loads(request)
    process = os.fork()
    if process == 0:
        connection.close()
        _become(arguments, folder, environment, files)
        return
    for file in files:
        os.close(file)
    ended = os.pidfd_open(process)
    gone = (BrokenPipeError, ConnectionResetError)  # the command was killed
    with suppress(*gone):
        connection.sendall(process.to_bytes(8))
    ready, _, _ = select.select([ended, connection.fileno()], [], [])
    if ended not in ready:
        os.kill(process, signal.SIGKILL)
        with suppress(ProcessLookupError):  # it was not yet the first of a group
            os.killpg(process, signal.SIGKILL)
    _, status = os.waitpid(process, 0)
    with suppress(*gone):
        connection.sendall(os.waitstatus_to_exitcode(status).to_bytes(8, signed=True))
    os._exit(0)


def _become(arguments: list[str], folder: str, environment: dict[str, str], files: list[int]) -> None:
    """Run a module as `python -m` would."""
    os.setsid()
    for number, file in enumerate(files):
        os.dup2(file, number)
        os.close(file)
    sys.stdin = open(0, closefd=False)  # noqa: SIM115
    buffering = 1 if environment.get("PYTHONUNBUFFERED") else -1  # lines, or blocks
    sys.stdout = open(1, "w", buffering=buffering, closefd=False)  # noqa: SIM115
    sys.stderr = open(2, "w", buffering=1, errors="backslashreplace", closefd=False)  # noqa: SIM115
    os.chdir(folder)
    os.environ.clear()
    os.environ.update(environment)
    way, what, *rest = arguments
    sys.path[:0] = [folder if way == "-m" else "", *filter(None, environment.get("PYTHONPATH", "").split(os.pathsep))]
    sys.argv[:] = [way, *rest]
    status = _run(way, what)
    threading._shutdown()  # type: ignore[attr-defined]
    atexit._run_exitfuncs()
    sys.stdout.flush()
    os._exit(status)  # at its own end Python would take all packages apart, which takes seconds after a fork


def _run(way: str, what: str) -> int:
    """Run a module (-m) or code (-c) and return the exit status that Python would end with."""
    try:
        if way == "-m":
            runpy.run_module(what, run_name="__main__", alter_sys=True)
        else:
            main = sys.modules["__main__"] = ModuleType("__main__")
            exec(compile(what, "<string>", "exec"), vars(main))
    except SystemExit as end:
        if end.code is None or isinstance(end.code, int):
            return end.code or 0
        print(end.code, file=sys.stderr)  # noqa: T201
        return 1
    except KeyboardInterrupt:
        return 130
    except BaseException:
        traceback.print_exc()
        return 1
    return 0


def _import_packages() -> object:
    """Import what takes long; what is returned must stay referenced."""
    sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "src"))
    from aerofuse.common.torchvision_pairing import ensure_torchvision_imports
    from aerofuse.tracking.store import set_defaults

    # What the stages do before they import these.
    library = ensure_torchvision_imports()
    set_defaults()
    os.environ["NO_ALBUMENTATIONS_UPDATE"] = "1"
    for name in PACKAGES:
        import_module(name)
    for name in EXTRAS:
        with suppress(ModuleNotFoundError):
            import_module(name)
    del sys.path[0]
    for name in [name for name in sys.modules if name.partition(".")[0] in OWN]:
        del sys.modules[name]
    return library


if __name__ == "__main__":
    kept = _import_packages()
    threads = [file.read_text().strip() for file in Path("/proc/self/task").glob("*/comm")]
    # jemalloc, which pyarrow brings, mends itself in a fork.
    assert len(threads) - threads.count("jemalloc_bg_thd") == 1, f"a fork would lose one of the threads {threads}"
    _serve(sys.argv[1])
