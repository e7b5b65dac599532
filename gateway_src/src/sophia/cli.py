# SPDX-License-Identifier: GPL-3.0-or-later
"""The command ``sophia``."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
import time
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Annotated, Any, NoReturn, Protocol, TypeVar

import typer
from rich.console import Console

from sophia.admin_cli import admin
from sophia.console.client import ClientError
from sophia.settings import SettingsError, load

__all__ = ["app", "main"]

app = typer.Typer(no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False, help=__doc__)
serve = typer.Typer(no_args_is_help=True, help="Run a service in the foreground.")
config = typer.Typer(no_args_is_help=True, help="Look at a configuration.")
sandbox = typer.Typer(no_args_is_help=True, help="Run a loopback stand-in for a vendor's service.")
app.add_typer(serve, name="serve")
app.add_typer(config, name="config")
app.add_typer(sandbox, name="sandbox")
app.add_typer(admin, name="admin")

ConfigFile = Annotated[Path, typer.Option("--config", "-c", help="The service's YAML configuration file.")]

_WORKER = "SOPHIA_CONTROL"

T = TypeVar("T")


@serve.command("gateway")
def serve_gateway(config_file: ConfigFile) -> None:
    """Run the gateway: a parent that holds the sockets, and its workers."""
    settings = _load(config_file, load)
    if _WORKER in os.environ:
        from sophia.gateway.worker import run

        run(settings, config_file)
        return
    _hold_sockets("gateway", settings, config_file, settings.workers)


@serve.command("router")
def serve_router(config_file: ConfigFile) -> None:
    """Run the model router: a parent that holds the sockets, and its worker."""
    from sophia.router.settings import load as load_router

    settings = _load(config_file, load_router)
    if _WORKER in os.environ:
        from sophia.router.worker import run

        run(settings, config_file)
        return
    _hold_sockets("router", settings, config_file)


class _Service(Protocol):
    """What every service's settings say about its process."""

    @property
    def listen(self) -> str: ...
    @property
    def metrics_listen(self) -> str: ...
    @property
    def state_dir(self) -> Path: ...
    @property
    def drain(self) -> float: ...
    @property
    def log_level(self) -> str: ...


def _hold_sockets(service: str, settings: _Service, config_file: Path, workers: int = 1) -> NoReturn:
    """Be the parent of a service's workers until they are told to stop."""
    from sophia import logs
    from sophia.process import Parent, bind, command_of

    logs.configure(settings.log_level)
    listeners = []
    for name in ("listen", "metrics_listen"):
        address = getattr(settings, name)
        try:
            listeners.append(bind(address))
        except OSError as error:
            _fail(f"{name}: {address}: {error.strerror}; free the port, or set {name} to another")
    settings.state_dir.mkdir(parents=True, exist_ok=True, mode=0o700)
    parent = Parent(
        command_of(["serve", service, "--config", str(config_file.absolute())]),
        listeners,
        settings.state_dir / f"{service}.json",
        count=workers,
        drain=settings.drain,
    )
    raise typer.Exit(asyncio.run(parent.run()))


@app.command()
def upgrade(
    config_file: ConfigFile,
    timeout: Annotated[float, typer.Option(help="How long to wait for the new workers (s).")] = 90.0,
) -> None:
    """Have a running service start new workers from its command's path, and retire the old ones."""
    from sophia.process import read_status

    status_file = _load(config_file, load).state_dir / "gateway.json"
    before = read_status(status_file)
    if before is None:
        _fail(f"no gateway runs with this configuration ({status_file} says so)")
    os.kill(int(str(before["pid"])), signal.SIGUSR2)
    end = time.monotonic() + timeout
    while time.monotonic() < end:
        status = read_status(status_file)
        if status is not None and status["upgrades"] != before["upgrades"]:
            if status["upgrade_error"]:
                _fail(str(status["upgrade_error"]))
            typer.echo(f"workers {before['workers']} replaced by {status['workers']}")
            return
        time.sleep(0.1)
    _fail(f"no new worker became ready within {timeout:g} s")


@config.command("check")
def config_check(
    config_file: ConfigFile, service: Annotated[str, typer.Option(help="gateway or router.")] = "gateway"
) -> None:
    """Read a service's configuration and list everything that is wrong with it."""
    from sophia.router.settings import load as load_router

    readers: dict[str, Callable[[Path], object]] = {"gateway": load, "router": load_router}
    if service not in readers:
        _fail(f"--service: must be one of {', '.join(readers)}")
    _load(config_file, readers[service])
    typer.echo(f"{config_file}: good")


@sandbox.command("openrouter", context_settings={"allow_extra_args": True, "ignore_unknown_options": True})
def sandbox_openrouter(context: typer.Context) -> None:
    """OpenRouter's API, stateful and billing exactly, with faults on demand."""
    from sophia.sandbox.openrouter.__main__ import main as run

    sys.argv = ["sophia sandbox openrouter", *context.args]
    run()


@sandbox.command("lambda-cloud", context_settings={"allow_extra_args": True, "ignore_unknown_options": True})
def sandbox_lambda_cloud(context: typer.Context) -> None:
    """Lambda Cloud's API: instances that boot, cost and end, with faults on demand."""
    from sophia.sandbox.lambda_cloud.__main__ import main as run

    sys.argv = ["sophia sandbox lambda-cloud", *context.args]
    run()


@sandbox.command("qdrant", context_settings={"allow_extra_args": True, "ignore_unknown_options": True})
def sandbox_qdrant(context: typer.Context) -> None:
    """Qdrant's REST API over the vendor's engine, with faults on demand (needs the extra qdrant-sandbox)."""
    from sophia.sandbox.qdrant.__main__ import main as run

    sys.argv = ["sophia sandbox qdrant", *context.args]
    run()


@sandbox.command("vllm", context_settings={"allow_extra_args": True, "ignore_unknown_options": True})
def sandbox_vllm(context: typer.Context) -> None:
    """The API of `vllm serve` over a modelled engine, with faults on demand."""
    from sophia.sandbox.vllm.__main__ import main as run

    sys.argv = ["sophia sandbox vllm", *context.args]
    run()


Url = Annotated[str, typer.Option(help="The gateway's address.")]
KeyFile = Annotated[
    Path, typer.Option(envvar="SOPHIA_KEY_FILE", help="The file that holds your key.", show_envvar=True)
]
_URL = "http://127.0.0.1:8080"
_KEY_FILE = Path(".sophia/key")


@app.command()
def chat(
    question: Annotated[str | None, typer.Argument(help="One question; without it, a conversation.")] = None,
    preference: Annotated[str, typer.Option(help="fast, quality, code, balanced or auto.")] = "auto",
    url: Url = _URL,
    key_file: KeyFile = _KEY_FILE,
) -> None:
    """Talk to the gateway."""
    from sophia.console.talk import converse

    _console(lambda console: converse(url, _key(key_file), preference, question, console))


@app.command()
def demo(url: Url = _URL, key_file: KeyFile = _KEY_FILE) -> None:
    """Ask one question per preference and one from the cache, and show what came of it."""
    from sophia.console.demo import demonstrate

    _console(lambda console: demonstrate(url, _key(key_file), console))


@app.command()
def replay(
    file: Annotated[Path, typer.Argument(help="JSON lines, a conversation each: `turns` or `messages`.")],
    preference: Annotated[
        list[str] | None, typer.Option(help="fast, quality, code, balanced or auto; may be repeated (default: auto).")
    ] = None,
    output: Annotated[Path, typer.Option(help="The CSV, which a later run goes on from.")] = Path("replay.csv"),
    parallel: Annotated[int, typer.Option(min=1, max=64, help="Conversations at the same time.")] = 4,
    max_tokens: Annotated[int, typer.Option(min=1, help="Output tokens per turn.")] = 300,
    url: Url = _URL,
    key_file: KeyFile = _KEY_FILE,
) -> None:
    """Send a file of conversations through the gateway: progress, a CSV, a table."""
    from sophia.console.replay import read_conversations
    from sophia.console.replay import replay as run

    async def work(console: Console) -> None:
        conversations = read_conversations(file)
        rows = await run(
            url,
            _key(key_file),
            conversations,
            preference or ["auto"],
            output,
            console,
            parallel=parallel,
            max_tokens=max_tokens,
        )
        failed = sum(bool(row.error) for row in rows)
        if failed:
            raise ClientError(f"{failed} turns failed; run again to repeat their conversations", "replay_failed")

    _console(work)


def _console(work: Callable[[Console], Coroutine[Any, Any, None]]) -> None:
    console = Console()
    try:
        asyncio.run(work(console))
    except* ClientError as group:
        _fail(str(group.exceptions[0]))


def _key(path: Path) -> str:
    from sophia.console.client import read_key

    return read_key(path)


def _load(path: Path, read: Callable[[Path], T]) -> T:
    try:
        return read(path)
    except SettingsError as error:
        for problem in error.problems:
            typer.echo(problem, err=True)
        raise typer.Exit(2) from error


def _fail(reason: str) -> NoReturn:
    typer.echo(reason, err=True)
    raise typer.Exit(1)


def main() -> None:
    """The console script."""
    app()
