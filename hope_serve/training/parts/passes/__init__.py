"""The passes through a layer with their outer gradients written out: what a lesson's second derivative costs, no more.

Autograd over ``hope_serve.model.attention`` gives the same numbers, and the tests hold each function here to it.
"""
