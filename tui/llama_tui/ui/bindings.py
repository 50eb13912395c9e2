"""Keys as people read them, and the checks of the [keys] table of config.toml."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Iterable, Mapping, Sequence

from msgspec import Struct
from textual.binding import Binding
from textual.keys import REPLACED_KEYS, Keys

from llama_tui.errors import SettingsError

_WORDS = {"escape": "esc", "enter": "enter", "pageup": "pgup", "pagedown": "pgdn", "question_mark": "?", "slash": "/"}


class KeyGroup(Struct, frozen=True):
    """Bindings that act in one place."""

    title: str
    bindings: tuple[Binding, ...]


def named(bindings: Iterable[object]) -> tuple[Binding, ...]:
    """The bindings with an id, which are ours: those without belong to Textual's widgets."""
    return tuple(binding for binding in bindings if isinstance(binding, Binding) and binding.id)


def actions_of(bindings: Iterable[object], keymap: Mapping[str, str]) -> dict[str, str]:
    """What each key does, for a widget that acts on its keys itself; `keymap` gives other keys to
    bindings, by their id."""
    return {
        key.strip(): binding.action
        for binding in named(bindings)
        for key in keymap.get(binding.id or "", binding.key).split(",")
    }


def key_words(keys: str) -> str:
    """Keys as the help shows them: "ctrl+j,shift+enter" becomes "ctrl+j or shift+enter"."""
    return " or ".join("+".join(_WORDS.get(part, part) for part in key.strip().split("+")) for key in keys.split(","))


def short_key(keys: str) -> str:
    """The first of some keys as the status line shows it: "^o"."""
    first = keys.split(",", 1)[0].strip()
    return "^" + first[5:] if first.startswith("ctrl+") and len(first) == 6 else key_words(first)


class KeyTable:
    """Every key of the program as it is now: the bindings, with what config.toml changes of them.

    `keymap` holds the changes that can be used, by binding id, and `problems` what is wrong with
    the others; `where` is the file that they come from. `more` gives the groups of screens that are
    not needed at the start; it is called when one of their keys is asked for, or all keys are.
    """

    def __init__(
        self,
        groups: Sequence[KeyGroup],
        wanted: Mapping[str, str],
        where: str,
        more: Callable[[], Sequence[KeyGroup]] = tuple,
    ) -> None:
        self.keymap: dict[str, str] = {}
        self.problems: list[SettingsError] = []
        self._groups: tuple[KeyGroup, ...] = ()
        self._more: Callable[[], Sequence[KeyGroup]] | None = more
        self._words: dict[str, str] = {}
        self._default: dict[str, str] = {}
        self._add(groups)
        if wanted:
            self._add_more()
        for binding_id, keys in wanted.items():
            if problem := self._problem(binding_id, keys, where) or self._clash(binding_id, keys, where):
                self.problems.append(problem)
            else:
                self.keymap[binding_id] = keys

    def _add(self, groups: Sequence[KeyGroup]) -> None:
        self._groups += tuple(groups)
        for binding in (binding for group in groups for binding in group.bindings):
            self._words[binding.id or ""], self._default[binding.id or ""] = binding.description, binding.key

    def _add_more(self) -> None:
        more, self._more = self._more, None
        if more is not None:
            self._add(more())

    @property
    def groups(self) -> tuple[KeyGroup, ...]:
        """Every group."""
        self._add_more()
        return self._groups

    def _problem(self, binding_id: str, keys: str, where: str) -> SettingsError | None:
        if binding_id not in self._default:
            near = difflib.get_close_matches(binding_id, self._default, n=1)
            hint = f"Do you mean {near[0]}? " if near else ""
            return SettingsError(f"{where}: no key is called {binding_id!r}", hint + "F1 lists them all.")
        bad = next((key.strip() for key in keys.split(",") if not _is_key(key.strip())), None)
        if bad is None:
            return None
        return SettingsError(
            f"{where}: {bad!r} is not a key ({binding_id})", 'Allowed, for example: "f8", "ctrl+x", "a".'
        )

    def _clash(self, binding_id: str, keys: str, where: str) -> SettingsError | None:
        """Two actions of one place cannot have one key; what acts everywhere is in every place."""
        places = [{binding.id for binding in group.bindings} for group in self.groups]
        rivals: set[str] = set()
        for place in places:
            if binding_id in place or binding_id in places[0]:
                rivals |= {name for name in place | places[0] if name}
        rivals.discard(binding_id)
        wanted = {key.strip() for key in keys.split(",")}
        for other in sorted(rivals):
            if shared := wanted & {key.strip() for key in self.of(other).split(",")}:
                return SettingsError(
                    f"{where}: {shared.pop()!r} is the key of {other} already ({binding_id})",
                    f"Take another key, or give {other} another one too, before this line.",
                )
        return None

    def said(self, *binding_ids: str) -> str:
        """Bindings as a line of help: "ctrl+u unload · esc close"."""
        keys = [(key_words(self.of(name).split(",")[0]), name) for name in binding_ids]
        return " · ".join(f"{key} {self._words[name]}" for key, name in keys)

    def of(self, binding_id: str) -> str:
        """The keys of a binding, with commas between them."""
        if binding_id not in self._default:
            self._add_more()
        return self.keymap.get(binding_id, self._default[binding_id])


_MODIFIERS = frozenset({"ctrl", "shift", "alt", "super", "hyper", "meta"})
_NAMES = frozenset(key.value for key in Keys) | frozenset(REPLACED_KEYS.values())


def _is_key(key: str) -> bool:
    *modifiers, name = key.split("+")
    plain = len(name) == 1 or name in _NAMES or name in _WORDS
    return bool(name) and plain and all(modifier in _MODIFIERS for modifier in modifiers)
