"""The entry point `sglang.srt.plugins`: which seams, and the check that each took hold.

SGLang's loader logs whatever goes wrong here and serves on without us. So nothing may go wrong
quietly: this module imports nothing that can fail (`seams` is a table), and every failure ends the
process."""

from __future__ import annotations

import atexit
import gc
import importlib
import importlib.util
import pkgutil
import sys
from collections.abc import Callable
from typing import Any, NoReturn

from oea_server.engine.seams import SEAMS, Seam

PATCHED = "sglang.srt.layers.moe.batch_routing"
"""The module that `patches/` adds to SGLang."""

CALLERS = {
    "sglang.srt.layers.moe.topk": "get_batch_router",
    "sglang.srt.model_executor.model_runner": "routed_pass",
    "sglang.srt.model_executor.runner.decode_cuda_graph_runner": "routed_capture",
}
"""SGLang's modules, and the functions of ours that they call where SGLang is patched."""

in_http_worker = False
"""Whether this process is one of several that serve HTTP (`oea_server.engine.http_app`)."""

CHILDREN = "sglang.srt.managers."
"""Where the functions are that SGLang spawns: schedulers, detokenizers, the controller of
replicas."""

active = False
"""Whether the seams hold in this process."""

patched = False
"""Whether SGLang calls us by itself, where it is patched to."""


def activate() -> None:
    """Called by SGLang in each of its processes, before it applies hooks."""
    from oea_server.engine import hangup, orphans

    # the interpreter's last collections would look through the million objects that SGLang imports,
    # for seconds
    atexit.register(gc.freeze)
    try:
        if is_launcher() and not in_http_worker:
            hangup.drain()
        else:
            hangup.ignore()
            orphans.end_with_parent()
        if needs_seams():
            install()
    except Exception as error:
        end(
            f"the plug-in failed: {type(error).__name__}: {error}; oea-server doctor names the"
            " versions, and pip uninstall oea-server leaves SGLang as it is"
        )


def needs_seams() -> bool:
    """Launcher and schedulers do; the detokenizer would only import the engine to no purpose."""
    return is_launcher() or "sglang.srt.managers.scheduler" in sys.modules


def is_launcher() -> bool:
    """Whether this process may serve HTTP: SGLang's managers run in processes of their own.

    Whether a process has a parent tells nothing: trainers and supervisors start SGLang in children.
    """
    import multiprocessing

    target = getattr(multiprocessing.current_process(), "_target", None)
    target = getattr(target, "func", target)  # a partial's
    return not str(getattr(target, "__module__", None)).startswith(CHILDREN)


def install() -> None:
    """Register every seam and check, once SGLang has applied them, that each took hold."""
    from sglang.srt.plugins.hook_registry import HookRegistry, HookType

    from oea_server import settings
    from oea_server.engine import runtime

    global patched
    try:
        asked = settings.read()
    except settings.SettingsError as error:
        end(str(error))
    seam_module = patched_seam()
    patched = seam_module is not None
    runtime.current = runtime.Runtime(asked, seam_module.real_rows if patched else None)
    originals = {seam: resolve(seam.target) for seam in hooks()}
    missing = [seam.target for seam, original in originals.items() if original is None]
    if missing:
        why = absence(missing[0])
        end(f"this SGLang has no {', '.join(missing)} ({why}); install one of 0.5.17 to 0.5.23")
    for seam in originals:
        HookRegistry.register(seam.target, load(seam.hook), HookType[seam.kind])
    check_after(HookRegistry, originals)
    if patched:
        from oea_server.engine.patched import Batched

        seam_module.set_batch_router(Batched())


def hooks() -> list[Seam]:
    """The seams that are hooks in this process."""
    launcher = is_launcher()
    return [
        each
        for each in SEAMS
        if (launcher or not each.in_launcher) and not (patched and each.in_patch)
    ]


def patched_seam() -> Any:
    """The module through which a patched SGLang calls us, None if it is as released."""
    try:
        for caller in CALLERS:
            importlib.import_module(caller)
    except ImportError as error:
        if error.name == PATCHED:
            end(f"SGLang is half patched (without {PATCHED}); run: oea-server patch apply")
    calls = {caller: resolve(f"{caller}.{name}") for caller, name in CALLERS.items()}
    if not any(calls.values()):
        return None  # where the module is there, another installation left it: nothing imports it
    seam = resolve(PATCHED)
    loose = [
        caller
        for caller, call in calls.items()
        if not call or call is not getattr(seam, CALLERS[caller], None)
    ]
    if loose or not hasattr(seam, "real_rows"):
        end(f"SGLang is half patched ({', '.join(loose) or PATCHED}); run: oea-server patch apply")
    return seam


def leftover() -> str | None:
    """The file of a patched SGLang that lies beside this one, which is as released; None if there
    is none."""
    spec = None if patched else importlib.util.find_spec(PATCHED)
    return spec.origin if spec else None


def check_after(registry: Any, originals: dict[Seam, Any]) -> None:
    """Have the next `HookRegistry.apply_hooks` followed by the check (SGLang only logs
    failures)."""
    apply = registry.apply_hooks

    def apply_and_check() -> None:
        global active
        registry.apply_hooks = apply
        apply()
        loose = [
            seam.target for seam, original in originals.items() if not took_hold(seam, original)
        ]
        if loose:
            end(
                f"the seam did not take hold: {', '.join(loose)}; another plug-in may stand in its"
                " place: leave others out (SGLANG_PLUGINS=oea,oea_cpu)"
            )
        active = True

    registry.apply_hooks = apply_and_check


def took_hold(seam: Seam, original: Any) -> bool:
    """Whether calls to the target reach our hook, under whatever other plug-ins wrapped around
    it."""
    function = resolve(seam.target)
    ours = load(seam.hook)
    while function is not None and function is not original:
        cells = getattr(function, "__closure__", None) or ()
        if any(cell.cell_contents is ours for cell in cells):
            return True
        function = getattr(function, "__wrapped__", None)
    return False


def resolve(target: str) -> Any:
    """The object at a dotted path, None if it is not there."""
    try:
        return pkgutil.resolve_name(target)
    except (ImportError, AttributeError):
        return None


def absence(target: str) -> str:
    """Why a dotted path leads nowhere: a package that its module imports may be what is missing."""
    try:
        pkgutil.resolve_name(target)
    except (ImportError, AttributeError) as error:
        return str(error)
    return "it is there"


def load(hook: str) -> Callable[..., Any]:
    """MODULE:FUNCTION -> the function."""
    module, _, name = hook.partition(":")
    function: Callable[..., Any] = getattr(importlib.import_module(module), name)
    return function


def end(problem: str) -> NoReturn:
    """One clear line, then out."""
    from oea_server.engine.refuse import refuse

    refuse(problem)
