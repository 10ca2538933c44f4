"""What is computed: one update traced by autograd, emitted as machine code, iterated.

``model`` says what one update is, ``trace`` and ``tape`` find its gradient by autograd, ``emit``
and ``kernel`` write it as LLVM IR, ``cpu`` and ``gpu`` make machine code of that. ``iteration``,
``evaluation`` with ``screening``, ``data``, ``initial`` and ``affine`` hold the kernels;
``compiled`` and ``eager`` bring a batch from its initial values to its ends, ``fit`` chooses. No
Ray, no store.
"""

__all__ = ["affine", "cpu", "evaluate", "fit", "initial", "model", "outcome", "setup", "status"]
