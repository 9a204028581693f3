"""rtk cache: engines, graphs, downloads and records in the cache."""

from pathlib import Path

import typer

from ..core.errors import ArtifactError
from ..core.text import outline

app = typer.Typer(help="List, verify or clear the cache: engines, graphs, data.", no_args_is_help=True)


@app.command("ls")
def cache_ls() -> None:
    """List everything in the cache: each engine, each graph, and the other folders."""
    from ..core.artifacts.engine_cache import cached_engines
    from ..core.artifacts.graph_cache import cached_graphs
    from ..core.cache_contents import FOLDERS, LISTED_ALONE, cache_folders

    entries: list[dict[str, object]] = []
    for entry in cached_engines():
        facts: dict[str, object] = {"engine": entry.info.card.name if entry.info else "unknown"}
        if entry.info:
            facts |= {"built by": f"{entry.info.flavor} {entry.info.version}", "runs on": entry.info.built_for}
        if entry.problem:
            facts["problem"] = entry.problem
        entries.append(facts | {"bytes": entry.bytes, "path": str(entry.engine)})
    entries += [{"graph": path.stem, "bytes": path.stat().st_size, "path": str(path)} for path in cached_graphs()]
    entries += [
        {"other": FOLDERS[one.name], "files": len(one.files), "bytes": one.bytes, "path": str(one.path)}
        for one in cache_folders()
        if one.name not in LISTED_ALONE
    ]
    print("\n\n".join(map(outline, entries)) or "(none)")


@app.command("verify")
def cache_verify() -> None:
    """Check engines, graphs, downloads and records in the cache; exit code 1 if any is damaged."""
    from ..core.artifacts.engine_cache import cached_engines
    from ..core.cache_contents import checked_files

    entries = cached_engines()
    files = list(checked_files())
    checked: list[tuple[Path, str]] = [(entry.engine, entry.problem) for entry in entries]
    damaged = [f"{path}: {problem}" for path, problem in [*checked, *files] if problem]
    for line in damaged:
        print(line)
    others = f" and {_count(len(files), 'other file')}" if files else ""
    print(f"{_count(len(entries), 'engine')}{others} checked, {len(damaged) or 'none'} damaged")
    if damaged:
        raise ArtifactError(
            f"{len(damaged)} damaged; rtk makes engines and graphs again on demand; to remove all: rtk cache clear"
        )


@app.command("clear")
def cache_clear() -> None:
    """Remove everything from the cache, downloads too."""
    from ..core.artifacts.engine_cache import cached_engines
    from ..core.artifacts.graph_cache import cached_graphs
    from ..core.cache_contents import LISTED_ALONE, clear_cache

    engines, graphs = len(cached_engines()), len(cached_graphs())
    folders, size = clear_cache()
    others = sum(len(one.files) for one in folders if one.name not in LISTED_ALONE)
    print(
        f"removed {_count(engines, 'engine')}, {_count(graphs, 'graph')} and {_count(others, 'other file')}, "
        f"{size:,} bytes"
    )


def _count(number: int, what: str) -> str:
    return f"{number} {what}" if number == 1 else f"{number} {what}s"
