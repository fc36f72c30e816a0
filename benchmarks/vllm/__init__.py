"""vLLM with and without users' own weights, and this project's engine, on the same model shapes in one run."""
