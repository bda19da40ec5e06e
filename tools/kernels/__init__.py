"""The kernels that an execution provider has, read from the runtime itself (tests/kernels)."""
