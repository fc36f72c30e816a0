"""How fast the engine serves: a host with the bundled checkpoint, or a card with models of several sizes."""
