"""HOPE as it is served: one batch addressed by slot, state and memories in pools with fixed addresses."""
