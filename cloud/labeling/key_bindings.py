"""Keys for classes, the same in the terminal and in the console."""

from collections.abc import Sequence

from schemas.class_names import NEITHER

SKIP, UNDO, OTHER, QUIT = "n", "u", "o", "q"
_NEITHER_KEY = "0"
_RESERVED = (SKIP, UNDO, OTHER, QUIT, _NEITHER_KEY)


def key_bindings(classes: Sequence[str]) -> dict[str, str]:
    """Bind each class to a digit, and to its initial unless another class or a command has it.

    Classes beyond the ninth have only an initial, or must be typed. `0` labels a photo as `NEITHER`.
    """
    keys = {str(number): name for number, name in enumerate(classes[:9], start=1)}
    for name in classes:
        initial = name[0].lower()
        shared = sum(other[0].lower() == initial for other in classes) > 1
        if not (shared or initial in _RESERVED or initial in keys) and initial.isprintable():
            keys[initial] = name
    return keys | {_NEITHER_KEY: NEITHER}
