"""The command line: `python3 -m devcluster <command>`."""

import argparse
import json
import sys

from devcluster import (
    access,
    certificates,
    cluster,
    containers,
    gotools,
    kueue,
    leftovers,
    network,
    packages,
    preflight,
    stores,
)

DESCRIPTION = """A real one-node Kubernetes on this machine, with an image registry and an S3
server, built from Go modules; no container engine needed. `up` and `down` need Linux and root.

With KUBECONFIG set to another cluster, that cluster is used and nothing is started."""

COMMANDS = {
    "build": "build the programs into the cache (about ten minutes once, then nothing)",
    "up": "start the cluster, or what is missing of it; builds first when needed",
    "down": "stop it and remove its traces; images stay for the next time",
    "kueue": "install Kueue, the queue for Jobs; builds it first when needed",
    "status": "a table of the components; exit code 1 when not all are well",
    "info": "what programs need to use it, as JSON (holds the S3 secret)",
    "env": 'the same for a shell: eval "$(python3 -m devcluster env)"',
}

EXPECTED = (
    access.AccessError,
    certificates.CertificateError,
    cluster.ClusterError,
    containers.ContainerError,
    gotools.BuildError,
    kueue.KueueError,
    leftovers.LeftoverError,
    network.NetworkError,
    packages.PackageError,
    preflight.MachineError,
    stores.StoreError,
)


def parser() -> argparse.ArgumentParser:
    made = argparse.ArgumentParser(
        prog="python3 -m devcluster",
        description=DESCRIPTION,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    commands = made.add_subparsers(dest="command", required=True, metavar="COMMAND")
    parsers = {name: commands.add_parser(name, help=text) for name, text in COMMANDS.items()}
    names = ", ".join(tool.name for tool in gotools.TOOLSET)
    parsers["build"].add_argument("tool", nargs="*", help=f"only these: {names}")
    parsers["down"].add_argument(
        "--all",
        action="store_true",
        help="also remove the image store and the registry's content",
    )
    parsers["kueue"].add_argument(
        "--remove", action="store_true", help="remove it with its queues, once no Job uses them"
    )
    return made


def run(arguments: argparse.Namespace) -> int:
    match arguments.command:
        case "build":
            gotools.build(arguments.tool)
            print(
                f"programs for people: {gotools.people_folder()}" if not arguments.tool else "built"
            )
        case "up":
            _up()
        case "down":
            cluster.down(with_images=arguments.all)
        case "kueue":
            _kueue(remove=arguments.remove)
        case "status":
            if access.foreign_kubeconfig():
                print(access.check_foreign_cluster())
            elif not cluster.status():
                return 1
        case "info":
            print(json.dumps(access.info(), indent=2))
        case "env":
            print(access.exports())
    return 0


def _up() -> None:
    if access.foreign_kubeconfig():
        print(f"{access.check_foreign_cluster()} and is used; nothing is started")
        return
    cluster.up()
    print('to go on:  eval "$(python3 -m devcluster env)"  # KUBECONFIG, PATH and AWS_*')
    print("           kubectl get nodes")


def _kueue(*, remove: bool) -> None:
    if access.foreign_kubeconfig():
        raise kueue.KueueError("KUBECONFIG names another cluster: Kueue is that one's own affair")
    if remove:
        kueue.remove()
    else:
        kueue.install()


def main() -> int:
    try:
        return run(parser().parse_args())
    except EXPECTED as error:
        print(f"devcluster: {error}", file=sys.stderr)
        return 1
    except PermissionError as error:
        print(f"devcluster: {error.filename} is root's: use sudo", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("devcluster: interrupted", file=sys.stderr)
        return 130


if __name__ == "__main__":
    sys.exit(main())
