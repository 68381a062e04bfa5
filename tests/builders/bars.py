"""A process that writes to a terminal, or that takes itself for the kernel of a notebook, with widgets or without."""

from __future__ import annotations

import io
import os
import sys
import types

from colbert_core import progress


class Terminal(io.StringIO):
    def isatty(self):
        return True


def write_to_terminal(monkeypatch, patience=0):
    """Make standard error a terminal, and return it; a bar that is shown by itself comes after ``patience`` seconds."""
    monkeypatch.setattr(progress, "_PATIENCE", patience)
    monkeypatch.setattr(sys, "stderr", stderr := Terminal())
    return stderr


class ZMQInteractiveShell:
    """As the shell of a kernel is named."""

    config: dict = {}


class Widget:
    """What tqdm asks of a widget: attributes, and children if it is a box."""

    def __init__(self, children=(), **attributes):
        self.children, self.value, self.bar_style = children, "", ""
        self.layout, self.style = types.SimpleNamespace(), types.SimpleNamespace()
        self.__dict__.update(attributes)


class HTML(Widget):
    pass


class FloatProgress(Widget):
    pass


class HBox(Widget):
    pass


def become_kernel(monkeypatch, widgets):
    """Make the process a kernel, and return the list of what is displayed then."""
    import IPython.display

    displayed = []
    module = types.ModuleType("ipywidgets")
    module.__dict__.update(HTML=HTML, FloatProgress=FloatProgress, HBox=HBox)
    monkeypatch.setitem(sys.modules, "ipywidgets", module if widgets else None)
    monkeypatch.setattr(IPython.display, "display", displayed.append)
    monkeypatch.setattr(IPython, "get_ipython", ZMQInteractiveShell)
    for console in [name for name in os.environ if name.startswith(progress._CONSOLES)]:
        monkeypatch.delenv(console)
    forget_widgets()
    return displayed


_widget_bar = progress._widget_bar


def forget_widgets():
    """Have ipywidgets looked for once more."""
    sys.modules.pop("tqdm.notebook", None)
    _widget_bar.cache_clear()
