"""``dicom-node account``: the users that callers name where a user identity is required."""

from __future__ import annotations

import sys
from typing import Annotated

import typer

from dicom_node.cli.exit_codes import ExitCode
from dicom_node.cli.options import ConfigFile, DataDir, Json
from dicom_node.cli.output import errors, plain_lines, print_json
from dicom_node.cli.wiring import load_settings, open_database, person

app = typer.Typer(help="Users of associations over TLS.", no_args_is_help=True)

Name = Annotated[str, typer.Argument(help="User name, as the caller sends it.")]


@app.command("add")
def add(name: Name, data_dir: DataDir = None, config: ConfigFile = None) -> None:
    """Add a user, or give one a new passcode.

    The passcode is read from the terminal or standard input.
    """
    from dicom_node.listener.accounts import Accounts

    settings = load_settings(data_dir, config)
    with open_database(settings) as database:
        Accounts(settings.accounts_file).add(name, _passcode())
        with database.transaction(person()) as tx:
            tx.audit("account.added", detail={"user": name})


@app.command("remove")
def remove(name: Name, data_dir: DataDir = None, config: ConfigFile = None) -> None:
    """Remove a user: the next association that names it is rejected."""
    from dicom_node.listener.accounts import Accounts

    settings = load_settings(data_dir, config)
    with open_database(settings) as database:
        if not Accounts(settings.accounts_file).remove(name):
            errors.print(plain_lines(f"there is no user {name!r}"))
            raise typer.Exit(ExitCode.UNKNOWN_RECORD)
        with database.transaction(person()) as tx:
            tx.audit("account.removed", detail={"user": name})


@app.command("list")
def list_users(data_dir: DataDir = None, config: ConfigFile = None, json: Json = False) -> None:
    """List the users; passcodes are not kept, so none can be shown."""
    from dicom_node.listener.accounts import Accounts

    names = Accounts(load_settings(data_dir, config).accounts_file).names()
    if json:
        print_json(names)
        return
    for name in names:
        typer.echo(name)


def _passcode() -> str:
    if sys.stdin.isatty():
        return str(typer.prompt("Passcode", hide_input=True, confirmation_prompt=True))
    return sys.stdin.readline().rstrip("\r\n")
