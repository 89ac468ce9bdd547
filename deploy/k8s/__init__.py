"""Kubernetes manifests, and what of them is made from other files: `python -m deploy.k8s` writes
it."""
