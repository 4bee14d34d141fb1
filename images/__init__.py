"""Builds the project's images with buildah and pushes them: `python3 -m images --help`.

The rule of this room: the standard library only, so that it runs before anything is installed.
What is in an image stands in the Dockerfile, which docker and podman build as well; this package
adds what a machine without docker needs: a base image from Debian packages, chroot isolation,
the host's certificates and package index, and a tag that is the hash of what went in.
"""
