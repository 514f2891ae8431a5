"""Build the container images with Docker, Podman or buildah: `make images`."""
