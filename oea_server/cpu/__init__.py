"""SGLang without a GPU, as one of its platforms: attention, experts and small kernels in torch."""
