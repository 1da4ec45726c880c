"""Generated kernels: a description of a fused group goes in, a function that computes it in one sweep comes out.

    description.py        what a kernel computes, without a tensor or a library in it
    numba_generator.py    a description → readable Python source that Numba compiles
    mathematics.py        exp, log, tanh … of one number, so that a loop over them becomes vector instructions
    cache.py              where sources and compiled code lie, and who may write there
    build.py              descriptions → functions, by worker processes where several are missing
    worker.py             the process that compiles

Nothing here is imported before a program asks for a kernel, and Numba only where one is compiled or loaded.
"""
