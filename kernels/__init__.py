"""Triton kernels; this folder installs as `fastvoc.kernels`."""

if __name__ == "kernels":
    # Another package is called `kernels`: an ImportError keeps code that probes for that one working.
    raise ImportError("this folder is fastvoc.kernels; run outside the repository root or with python -P")
