"""The program `cdm`, and `python -m cdm_cli`: signals are heard before anything is imported."""

from typing import NoReturn

from cdm_cli.signals import leave_when_asked


def main() -> NoReturn:
    """Run `cdm` on the words of the command line."""
    leave_when_asked()
    from cdm_cli.app import main as run

    run()


if __name__ == "__main__":
    main()
