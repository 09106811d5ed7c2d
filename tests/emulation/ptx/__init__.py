"""A PTX interpreter in NumPy, for tests: one warp is one vector of 32 lanes.

``parse`` text to instructions; ``compile`` them to closures over registers (``registers``, ``arithmetic``,
``conversions``, ``tensor_cores``, ``transfer``); ``memory`` checks every access; ``machine`` schedules warps at random.
It knows what nvcc and Triton emit for sm_80 to sm_89, and stops with PtxError at anything else.
"""
