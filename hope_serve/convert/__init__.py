"""Reads models of other makers: Llama and Qwen2 shaped, from Hugging Face folders and GGUF files."""
