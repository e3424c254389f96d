"""Docstrings become prose and parameters."""

from instpt_assets.corpus.docstrings import read_docstring

NUMPY = """
    Solve a linear system.

    Computes ``x`` in `a` x = `b`; see :func:`~numpy.linalg.inv` and :class:`torch.Tensor`. A second
    sentence wraps here.

    .. versionadded:: 1.0

    .. note::
       Mind the *order*.

    Parameters
    ----------
    a, b : (M, M) array_like
        The operands.
    mode : {'full', 'same'}, optional
        How far. Default is 'full'.
    check : bool, default: True
        Whether to check.

    Returns
    -------
    x : ndarray
        The solution.

    Examples
    --------
    >>> solve(1, 2)
    2
"""


def test_numpy_sections_become_lines_and_parameters() -> None:
    read = read_docstring(NUMPY)
    assert read.summary == "Solve a linear system."
    assert [(p.name, p.type, p.default, p.description) for p in read.parameters] == [
        ("a", "(M, M) array_like", None, "The operands."),
        ("b", "(M, M) array_like", None, "The operands."),
        ("mode", "{'full', 'same'}", "'full'", "How far. Default is 'full'."),
        ("check", "bool", "True", "Whether to check."),
    ]
    assert read.returns == "The solution."
    assert read.prose == (
        "Solve a linear system.\n\n"
        "Computes x in a x = b; see inv and torch.Tensor. A second sentence wraps here.\n\n"
        "Note: Mind the order.\n\n"
        "Parameters:\na, b ((M, M) array_like): The operands.\nmode ({'full', 'same'}): How far. Default is 'full'.\n"
        "check (bool, default True): Whether to check.\n\n"
        "Returns:\nx (ndarray): The solution."
    )


def test_google_sections() -> None:
    read = read_docstring(
        "cross(input, *, dim=-1) -> Tensor\n\nCross product.\n\nArgs:\n    input (Tensor): the first.\n        More of it.\n"
        "    dim (int, optional): the axis. Default: ``-1``.\n\nReturns:\n    The product.\n\nExample::\n\n    >>> cross(a)\n    1\n\nLast words."
    )
    assert read.signature == "(input, *, dim=-1)"
    assert [(p.name, p.type, p.default, p.description) for p in read.parameters] == [
        ("input", "Tensor", None, "the first. More of it."),
        ("dim", "int", "-1", "the axis. Default: -1."),
    ]
    assert read.returns == "The product."
    assert read.prose.startswith("Cross product.") and read.prose.endswith("Last words.") and ">>>" not in read.prose


def test_sphinx_fields() -> None:
    read = read_docstring(
        "Open it.\n\n:param path: where it\n    lies\n:type path: str\n:param int depth: how deep, defaults to 3\n:returns: a handle\n"
    )
    assert [(p.name, p.type, p.default, p.description) for p in read.parameters] == [
        ("path", "str", None, "where it lies"),
        ("depth", "int", "3", "how deep, defaults to 3"),
    ]
    assert read.returns == "a handle"
    assert ":param" not in read.prose


def test_code_and_tables_are_dropped_and_lists_stay() -> None:
    read = read_docstring(
        "Title.\n\nUse it so::\n\n    x = f(1)\n\n    y = 2\n\nThen:\n\n- one item\n  goes on\n- two\n\n==  ==\na   b\n==  ==\n\n.. code-block:: python\n\n   z = 3\n\nEnd."
    )
    assert read.prose == "Title.\n\nUse it so:\n\nThen:\n\n- one item goes on\n- two\n\nEnd."


def test_default_is_taken_from_text_only_where_it_is_a_literal() -> None:
    read = read_docstring(
        "T.\n\nArgs:\n    a (int): Default: if None, uses what is set.\n    b (str): Defaults to 'x'.\n    c: Default spacing is wide.\n"
    )
    assert [p.default for p in read.parameters] == [None, "'x'", None]
