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

DESCRIPTION = """Run a one-node Kubernetes cluster on this machine, with an image registry and an S3
server. It is built from Go modules and needs no container engine. `up` and `down` need
Linux and root.

If KUBECONFIG names another cluster, the commands use that cluster and start nothing."""

COMMANDS = {
    "build": "build the programs into the cache (about ten minutes the first time)",
    "up": "start the cluster or its missing components; build the programs if necessary",
    "down": "stop the cluster and remove its state, except for images",
    "kueue": "install Kueue, a queue for Jobs; build it if necessary",
    "status": "show the components; exit with 1 unless all of them are healthy",
    "info": "print the settings for programs that use the cluster, as JSON (with the S3 secret)",
    "env": 'print the settings for a shell: eval "$(python3 -m devcluster env)"',
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
    parsers["build"].add_argument("tool", nargs="*", help=f"build only these tools: {names}")
    parsers["down"].add_argument(
        "--all",
        action="store_true",
        help="remove the images and the content of the registry, too",
    )
    parsers["kueue"].add_argument(
        "--remove", action="store_true", help="remove Kueue and its queues; no Job may use them"
    )
    parsers["kueue"].add_argument(
        "--variant",
        choices=sorted(kueue.VARIANTS),
        default=kueue.USUAL,
        help="version of Kueue, and of its API (default: %(default)s)",
    )
    return made


def run(arguments: argparse.Namespace) -> int:
    match arguments.command:
        case "build":
            gotools.build(arguments.tool)
            if arguments.tool:
                print("The tools are built.")
            else:
                print(f"The command-line tools are in {gotools.cli_folder()}.")
        case "up":
            _up()
        case "down":
            cluster.down(with_images=arguments.all)
        case "kueue":
            _kueue(arguments.variant, remove=arguments.remove)
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
        print(f"{access.check_foreign_cluster()} No cluster is started here.")
        return
    cluster.up()
    print("To use it in this shell (sets KUBECONFIG, PATH, and AWS_*):")
    print('  eval "$(python3 -m devcluster env)"')
    print("  kubectl get nodes")


def _kueue(variant: str, *, remove: bool) -> None:
    if access.foreign_kubeconfig():
        raise kueue.KueueError(
            "KUBECONFIG names another cluster. Install Kueue there yourself, or unset KUBECONFIG."
        )
    if remove:
        kueue.remove()
    else:
        kueue.install(variant)


def main() -> int:
    try:
        return run(parser().parse_args())
    except EXPECTED as error:
        print(f"devcluster: {error}", file=sys.stderr)
        return 1
    except PermissionError as error:
        print(f"devcluster: {error.filename} belongs to root. Use sudo.", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("devcluster: interrupted", file=sys.stderr)
        return 130


if __name__ == "__main__":
    sys.exit(main())
