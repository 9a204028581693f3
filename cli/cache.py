"""rtk cache: the engines and graphs in the cache."""

from pathlib import Path

import typer

from ..core.errors import ArtifactError
from ..core.paths import cache_dir
from ..core.text import outline

app = typer.Typer(help="List, verify or clear the cache of engines and graphs.", no_args_is_help=True)


@app.command("ls")
def cache_ls() -> None:
    """List the cached engines and graphs."""
    from ..core.artifacts.engine_cache import cached_engines

    entries: list[dict[str, object]] = []
    for entry in cached_engines():
        facts: dict[str, object] = {"engine": entry.info.card.name if entry.info else "unknown"}
        if entry.info:
            facts |= {"built by": f"{entry.info.flavor} {entry.info.version}", "runs on": entry.info.built_for}
        if entry.problem:
            facts["problem"] = entry.problem
        entries.append(facts | {"bytes": entry.bytes, "path": str(entry.engine)})
    entries += [{"graph": path.stem, "bytes": path.stat().st_size, "path": str(path)} for path in cached_graphs()]
    print("\n\n".join(map(outline, entries)) or "(none)")


@app.command("verify")
def cache_verify() -> None:
    """Check the cached engines against their checksums; exit code 1 if any is damaged."""
    from ..core.artifacts.engine_cache import cached_engines

    entries = cached_engines()
    damaged = [f"{entry.engine}: {entry.problem}" for entry in entries if entry.problem]
    for line in damaged:
        print(line)
    engines = "1 engine" if len(entries) == 1 else f"{len(entries)} engines"
    print(f"{engines} checked, {len(damaged) or 'none'} damaged")
    if damaged:
        raise ArtifactError(f"{len(damaged)} damaged; rtk builds them again on demand; to remove all: rtk cache clear")


@app.command("clear")
def cache_clear() -> None:
    """Remove everything from the cache."""
    import shutil

    from ..core.artifacts.engine_cache import clear_engines

    count, size = clear_engines()
    graphs = cached_graphs()
    size += sum(path.stat().st_size for path in graphs)
    for folder in ("graphs", "opened", "rtx", "timings", "parity"):
        shutil.rmtree(cache_dir() / folder, ignore_errors=True)
    print(f"removed {count} engines and {len(graphs)} graphs, {size:,} bytes")


def cached_graphs() -> list[Path]:
    """Return the graphs in the cache."""
    return sorted((cache_dir() / "graphs").glob("*.onnx"))
