"""The parameter form: every load and sampling parameter of the table, its value, its origin."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

from msgspec import Struct
from textual import events
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Vertical
from textual.content import Content
from textual.message import Message
from textual.widgets import Input, OptionList, Static
from textual.widgets.option_list import Option

from llama_tui.control import one_line, sanitize
from llama_tui.settings.layers import Setting
from llama_tui.settings.params import PARAMS
from llama_tui.settings.values import BadValue, Param, Value
from llama_tui.ui.bindings import KeyTable, key_words
from llama_tui.ui.text import cells, fit
from llama_tui.ui.widgets.editor import ValueEditor

_FORM = tuple(param for param in PARAMS if param.kind in ("sampling", "load"))
_BADGES = {"default": "", "config": "config", "saved": "saved", "env": "env", "flag": "flag"}


class Field(Struct, frozen=True):
    """One row: the setting that holds, whether the loaded model runs with another value, and what
    a reset falls back to, if there is anything to reset."""

    param: Param
    setting: Setting
    needs_reload: bool = False
    below: Setting | None = None


def field_content(field: Field, width: int) -> Content:
    """The name; at the right the origin's badge, the value, and a star where a reload is needed."""
    param, setting = field.param, field.setting
    badge = _BADGES[setting.origin]
    room = max(1, width - len(param.name) - len(badge) - 4)
    value = fit(one_line(param.format(setting.value)) or "–", room)
    gap = width - len(param.name) - len(badge) - cells(value) - 3
    return Content.assemble(
        param.name,
        " " * max(1, gap),
        (badge, "$text-muted"),
        "  ",
        (value, "bold" if badge else ""),
        ("*" if field.needs_reload else " ", "$warning"),
    )


class FieldList(OptionList):
    """The rows under their groups; left and right step a value, enter or a letter edits it."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("enter", "select", "edit the value", id="form.edit"),
        Binding("left", "step(-1)", "smaller, or the choice before", id="form.decrease"),
        Binding("right", "step(1)", "larger, or the next choice", id="form.increase"),
        Binding("f6", "reset", "back to the layer below", id="form.reset"),
    ]

    @dataclass
    class EditRequested(Message):
        """The user wants to change the value as it stands."""

        field: Field

    @dataclass
    class Stepped(Message):
        """The user has changed a value in place."""

        param: Param
        value: Value

    @dataclass
    class ResetRequested(Message):
        """The user wants the value of the layer below."""

        param: Param

    def __init__(self) -> None:
        super().__init__(markup=False)
        self._fields: list[Field | None] = []

    @property
    def field(self) -> Field | None:
        """The row under the cursor."""
        return self._fields[self.highlighted] if self.highlighted is not None and self._fields else None

    def show(self, fields: Mapping[str, Field]) -> None:
        """Show these values; the rows stay where they are."""
        width = max(20, self.scrollable_content_region.width or 30)
        if not self._fields:
            self._begin(fields, width)
            return
        for at, old in enumerate(self._fields):
            if old and old != (new := fields[old.param.name]):
                self._fields[at] = new
                self.replace_option_prompt_at_index(at, field_content(new, width))

    def _begin(self, fields: Mapping[str, Field], width: int) -> None:
        """The rows, all at once: the list is laid out anew whenever some are added."""
        rows: list[Option] = []
        group = ""
        for param in _FORM:
            if param.group != group:
                group = param.group
                self._fields.append(None)
                rows.append(Option(Content.styled(group, "bold $accent"), disabled=True))
            self._fields.append(fields[param.name])
            rows.append(Option(field_content(fields[param.name], width)))
        self.add_options(rows)
        self.highlighted = 1

    def on_resize(self) -> None:
        """Fit the columns to the new width."""
        width = max(20, self.scrollable_content_region.width)
        for at, field in enumerate(self._fields):
            if field:
                self.replace_option_prompt_at_index(at, field_content(field, width))

    def on_key(self, event: events.Key) -> None:
        """A letter or a digit begins to edit, and what follows in the same burst goes on with it."""
        letter = event.character if event.is_printable and event.character and not event.character.isspace() else None
        form = self.parent
        if not self.field or not isinstance(form, ParameterForm):
            return
        if form.editing:
            event.stop()
            event.prevent_default()
            form.take(event.key, event.character if event.is_printable else None)
        elif letter:
            event.stop()
            event.prevent_default()
            form.edit(self.field, letter)

    def on_option_list_option_selected(self, event: OptionList.OptionSelected) -> None:
        """Enter, or a click."""
        event.stop()
        if self.field:
            if self.field.param.type in ("bool", "choice"):
                self.action_step(1)
            else:
                self.post_message(self.EditRequested(self.field))

    def action_step(self, by: int) -> None:
        """One step of the parameter, within its bounds; choices go round."""
        if not self.field:
            return
        value = stepped(self.field.param, self.field.setting.value, by)
        if value != self.field.setting.value:
            self.post_message(self.Stepped(self.field.param, value))

    def action_reset(self) -> None:
        """Back to the layer below."""
        if self.field:
            self.post_message(self.ResetRequested(self.field.param))


def stepped(param: Param, value: Value, by: int) -> Value:
    """The next value in a direction: within the bounds, round the choices; None is before the least."""
    if param.type in ("bool", "choice"):
        words: tuple[Value, ...] = (True, False) if param.type == "bool" else param.choices
        choices: list[Value] = [*([None] if param.none_word else []), *words]
        return choices[(choices.index(value) + by) % len(choices)]
    if param.type not in ("int", "float"):
        return value
    if value is None:
        start = param.minimum if param.minimum is not None and param.minimum > 0 else param.step
        return (int(start) if param.type == "int" else float(start)) if by > 0 else None
    assert isinstance(value, int | float)
    number = round(value + by * param.step, 6)
    if param.minimum is not None and number < param.minimum:
        return None if param.none_word and value <= param.minimum else param.check(param.minimum)
    if param.maximum is not None and number > param.maximum:
        number = param.maximum
    return int(number) if param.type == "int" else float(number)


class ParameterForm(Vertical):
    """The list, the editor below it, and the help of the field under the cursor."""

    @dataclass
    class Changed(Message):
        """A good value was entered."""

        param: Param
        value: Value

    @dataclass
    class Reset(Message):
        """The value of the layer below is wanted."""

        param: Param

    def __init__(self, keys: KeyTable) -> None:
        super().__init__()
        self._reload_key = key_words(keys.of("models.reload"))
        self._reset_key = key_words(keys.of("form.reset"))
        self._editing: Param | None = None
        self._shown: dict[str, Field] = {}

    def compose(self) -> ComposeResult:
        """The list above, editor and help below."""
        yield FieldList()
        yield ValueEditor(compact=True, select_on_focus=False)
        yield Static(markup=False, id="field-help")

    def on_mount(self) -> None:
        """Name the pane; the editor comes when it is asked for."""
        self.border_title = "Parameters"
        self._editor.display = False

    @property
    def fields(self) -> FieldList:
        """The list."""
        return self.query_one(FieldList)

    @property
    def _editor(self) -> ValueEditor:
        return self.query_one(ValueEditor)

    def show(
        self, settings: Mapping[str, Setting], running: Mapping[str, Value] | None, below: Mapping[str, Setting]
    ) -> None:
        """Show what holds; `running` is what the loaded model was loaded with, `below` what the
        saved values fall back to."""
        fields = {
            param.name: Field(
                param,
                settings[param.name],
                param.reload and running is not None and running.get(param.name) != settings[param.name].value,
                below.get(param.name),
            )
            for param in _FORM
        }
        if fields == self._shown:
            return  # engines report every second: what has not changed is not painted
        self._shown = fields
        self.fields.show(fields)
        pending = sum(field.needs_reload for field in fields.values())
        self.border_subtitle = f"* {pending} to apply: {self._reload_key} reloads" if pending else None
        self._explain(self._problem(self._editor.text) if self._editing else None)

    def on_option_list_option_highlighted(self, event: OptionList.OptionHighlighted) -> None:
        """Tell about the field under the cursor."""
        event.stop()
        self._explain()

    def _explain(self, error: BadValue | None = None) -> None:
        field = self.fields.field
        if not field:
            return
        param, setting = field.param, field.setting
        where = f" by {one_line(setting.source)}" if setting.source else ""
        lines = [
            Content.styled(sanitize(error.message), "$error") if error else Content(param.help),
            Content.styled(error.hint if error else f"Allowed: {param.allowed}", "$error" if error else "$text-muted"),
            Content.styled(
                f"default {param.format(param.default) or '–'}{' ' + param.unit if param.unit else ''}"
                + (f" · set{where}" if setting.origin != "default" else ""),
                "$text-muted",
            ),
        ]
        if field.below:
            back = one_line(param.format(field.below.value)) or "–"
            lines.append(Content.styled(f"{self._reset_key}: back to {back} ({field.below.origin})", "$text-muted"))
        self.query_one("#field-help", Static).update(Content("\n").join(lines))
        self.set_class(error is not None, "-invalid")

    # Editing

    def on_field_list_edit_requested(self, event: FieldList.EditRequested) -> None:
        """Open the editor on the value under the cursor."""
        event.stop()
        self.edit(event.field, event.field.param.format(event.field.setting.value))

    @property
    def editing(self) -> bool:
        """Whether a value is being typed."""
        return self._editing is not None

    def edit(self, field: Field, text: str) -> None:
        """Open the editor with a text."""
        self._editing = field.param
        editor = self._editor
        editor.display = True
        editor.border_title = field.param.name
        editor.open(text)
        self.screen.set_focus(editor)

    def take(self, key: str, character: str | None) -> None:
        """A key that reached the list before the editor had the focus."""
        if character:
            self._editor.insert_text_at_cursor(character)
        elif key == "backspace":
            self._editor.action_delete_left()
        elif key == "enter":
            self._submit(self._editor.text)
        elif key == "escape":
            self._close_editor()

    def on_input_changed(self, event: Input.Changed) -> None:
        """Mark a value that cannot be used while it is typed."""
        event.stop()
        if self._editing:
            self._explain(self._problem(self._editor.text))

    def on_input_submitted(self, event: Input.Submitted) -> None:
        """Enter takes a good value and keeps a bad one in the editor."""
        event.stop()
        self._submit(self._editor.text)

    def _submit(self, text: str) -> None:
        if not self._editing:
            return
        if problem := self._problem(text):
            self._explain(problem)
            return
        self.post_message(self.Changed(self._editing, self._editing.parse(text)))
        self._close_editor()

    def on_value_editor_cancelled(self, event: ValueEditor.Cancelled) -> None:
        """The old value stays."""
        event.stop()
        self._close_editor()

    def _problem(self, text: str) -> BadValue | None:
        assert self._editing
        try:
            self._editing.parse(text)
        except BadValue as error:
            return error
        return None

    def _close_editor(self) -> None:
        self._editing = None
        self._editor.display = False
        self._explain()
        self.fields.focus()

    def on_field_list_stepped(self, event: FieldList.Stepped) -> None:
        """A value changed in place."""
        event.stop()
        self.post_message(self.Changed(event.param, event.value))

    def on_field_list_reset_requested(self, event: FieldList.ResetRequested) -> None:
        """The layer below is wanted."""
        event.stop()
        self.post_message(self.Reset(event.param))
