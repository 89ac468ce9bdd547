"""What a policy costs in quality: cross-entropy against experts read, and the gate that a release
has to pass.

The paper's protocol (arXiv 2511.02237, cross-entropy experiments): the batch of a decode step is
the t-th token of B sequences, each layer routes it as a step of its own, and every sequence goes on
with what that gave it."""
