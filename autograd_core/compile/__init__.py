"""`rg.compile`: what a call does is recorded, planned once as a flat list of calls over static arrays, and replayed.

    compiled          the function that is called: watch, confirm, replay       tape            what a call did
    signature, met    what tells calls apart: arguments, modules and modes      programs        finds that of a call
    mentioned         what a function reads in Python: its code's `loads`, `whose` code that is, what is `moving`
    lasting, overlaps what a replay could not do, and so is refused             verify          replay against eager

    program           one signature: the pipeline below, and a run
    expansion         fused records written out                                 scalar_form     a step as an expression
    simplify, passes  algebra, constants, equal values, dead code
    fusion, spaces    elementwise steps and reductions become groups            lowering        a group as a kernel
    recompute         what is computed again rather than kept
    places, arena     memory for every value, and the calls                     bounds          checks of indices
    blocking, pools   calls block by block; ReLU after the pool
    listing           a program for a reader                                    eager_kernels   kernels without compile

`program.source()` writes a program as one file of NumPy: `source` is its frame, `tracing` and `static_memory` what it
calls and where, `program_state` and `naming` its state and names, `carrying`, `module_text` and `rolling` its text.
"""

from .compiled import Compiled, compile  # noqa: A004  PyTorch's name

__all__ = ["Compiled", "compile"]
