"""Processes that need no imports: each is forked from one that has them.

The package with all that it imports takes ten seconds of a core, more than most notebooks and scripts of the tests.
`execute` runs a notebook as papermill does, `run` a script, and the command `geoseg` is on the PATH of both.
"""
import contextlib
import gc
import json
import os
import select
import signal
import socket
import subprocess
import sys
import tempfile
from pathlib import Path

ADDRESS = 'GEOSEG_TESTS_WARM'  # environment variable: where the server listens
INLINE = 'module://matplotlib_inline.backend_inline'
TESTS = Path(__file__).resolve().parent
NBS = TESTS.parent / 'nbs'


# ---- of tests

def execute(
    notebook: str,  # below nbs/, where it runs
    folder: Path,  # of the executed copy
    kernel: str = 'warm',  # 'python3': as a user starts it
    **parameters,
):  # the executed notebook
    import papermill
    path = NBS / notebook
    return papermill.execute_notebook(path, folder / path.name, parameters, cwd=path.parent, progress_bar=False,
                                      kernel_name=kernel, start_timeout=300)


def run(script: str | Path, *arguments, cwd: str | Path = '.', timeout: float = 600) -> subprocess.CompletedProcess:
    'Run a Python script; what it printed, as `subprocess.run` with `capture_output` and `text` tells.'
    with tempfile.TemporaryFile('w+') as out, tempfile.TemporaryFile('w+') as err:
        words = [str(script), *map(str, arguments)]
        status = ask({'kind': 'script', 'words': words, 'folder': str(Path(cwd).absolute())},
                     (0, out.fileno(), err.fileno()), timeout)
        out.seek(0), err.seek(0)
        return subprocess.CompletedProcess(words, status, out.read(), err.read())


@contextlib.contextmanager
def server():
    'The process that all others are forked from; it ends with the one that started it.'
    with tempfile.TemporaryDirectory() as folder:
        kernel, command, address = Path(folder, 'kernels/warm/kernel.json'), Path(folder, 'geoseg'), f'{folder}/socket'
        kernel.parent.mkdir(parents=True)
        kernel.write_text(json.dumps({'argv': [sys.executable, '-IS', __file__, 'kernel', '{connection_file}'],
                                      'display_name': 'warm', 'language': 'python'}))
        command.write_text(f'#!/bin/sh\nexec "{sys.executable}" -IS "{__file__}" command "$@"\n')
        command.chmod(0o755)
        os.environ[ADDRESS] = address
        for name, default in (('JUPYTER_PATH', ''), ('PATH', os.defpath)):
            os.environ[name] = os.pathsep.join(filter(None, [folder, os.environ.get(name, default)]))
        with socket.socket(socket.AF_UNIX) as listener:
            listener.bind(address)
            listener.listen()
            process = subprocess.Popen([sys.executable, __file__, 'serve', str(listener.fileno())],
                                       stdin=subprocess.PIPE, pass_fds=[listener.fileno()])
        try:
            yield
        finally:
            process.stdin.close()
            process.wait()


# ---- between them

def ask(request: dict, files: tuple[int, int, int], timeout: float | None = None) -> int:
    'Have the server fork a process with these standard files; its exit status.'
    with socket.socket(socket.AF_UNIX) as connection:
        connection.settimeout(timeout)
        connection.connect(os.environ[ADDRESS])
        socket.send_fds(connection, [b'\n'], files)
        connection.sendall(json.dumps(request | {'environment': dict(os.environ)}).encode() + b'\n')
        answer = connection.makefile()
        process = int(answer.readline())
        old = {number: signal.signal(number, lambda number, _: os.killpg(process, number))
               for number in (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1)} if request['kind'] != 'script' else {}
        try:
            return int(answer.readline() or -signal.SIGKILL)
        except TimeoutError:
            os.killpg(process, signal.SIGKILL)
            raise
        finally:
            for number, handler in old.items():
                signal.signal(number, handler)


def serve(listener: socket.socket):
    'Fork a process for each connection, until the standard input is closed. Imports wait for the first.'
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # those that ended are forgotten
    sys.path.pop(0)  # the folder of this file
    os.environ['MPLBACKEND'] = INLINE
    processes = []
    while sys.stdin not in select.select([listener, sys.stdin], [], [])[0]:
        connection = listener.accept()[0]
        import ipykernel.kernelapp  # noqa: F401
        import matplotlib.pyplot  # noqa: F401
        import nbdev.test  # noqa: F401
        import nbformat  # noqa: F401  with jsonschema, which compiles grammars for two seconds
        import torch.utils.tensorboard  # noqa: F401  as each training

        import geoseg.evaluation.calibration  # noqa: F401
        import geoseg.inference.predict  # noqa: F401
        import geoseg.training.sweep  # noqa: F401
        gc.freeze()  # pages stay shared
        process = os.fork()
        if process == 0:
            listener.close()
            become(connection)
        processes.append(process)
        connection.close()
    for process in processes:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process, signal.SIGKILL)


# ---- in the forked process

def become(connection: socket.socket):
    'Take over place, environment and files of the one that asked, and do as it says; does not return.'
    os.setsid()
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    _, files, _, _ = socket.recv_fds(connection, 1, 3)
    for number, file in enumerate(files):
        os.dup2(file, number)
        os.close(file)
    request = json.loads(connection.makefile().readline())
    backend = {'MPLBACKEND': INLINE} if request['kind'] == 'kernel' else {}
    os.environ.clear()
    os.environ.update(backend | request['environment'])
    os.chdir(request['folder'])
    connection.sendall(f'{os.getpid()}\n'.encode())
    status = 1
    try:
        sys.argv = request['words']
        {'kernel': kernel, 'command': command, 'script': script}[request['kind']]()
        status = 0
    except SystemExit as error:
        status = int(error.code if isinstance(error.code, int) else bool(error.code))
    except BaseException:
        sys.excepthook(*sys.exc_info())
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        connection.sendall(f'{status}\n'.encode())
        os._exit(status)


def kernel():
    import pandas as pd
    from ipykernel.kernelapp import IPKernelApp
    pd.set_option('display.max_columns', 20)  # as where a kernel imports it
    IPKernelApp.launch_instance(['-f', sys.argv[1], f'--IPKernelApp.parent_handle={os.getppid()}'])


def command():
    from lightning.pytorch.utilities import rank_zero_only

    from geoseg.cli import main
    rank_zero_only.rank = int(os.environ.get('RANK', 0))  # read when it was imported
    sys.exit(main())


def script():
    import runpy
    sys.path.insert(0, str(Path(sys.argv[0]).parent))
    runpy.run_path(sys.argv[0], run_name='__main__')


if __name__ == '__main__':
    kind, *words = sys.argv[1:]
    if kind == 'serve':
        serve(socket.socket(fileno=int(words[0])))
    else:
        name = {'kernel': 'ipykernel_launcher', 'command': 'geoseg'}[kind]
        sys.exit(ask({'kind': kind, 'words': [name, *words], 'folder': os.getcwd()}, (0, 1, 2)))
