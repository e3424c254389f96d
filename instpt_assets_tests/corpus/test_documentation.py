"""pydoc:// sources: public names, what is included, and that nothing is imported."""

import subprocess
import sys
from pathlib import Path

import pytest

from instpt_assets.corpus.documentation import documentation_digest, read_documentation

LONG = "It does what it says, at some length, so that its documentation is long enough to be a document of its own. "


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A package whose import fails, with re-exports, private modules, docs added to C objects and a test folder."""
    files = {
        "zoo_docs/__init__.py": f'"""Zoo. {LONG}"""\nfrom ._impl import Cat, feed\nfrom zoo_docs.more import *\nfrom ._c import bark\nraise RuntimeError("imported")\n',
        "zoo_docs/_impl.py": (
            f'class Cat:\n    """A cat. {LONG}"""\n    def __init__(self, name, lives=9, *, wild=False): ...\n'
            f'    def purr(self, loud: bool = True):\n        """Purr. {LONG}\n\n        Parameters\n        ----------\n        loud\n            How.\n        """\n'
            f'    def _hide(self):\n        """Hide. {LONG}"""\n'
            f'def feed(cat):\n    """Feed. {LONG}"""\n'
            f'def unreachable():\n    """Unreachable. {LONG}"""\n'
        ),
        "zoo_docs/more.py": f'def walk():\n    """Walk. {LONG}"""\ndef stroll():\n    """Walk. {LONG}"""\ndef short():\n    """Too short."""\n',
        "zoo_docs/_add_newdocs.py": f'from numpy import add_newdoc\nadd_newdoc("zoo_docs._c", "bark", """bark(n, /, times=2)\n\nBark. {LONG}""")\n',
        "zoo_docs/broken.py": "def (:\n",
        "zoo_docs/tests/test_zoo.py": f'def test_it():\n    """Test. {LONG}"""\n',
    }
    for name, text in files.items():
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    monkeypatch.syspath_prepend(str(tmp_path))
    return "pydoc://zoo_docs"


def test_objects_have_their_public_names_and_each_prose_stands_once(package: str) -> None:
    found = {document.name: document.kind for document in read_documentation(package)}
    assert found == {
        "zoo_docs": "module",
        "zoo_docs.Cat": "class",
        "zoo_docs.Cat.purr": "method",
        "zoo_docs.bark": "function",
        "zoo_docs.feed": "function",
        "zoo_docs.stroll": "function",
    }
    assert list(found) == sorted(found)


def test_signature_defaults_and_annotations(package: str) -> None:
    found = {document.name: document for document in read_documentation(package)}
    assert found["zoo_docs.Cat"].text.startswith("zoo_docs.Cat(name, lives=9, *, wild=False)\n\nA cat. It does")
    (loud,) = found["zoo_docs.Cat.purr"].parameters
    assert (loud.name, loud.type, loud.default, loud.description) == ("loud", "bool", "True", "How.")
    assert found["zoo_docs.bark"].signature == "(n, /, times=2)"


def test_include_and_exclude_part_the_set(package: str) -> None:
    everything = [d.name for d in read_documentation(package)]
    included = [d.name for d in read_documentation(f"{package}?include=zoo_docs.Cat,zoo_docs.feed")]
    excluded = [d.name for d in read_documentation(f"{package}?exclude=zoo_docs.Cat,zoo_docs.feed")]
    assert included == ["zoo_docs.Cat", "zoo_docs.Cat.purr", "zoo_docs.feed"]
    assert sorted(included + excluded) == everything


def test_torch_is_read_without_importing_it() -> None:
    code = (
        "import sys\n"
        "from instpt_assets.corpus.documentation import read_documentation\n"
        "found = {d.name: d for d in read_documentation('pydoc://torch')}\n"
        "assert 'torch' not in sys.modules and 'numpy' not in sys.modules\n"
        "assert found['torch.nn.Linear'].kind == 'class' and len(found) > 1000\n"
        "cross = found['torch.linalg.cross']\n"
        "assert [p.name for p in cross.parameters] == ['input', 'other', 'dim', 'out'] and cross.parameters[2].default == '-1'\n"
        "assert 'torch.Tensor.abs_' in found or 'torch.Tensor.backward' in found\n"
        "assert 'the input tensor.' in found['torch.sum'].prose\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_numpy_has_what_is_written_in_c_and_what_private_modules_define() -> None:
    found = {document.name: document for document in read_documentation("pydoc://numpy")}
    assert {"numpy.array", "numpy.ndarray.flatten", "numpy.gradient", "numpy.linalg.solve", "numpy.sum"} <= set(found)
    assert not any(part.startswith("_") for name in found for part in name.split("."))
    assert found["numpy.array"].parameters[0].name == "object"


def test_topics_are_prose() -> None:
    found = {document.name: document for document in read_documentation("pydoc://topics")}
    assert len(found) > 50
    assert "assert_stmt" not in found["assert"].text and "insert debugging assertions into a program" in found["assert"].text


def test_unknown_set_and_wrong_url_say_what_to_write() -> None:
    with pytest.raises(ValueError, match=r"pydoc://nunpy: .*topics, stdlib.*did you mean numpy"):
        next(read_documentation("pydoc://nunpy"))
    with pytest.raises(ValueError, match="unknown query field includes"):
        documentation_digest("pydoc://numpy?includes=a")
    with pytest.raises(ValueError, match="shards is '0'"):
        documentation_digest("pydoc://numpy?shards=0")


def test_digest_follows_what_is_selected(package: str) -> None:
    assert documentation_digest("pydoc://numpy?shards=2") == documentation_digest("pydoc://numpy?shards=3")
    assert documentation_digest("pydoc://numpy?include=numpy.ma") != documentation_digest("pydoc://numpy")
    assert documentation_digest("pydoc://topics") != documentation_digest("pydoc://stdlib")
    assert len(documentation_digest(package)) == 64
