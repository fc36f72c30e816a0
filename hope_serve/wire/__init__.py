"""Between the nouns of ``hope_serve.api`` and the messages of ``proto/``, both ways; client and server share it."""
