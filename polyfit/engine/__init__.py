"""What is computed: one update traced by autograd, emitted as machine code, iterated.

``penalty``, ``objective`` and ``optimizer`` say what one update is. ``trace`` and ``tape`` find its
gradient by autograd; ``emit``, ``loops`` and ``kernel`` write it as LLVM IR, of which ``cpu`` and
``gpu`` make machine code. The modules named ``..._kernel`` hold the kernels. ``eager`` and
``compiled`` bring a batch from its initial values to its results, ``fit`` chooses between them, and
``affine`` does it by powers of one update. No Ray, no store.
"""

__all__ = ["affine", "batch", "batch_data", "cpu", "evaluation", "fit", "initial"]
