"""``python -m lm_eval_eglr``: lm_eval's command line with the plugin, also where no ``.pth`` file runs."""

from __future__ import annotations

from lm_eval_eglr.harness import plugin


def main() -> None:
    """Runs lm_eval's command line."""
    plugin.install()
    from lm_eval.__main__ import cli_evaluate

    cli_evaluate()


if __name__ == "__main__":
    main()
