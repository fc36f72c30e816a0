"""hope_kernels on a CUDA device: checked, then timed against bytes and against fla-core's kernels.

    PYTHONPATH=kernels python -m benchmarks.kernels [--only 1,5] [--quick] [--sweep] [--cold] [--rehearse]

The figures: 1 titans_decode, 2 titans_commit, 3 titans_chunk, 4 MLP memories, 5 cms_delta, 6 cms_update,
7 precision of states in few bits, 8 sample, 9 what a served layer runs between its products, 10 few_rows_linear, the
products of a few rows, 11 attention by slot, beside torch's. Each is checked against fp64 first, in the same process.
Everything is compiled beforehand, in processes side by side. Needs fla-core 0.6.0, einops, psutil and rich beside
torch and triton.
Writes a dated table (.md, .json) into benchmarks/results, or into $OUT where that is set.
"""
