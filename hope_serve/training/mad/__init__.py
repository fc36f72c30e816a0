"""Small tasks that tell sequence mixers apart, after MAD (arXiv 2403.17844): each trains two layers in minutes."""
