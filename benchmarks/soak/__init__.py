"""A fleet at 70 % load for as long as one likes, while its pods come, go and are killed."""
