"""Modules that hold others: in a chain, in a list, under names."""

from __future__ import annotations

import operator
from collections.abc import ItemsView, Iterable, Iterator, KeysView, Mapping, ValuesView
from typing import Any

from minilm.nn.module import Module, check_kind


class _Numbered(Module):
    """Base: parts named "0", "1", ..., reached by number."""

    def _place(self, index: int, last: int) -> int:
        """`index` counted from the front, below `last`. Errors: IndexError."""
        number = operator.index(index)
        if not -last <= number < last:
            raise IndexError(f"{type(self).__name__}: there is no part {number} among {len(self)}")
        return number % last

    def _renumber(self, parts: Iterable[Any]) -> None:
        parts = list(parts)
        self._modules.clear()
        for number, part in enumerate(parts):
            self.add_module(str(number), part)

    def __len__(self) -> int:
        return len(self._modules)

    def __iter__(self) -> Iterator[Any]:
        return iter(list(self._modules.values()))

    def _name(self, index: int) -> str:
        return list(self._modules)[self._place(index, len(self))]

    def __getitem__(self, index: Any) -> Any:
        if not isinstance(index, slice):
            return self._modules[self._name(index)]
        part: Any = type(self).__new__(type(self))
        Module.__init__(part)
        names = list(self._modules)[index]
        if isinstance(self, Sequential):
            part._modules.update({name: self._modules[name] for name in names})
        else:
            part._renumber(self._modules[name] for name in names)
        return part

    def __setitem__(self, index: int, module: Module) -> None:
        setattr(self, self._name(index), module)

    def __delitem__(self, index: Any) -> None:
        gone = list(self._modules)[index] if isinstance(index, slice) else [self._name(index)]
        self._renumber(part for name, part in self._modules.items() if name not in gone)

    def append(self, module: Module) -> Any:
        """Add a part at the end."""
        self.add_module(str(len(self)), module)
        return self

    def extend(self, modules: Iterable[Module]) -> Any:
        """Add several parts at the end."""
        for module in list(modules):
            self.append(module)
        return self

    def insert(self, index: int, module: Module) -> Any:
        """Add a part before the one with number `index`."""
        check_kind(self, str(index), module, Module, "module")
        parts = list(self)
        parts.insert(self._place(index, len(self) + 1) if index >= 0 else index, module)
        self._renumber(parts)
        return self

    def pop(self, index: int = -1) -> Any:
        """Take a part out and return it."""
        part = self[index]
        del self[index]
        return part


class Sequential(_Numbered):
    """y = f_n(... f_2(f_1(x))): each part is given what the one before returned.

    `Sequential(f1, f2)` names the parts "0" and "1"; `Sequential({"first": f1, "second": f2})` as it says.
    """

    def __init__(self, *modules: Any) -> None:
        super().__init__()
        if len(modules) == 1 and isinstance(modules[0], Mapping):
            for name, module in modules[0].items():
                self.add_module(name, module)
        else:
            self.extend(modules)

    def forward(self, x: Any) -> Any:
        """See the class."""
        for module in self._modules.values():
            assert module is not None
            x = module(x)
        return x


class ModuleList(_Numbered):
    """A list of modules, whose parameters belong to the module that holds it. It computes nothing itself."""

    _merges_equal_parts = True

    def __init__(self, modules: Iterable[Module] = ()) -> None:
        super().__init__()
        self.extend(modules)

    def __iadd__(self, modules: Iterable[Module]) -> ModuleList:
        return self.extend(modules)


class ModuleDict(Module):
    """A dict of modules, whose parameters belong to the module that holds it. It computes nothing itself."""

    def __init__(self, modules: Mapping[str, Module] | Iterable[tuple[str, Module]] = ()) -> None:
        super().__init__()
        self.update(modules)

    def __getitem__(self, key: str) -> Any:
        return self._modules[key]

    def __setitem__(self, key: str, module: Module) -> None:
        self.add_module(key, module)

    def __delitem__(self, key: str) -> None:
        del self._modules[key]

    def __len__(self) -> int:
        return len(self._modules)

    def __iter__(self) -> Iterator[str]:
        return iter(self._modules)

    def __contains__(self, key: object) -> bool:
        return key in self._modules

    def keys(self) -> KeysView[str]:
        """The names."""
        return self._modules.keys()

    def values(self) -> ValuesView[Any]:
        """The modules."""
        return self._modules.values()

    def items(self) -> ItemsView[str, Any]:
        """Pairs of a name and a module."""
        return self._modules.items()

    def update(self, modules: Mapping[str, Module] | Iterable[tuple[str, Module]]) -> None:
        """Add or replace parts by name."""
        for key, module in dict(modules).items():
            self[key] = module

    def pop(self, key: str) -> Any:
        """Take a part out and return it."""
        part = self[key]
        del self[key]
        return part

    def clear(self) -> None:
        """Take all parts out."""
        self._modules.clear()
