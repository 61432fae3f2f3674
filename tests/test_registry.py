"""Names load late, misses suggest, and a user's own broken module is not hidden."""

from pathlib import Path

import pytest

from robustvid.errors import UnknownNameError
from robustvid.registry import Registry, load_object, shipped_folder


def test_registry():
    table = Registry("thing", {"pi": "math:pi", "broken": "no_such_module:x"})
    assert table.load("pi") == pytest.approx(3.14159, abs=1e-5)
    assert table.names() == ["broken", "pi"]
    with pytest.raises(UnknownNameError, match=r"no thing named 'pie'. Did you mean 'pi'\? There are: broken, pi"):
        table.load("pie")


def test_objects_by_module_and_by_file():
    Path("mine.py").write_text("value = 3\n")
    assert load_object("mine.py:value") == 3
    for target in ("math", "math:", "mine.py:valu", "none.py:x", "no_such_module.sub:x", "math:pie"):
        with pytest.raises(UnknownNameError):
            load_object(target)


def test_an_import_that_fails_inside_the_users_module_is_shown_as_it_is():
    Path("mine.py").write_text("import no_such_module_inside\n")
    with pytest.raises(ModuleNotFoundError, match="no_such_module_inside"):
        load_object("mine.py:value")


def test_cards_ship():
    assert (shipped_folder("attacks") / "pgd.toml").is_file()
