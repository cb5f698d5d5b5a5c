"""The mathematics, in stages: ratios, weights, returns and advantages, surrogates, reduction.

Every function takes flat tensors `[S]` (steps) and the `Segments` that say where episodes lie in
them. Everything is computed in float64.
"""
