"""Kernels of our own in C++, for processors with AVX-512 VNNI, AVX-VNNI or AVX2: a whole forward pass in one call.

A token's pass is some thousand small operations, and most of its time in torch goes into starting them. Here the threads stay together
through all layers (`team.h`), products are int8 with a scale for every 64 values (`linear.h`), and what lies between two products is one
sweep over a head (`step.cpp`). Registers of 32 bytes have their own `vector_avx2.h` and `linear_avx2.h`. Everything else of the engine is
the same, and without a compiler or such a processor torch does the work.

They are compiled at first use; `python retnet_core/native/build.py` does it ahead of time.
"""

from retnet_core.native.library import GROUP, LARGEST_HEAD, Library, Matrix, Network, fits, library, use_threads

__all__ = ["GROUP", "LARGEST_HEAD", "Library", "Matrix", "Network", "fits", "library", "use_threads"]
