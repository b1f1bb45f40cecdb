"""`python -m cdm_cli` is `cdm`."""

from cdm_cli.app import main

if __name__ == "__main__":
    main()
