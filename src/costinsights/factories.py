"""Hooks the methods of C types, which cannot be changed: the program gets subclasses of them.

A hook whose owner is such a type goes on a subclass of it. A hook of kind "factory" on the callable
that makes the objects has it make that subclass. A class of the program's own, derived from the C
type, is kept as the base of what is made, and our methods come behind its own: they stand where the
C type's would, so that the program's overriding methods run as they always did.

What was made before, and what a function rather than a class makes, is not seen.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

from costinsights.guard import swallow

if TYPE_CHECKING:
    from collections.abc import Callable

    from costinsights.patching import Probe
    from costinsights.recorder import Recorder

# A tool that makes a class a connection must not make us keep all of them.
MAX_SUBCLASSES = 64


class Makes(NamedTuple):
    """What a hooked factory makes, and how its caller asks for a class of its own.

    ``base`` is the C type, as ``"module:Class"``. ``argument`` is where the caller names a class
    (its position counts the instance as 0); with ``none`` a None there means the default, which is
    the class that the instance's attribute ``default`` names, else `base`. ``fetches`` names an
    argument without which no rows are left on the server: only with it are fetches hooked.
    """

    base: str
    argument: tuple[int, str]
    none: bool = False
    default: str | None = None
    fetches: tuple[int, str] | None = None


_ABSENT: Any = object()


class Factories:
    """The subclasses that one instrumentor makes in place of C types."""

    def __init__(self) -> None:
        self.probes: dict[type, dict[str, Probe]] = {}
        """By C type and method."""
        self._hooked: dict[tuple[type, bool], type] = {}
        self._made: dict[tuple[type, type, bool], type] = {}

    def place(self, owner: type, name: str, probe: Probe) -> None:
        """Have the subclasses of `owner` report calls of their method `name`.

        Raises:
            AttributeError: `owner` has no such method.
        """
        getattr(owner, name)
        self.probes.setdefault(owner, {})[name] = probe
        self._hooked.clear()
        self._made.clear()

    def report_to(self, recorder: Recorder | None) -> None:
        """Have all that was made, and will be, report to `recorder`; with None to nobody."""
        for probes in self.probes.values():
            for probe in probes.values():
                probe.recorder = recorder

    def led(
        self, makes: Makes, base: type, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """Return the arguments with which a factory makes an object of a hooked class."""
        position, name = makes.argument
        asked = _given(args, kwargs, makes.argument)
        if asked is _ABSENT or (makes.none and asked is None):
            named = getattr(args[0], makes.default, None) if makes.default is not None else None
            asked = base if named is None else named
        fetching = makes.fetches is None or _given(args, kwargs, makes.fetches) not in (
            _ABSENT,
            None,
        )
        made = self.subclass(asked, base, fetching=fetching)
        if made is asked:
            return args, kwargs
        if len(args) > position:
            return (*args[:position], made, *args[position + 1 :]), kwargs
        return args, {**kwargs, name: made}

    def subclass(self, asked: Any, base: type, *, fetching: bool) -> Any:
        """Return the hooked subclass of the class `asked`; `asked` itself where there can be none."""
        hooked = self._hooked.get((base, fetching))
        if hooked is None:
            probes = self.probes.get(base, {}).items()
            wanted = {name: probe for name, probe in probes if fetching or not probe.hook.fetch}
            hooked = self._hooked[base, fetching] = _hook(base, wanted) if wanted else base
        if asked is base:
            return hooked
        if not isinstance(asked, type) or not issubclass(asked, base) or hooked in asked.__mro__:
            return asked
        made = self._made.get((asked, base, fetching))
        if made is None:
            made = _derive(asked, (asked, hooked), {})
            if len(self._made) >= MAX_SUBCLASSES:
                self._made.clear()
            self._made[asked, base, fetching] = made
        return made


def _hook(base: type, probes: dict[str, Probe]) -> type:
    from costinsights.patching import wrap

    methods: dict[str, Any] = {
        name: wrap(getattr(base, name), probe) for name, probe in probes.items()
    }
    # The recorder remembers connections by weak references, which not every C type allows.
    slots = () if base.__weakrefoffset__ else ("__weakref__",)
    return _derive(base, (base,), {"__slots__": slots, **methods})


def _derive(like: type, bases: tuple[type, ...], namespace: dict[str, Any]) -> type:
    """Make a subclass that passes for the class `like`, with no room of its own in an instance."""
    known = {"__slots__": (), "__module__": like.__module__, "__qualname__": like.__qualname__}
    return type(like)(like.__name__, bases, {**known, "__doc__": like.__doc__, **namespace})


def _given(args: tuple[Any, ...], kwargs: dict[str, Any], where: tuple[int, str]) -> Any:
    position, name = where
    return args[position] if len(args) > position else kwargs.get(name, _ABSENT)


def factory_wrapper(function: Callable[..., Any], probe: Probe) -> Callable[..., Any]:
    """Return a wrapper of the callable `function` that has it make hooked objects."""
    from costinsights.patching import resolve

    makes = probe.hook.makes
    if makes is None:
        raise ValueError(f"a hook of kind 'factory' says what it makes: {probe.hook.target}")
    factories = probe.instrumentor.factories

    def make(*args: Any, **kwargs: Any) -> Any:
        if probe.recorder is not None:
            try:
                args, kwargs = factories.led(makes, resolve(makes.base), args, kwargs)
            except Exception as ours:  # noqa: BLE001  ours must not reach the program
                swallow(probe.hook.target, ours)
        return function(*args, **kwargs)

    return make
