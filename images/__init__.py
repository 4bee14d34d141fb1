"""Builds the project's images with buildah and pushes them: `python3 -m images --help`.

It also pins the base image of a build to the digest that its registry serves.

This package imports only the standard library, so that it runs before anything is installed. The
Dockerfile defines the content of each image, and docker and podman build it as well. This package
adds what a machine without a container engine needs: a base image from Debian packages, chroot
isolation, the host's certificates and package index, and a content hash as the tag.
"""
