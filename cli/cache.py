"""rtk cache: the engines and graphs that are kept."""

from pathlib import Path

import typer

from ..core.errors import ArtifactError
from ..core.paths import cache_dir
from ..core.text import text_table

app = typer.Typer(help="The engines and graphs that rtk keeps to not make them twice.", no_args_is_help=True)


@app.command("ls")
def cache_ls() -> None:
    """List what is kept."""
    from ..core.artifacts.engine_cache import cached_engines

    rows: list[dict[str, object]] = [
        {
            "kind": "engine",
            "model": entry.info.card.name if entry.info else "unknown",
            "made by": f"{entry.info.flavor} {entry.info.version}" if entry.info else "unknown",
            "for": entry.info.built_for if entry.info else "unknown",
            "bytes": entry.bytes,
            "path": str(entry.engine),
            "problem": entry.problem,
        }
        for entry in cached_engines()
    ]
    empty = {"model": "", "made by": "", "for": "", "problem": ""}
    rows += [{"kind": "graph", **empty, "bytes": path.stat().st_size, "path": str(path)} for path in cached_graphs()]
    names = ("kind", "model", "made by", "for", "bytes", "problem", "path")
    print(text_table([{name: row[name] for name in names} for row in rows]))


@app.command("verify")
def cache_verify() -> None:
    """Read everything that is kept and compare it with its checksums; exit code 1 when something is damaged."""
    from ..core.artifacts.engine_cache import cached_engines

    entries = cached_engines()
    damaged = [f"{entry.engine}: {entry.problem}" for entry in entries if entry.problem]
    for line in damaged:
        print(line)
    print(f"{len(entries) - len(damaged)} of {len(entries)} engines are whole")
    if damaged:
        raise ArtifactError(f"{len(damaged)} damaged; they are built anew when needed, or run: rtk cache clear")


@app.command("clear")
def cache_clear() -> None:
    """Remove everything that is kept."""
    import shutil

    from ..core.artifacts.engine_cache import clear_engines

    count, size = clear_engines()
    graphs = cached_graphs()
    size += sum(path.stat().st_size for path in graphs)
    for folder in ("graphs", "opened", "rtx", "timings", "parity"):
        shutil.rmtree(cache_dir() / folder, ignore_errors=True)
    print(f"removed {count} engines and {len(graphs)} graphs, {size:,} bytes")


def cached_graphs() -> list[Path]:
    """The graphs in the cache."""
    return sorted((cache_dir() / "graphs").glob("*.onnx"))
