"""hope_kernels on a CUDA device: checked, then timed against bytes and against fla-core's kernels.

    python -m benchmarks.kernels [--only 1,5] [--quick] [--sweep] [--rehearse]

The figures: 1 titans_decode, 2 titans_commit, 3 titans_chunk, 4 MLP memories, 5 cms_delta, 6 cms_update,
7 precision of 16-bit states. What is timed was checked before in the same process.
"""
