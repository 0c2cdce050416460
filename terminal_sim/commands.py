"""`cardswitch sim ...`: the virtual city and single devices."""

import typer

app = typer.Typer(no_args_is_help=True, help="The virtual city, and single devices.")


@app.callback()
def sim() -> None:
    """Simulated devices; they share no cryptography with the switch."""
