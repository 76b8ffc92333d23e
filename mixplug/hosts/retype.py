"""Give one object methods of its own, and leave its class to the others."""

from __future__ import annotations


def retype(thing: object, methods: type) -> None:
    """Make ``thing`` an instance of a subclass of its class, with ``methods``' attributes added.

    Unlike methods put on the instance, they survive deepcopy and pickle, and ``isinstance`` holds.
    The subclass has one base only: Python does not swap classes of unequal layout. So a method
    finds the one that it replaces by ``self.plain``, the class from before, and not by ``super()``.
    """
    if not retyped(thing, methods):
        thing.__class__ = _derived(methods, type(thing))


def retyped(thing: object, methods: type) -> bool:
    """Whether :func:`retype` has been called with the two."""
    return getattr(type(thing), "methods", None) is methods


def plain_again(thing: object) -> None:
    """Undo :func:`retype`: the class from before, without the attributes that the methods name."""
    while "methods" in vars(type(thing)) and type(thing) is _classes.get(
        (type(thing).methods, type(thing).plain)
    ):
        methods, plain = type(thing).methods, type(thing).plain
        thing.__class__ = plain
        for name in methods.__annotations__:
            if name in vars(thing) or name in getattr(thing, "_modules", {}):
                delattr(thing, name)


_classes: dict[tuple[type, type], type] = {}


def _derived(methods: type, plain: type) -> type:
    if (methods, plain) not in _classes:
        own = {k: v for k, v in vars(methods).items() if k not in ("__dict__", "__weakref__")}
        own |= {"methods": methods, "plain": plain, "__reduce_ex__": _reduce}
        _classes[methods, plain] = type(f"{methods.__name__}{plain.__name__}", (plain,), own)
    return _classes[methods, plain]


def _reduce(self: object, protocol: int) -> tuple:
    return _rebuild, (self.methods, self.plain), self.__dict__


def _rebuild(methods: type, plain: type) -> object:
    new = plain.__new__(plain)
    object.__setattr__(new, "__class__", _derived(methods, plain))
    return new
